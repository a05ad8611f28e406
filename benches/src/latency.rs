//! How long an event takes from its writer to a subscriber.

use std::{
    path::PathBuf,
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
    sqlite::{StoreFile, open},
    subscriber::{LAST, SINGLE, Subscriber, stamped},
};

/// How many writers write at the same time.
const WRITERS: usize = 8;
/// The most milliseconds between two single events. They are left to chance, so that nothing that
/// looks at intervals is met at the same moment each time.
const PAUSE: u64 = 10;

/// Where the subscriber is, seen from the writer.
#[derive(Clone, Copy)]
enum Place {
    Memory,
    SameHandle,
    OtherHandle,
    OtherProcess,
}

const PLACES: [(&str, Place); 4] = [
    ("memory", Place::Memory),
    ("SQLite, same handle", Place::SameHandle),
    ("SQLite, another handle", Place::OtherHandle),
    ("SQLite, another process", Place::OtherProcess),
];

pub(crate) fn run(plan: &Plan) {
    let mut single = Figures::new("From append to subscriber: one event at a time", "microseconds");
    for (name, place) in plan.turns(&PLACES) {
        let (append, arrival) = plan.run(singly(Stage::set(plan, place), plan.slice));
        single.add(format!("{name}: the append, p50"), median(&append));
        add(&mut single, name, &arrival);
    }
    for (name, _) in PLACES {
        let (of, to) = (format!("{name}: p50"), format!("{name}: the append, p50"));
        single.ratio(&of, &to, Target::None);
    }
    single.print();

    let title = format!("From append to subscriber: {WRITERS} writers as fast as they can");
    let mut load = Figures::new(title, "microseconds");
    for (name, place) in plan.turns(&PLACES) {
        add(&mut load, name, &plan.run(loaded(Stage::set(plan, place), plan.slice)));
    }
    load.print();
}

fn add(figures: &mut Figures, name: &str, arrival: &[f64]) {
    figures.add(format!("{name}: p50"), median(arrival));
    figures.add(format!("{name}: p99"), percentile(arrival, 0.99));
}

/// A store to write to, and where the subscriber finds it.
struct Stage {
    store: Arc<dyn EventStore>,
    path: Option<PathBuf>,
    place: Place,
    _file: Option<StoreFile>,
}

impl Stage {
    fn set(plan: &Plan, place: Place) -> Self {
        if let Place::Memory = place {
            return Self { store: Arc::new(MemoryStore::new()), path: None, place, _file: None };
        }
        let file = StoreFile::empty(plan);
        let store = Arc::new(file.open(plan));
        Self { store, path: Some(file.path()), place, _file: Some(file) }
    }

    async fn subscribe(&self) -> Subscriber {
        match (self.place, &self.path) {
            (Place::OtherProcess, Some(path)) => Subscriber::process(path).await,
            (Place::OtherHandle, Some(path)) => Subscriber::task(&open(path.clone()).await).await,
            _ => Subscriber::task(self.store.as_ref()).await,
        }
    }

    async fn write(&self, event_type: &str) {
        let event = stamped(NewEvent::binary(event_type, "").unwrap());
        let stream = format!("latency-{event_type}").try_into().unwrap();
        self.store.append(Append::new(stream, ExpectedVersion::Any, [event])).await.unwrap();
    }
}

/// How long appends took, and until each had arrived.
async fn singly(stage: Stage, slice: Duration) -> (Vec<f64>, Vec<f64>) {
    let mut subscriber = stage.subscribe().await;
    let mut appends = Vec::new();
    let began = Instant::now();
    while began.elapsed() < slice {
        sleep(Duration::from_millis(fastrand::u64(1..=PAUSE))).await;
        let appended = Instant::now();
        stage.write(SINGLE).await;
        appends.push(appended.elapsed().as_secs_f64() * 1e6);
        subscriber.heard().await;
    }
    stage.write(LAST).await;
    (appends, subscriber.arrivals().await)
}

async fn loaded(stage: Stage, slice: Duration) -> Vec<f64> {
    let subscriber = stage.subscribe().await;
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let store = stage.store.clone();
        writers.spawn(async move {
            let mut writer = Writer::new(number);
            while began.elapsed() < slice {
                let mut append = writer.append(1);
                append.events = append.events.into_iter().map(stamped).collect();
                store.append(append).await.unwrap();
                // Whoever never waits for anything would keep a thread to itself.
                consume_budget().await;
            }
        });
    }
    writers.join_all().await;
    stage.write(LAST).await;
    subscriber.arrivals().await
}
