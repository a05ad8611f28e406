//! How long an event takes from its append to a subscriber.

use std::{
    ffi::OsString,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_benches::Writer;
use annals_core::{Append, EventStore, ExpectedVersion, NewEvent};
use annals_memory::MemoryStore;
use tokio::{
    task::{JoinSet, consume_budget},
    time::sleep,
};

use crate::{
    plan::Plan,
    report::{Figures, Target, median, percentile},
    sqlite::StoreFile,
    subscriber::{LAST, SINGLE, Subscriber, open, stamped},
};

/// The longest pause between two single events, in milliseconds. The pauses are random, so that the
/// events do not run in step with a poll interval.
const PAUSE: u64 = 10;

/// How the events are appended.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// One at a time.
    Singly,
    /// By this many writers, as fast as they can.
    Loaded(usize),
}

/// Whether the subscriber uses the writer's handle, another handle, or runs in another process.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    SameHandle,
    OtherHandle,
    OtherProcess,
}

/// The stores. `None` is the store in memory.
const STORES: [(&str, Option<Place>); 4] = [
    ("memory", None),
    ("SQLite, same handle", Some(Place::SameHandle)),
    ("SQLite, another handle", Some(Place::OtherHandle)),
    ("SQLite, another process", Some(Place::OtherProcess)),
];

pub(crate) fn run(plan: &Plan) {
    let set = |place: Option<Place>| match place {
        None => {
            let store = Arc::new(MemoryStore::new());
            (Stage { store, address: None, place: Place::SameHandle }, None)
        }
        Some(place) => {
            let file = StoreFile::empty(plan);
            let (store, address) = (Arc::new(file.open(plan)), Some(file.path().into()));
            (Stage { store, address, place }, Some(file))
        }
    };
    for kind in [Kind::Singly, Kind::Loaded(8)] {
        measure(plan, "From append to subscriber", &STORES, kind, Target::None, set);
    }
}

/// Measures the contenders in turn. The value that `set` returns beside a stage lives as long as
/// the turn.
pub(crate) fn measure<C: Copy, K>(
    plan: &Plan,
    title: &str,
    contenders: &[(&str, C)],
    kind: Kind,
    p99: Target,
    set: impl Fn(C) -> (Stage, K),
) {
    let how = match kind {
        Kind::Singly => "one event at a time".to_owned(),
        Kind::Loaded(writers) => format!("{writers} writers as fast as they can"),
    };
    let separator = if title.contains(':') { ',' } else { ':' };
    let mut figures = Figures::new(format!("{title}{separator} {how}"), "microseconds");
    let time = plan.warm_up() + plan.slice;
    for (name, contender) in plan.turns(contenders) {
        let (stage, _kept) = set(contender);
        let arrivals = match kind {
            Kind::Singly => {
                let (appends, arrivals) = plan.run(singly(stage, time));
                figures.add(format!("{name}: the append, p50"), median(warm(plan, &appends)));
                arrivals
            }
            Kind::Loaded(writers) => plan.run(loaded(stage, writers, time)),
        };
        figures.add(format!("{name}: p50"), median(warm(plan, &arrivals)));
        figures.add(format!("{name}: p99"), percentile(warm(plan, &arrivals), 0.99));
    }
    for (name, _) in contenders {
        if let Kind::Singly = kind {
            let (of, to) = (format!("{name}: p50"), format!("{name}: the append, p50"));
            figures.ratio(&of, &to, Target::None);
        }
        if !matches!(p99, Target::None) {
            figures.target(&format!("{name}: p99"), p99);
        }
    }
    figures.print();
}

/// The times without those of the warm-up, when connections were made.
fn warm<'a>(plan: &Plan, times: &'a [f64]) -> &'a [f64] {
    let share = plan.warm_up().as_secs_f64() / (plan.warm_up() + plan.slice).as_secs_f64();
    times.get((times.len() as f64 * share) as usize..).unwrap_or_default()
}

/// The store to append to, and how the subscriber opens it.
pub(crate) struct Stage {
    pub(crate) store: Arc<dyn EventStore>,
    /// The file or the URL of the store.
    pub(crate) address: Option<OsString>,
    pub(crate) place: Place,
}

impl Stage {
    async fn subscribe(&self) -> Subscriber {
        match (self.place, &self.address) {
            (Place::OtherProcess, Some(address)) => Subscriber::process(address).await,
            (Place::OtherHandle, Some(address)) => {
                Subscriber::task(open(address.clone()).await.as_ref()).await
            }
            _ => Subscriber::task(self.store.as_ref()).await,
        }
    }

    async fn write(&self, event_type: &str) {
        let event = stamped(NewEvent::binary(event_type, "").unwrap());
        let stream = format!("latency-{event_type}").try_into().unwrap();
        self.store.append(Append::new(stream, ExpectedVersion::Any, [event])).await.unwrap();
    }
}

/// The times that the appends took, and those until each event arrived, in microseconds.
async fn singly(stage: Stage, time: Duration) -> (Vec<f64>, Vec<f64>) {
    let mut subscriber = stage.subscribe().await;
    let mut appends = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        sleep(Duration::from_millis(fastrand::u64(1..=PAUSE))).await;
        let appended = Instant::now();
        stage.write(SINGLE).await;
        appends.push(appended.elapsed().as_secs_f64() * 1e6);
        subscriber.heard().await;
    }
    stage.write(LAST).await;
    (appends, subscriber.arrivals().await)
}

async fn loaded(stage: Stage, writers: usize, time: Duration) -> Vec<f64> {
    let subscriber = stage.subscribe().await;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..writers {
        let store = stage.store.clone();
        tasks.spawn(async move {
            let mut writer = Writer::new(number);
            while began.elapsed() < time {
                let mut append = writer.append(1);
                append.events = append.events.into_iter().map(stamped).collect();
                store.append(append).await.unwrap();
                // An append to memory never waits, so this task would never yield its thread.
                consume_budget().await;
            }
        });
    }
    tasks.join_all().await;
    stage.write(LAST).await;
    subscriber.arrivals().await
}
