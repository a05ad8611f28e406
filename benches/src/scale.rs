//! Whether operations on a large store take longer than on a small one.

use std::{
    hint::black_box,
    iter::{repeat, repeat_with},
    sync::Arc,
    time::Instant,
};

use annals_benches::{EventGenerator, Shape, Writer, fill};
use annals_core::{
    Append, EventStore, EventStoreExt, ExpectedVersion, Position, StreamId, Subscribe,
};
use annals_memory::MemoryStore;

use crate::{
    bare::Reader,
    plan::Plan,
    report::{Figures, Target, figure},
    sqlite::StoreFile,
};

/// 1,000 events in ten streams that grew at the same time. A larger store has many groups of ten.
const SMALL: Shape = Shape { streams: 10, events: 100, together: 10 };
/// A late checkpoint is this many events before the end.
const LATE: u64 = 10;

const READ_TEN: &str = "read of one of ten streams of 100";
const READ_ANY: &str = "read of any stream of 100";
const SELECT_ANY: &str = "SELECT of any stream of 100";
const START_TEN: &str = "first event of one of ten streams";
const START_ANY: &str = "first event of any stream";
const START_LATE: &str = "first event of a stream after a checkpoint";
const START_ALL: &str = "first event of all after a checkpoint";
const APPEND_NEW: &str = "append to new streams";
const APPEND_ANY: &str = "append to any stream";
const WHAT: [&str; 9] = [
    READ_TEN, READ_ANY, SELECT_ANY, START_TEN, START_ANY, START_LATE, START_ALL, APPEND_NEW,
    APPEND_ANY,
];

pub(crate) fn run(plan: &Plan) {
    let streams = if plan.quick { 1_000 } else { 10_000 };
    let large = ("large", Shape { streams, ..SMALL });
    let scattered = ("large, scattered", Shape { streams, together: streams, ..SMALL });
    measure(plan, "Memory", &[large], Sample::memory);
    measure(plan, "SQLite", &[large, scattered], Sample::sqlite);
}

fn measure(
    plan: &Plan,
    store: &str,
    shapes: &[(&'static str, Shape)],
    sample: fn(&Plan, Shape) -> Sample,
) {
    let full = shapes.first().map_or(0, |(_, shape)| shape.total());
    let [small, large] = [SMALL.total(), full].map(|total| figure(total as f64));
    let title = format!("{store}: small is {small} events in the store, large {large}");
    let mut figures = Figures::new(title, "microseconds");
    let mut contenders = vec![("small", None)];
    contenders.extend(shapes.iter().map(|(name, shape)| (*name, Some(sample(plan, *shape)))));
    let contenders: Vec<_> = contenders.iter().collect();
    for (round, (name, large)) in plan.turns(&contenders).into_iter().enumerate() {
        let mut add = |what: &str, micros| figures.add(format!("{what}; {name}"), micros);
        match large {
            Some(sample) => sample.measure(plan, round, &mut add),
            // A new small store for each round: the appends would make it large.
            None => sample(plan, SMALL).measure(plan, round, &mut add),
        }
    }
    for what in WHAT {
        for (name, _) in shapes {
            // The bare SELECT and scattered streams have no target: SQLite itself is slower there.
            let free = what == SELECT_ANY || *name != "large";
            let target = if free { Target::None } else { Target::AtMost(1.5) };
            let [of, to] = [*name, "small"].map(|size| format!("{what}; {size}"));
            figures.ratio_named(format!("{what}: {name} / small"), &of, &to, target);
        }
    }
    figures.print();
}

/// A filled store.
struct Sample {
    store: Arc<dyn EventStore>,
    streams: Arc<[StreamId]>,
    /// A checkpoint near the end of the events that the store was filled with.
    late: Position,
    file: Option<StoreFile>,
}

impl Sample {
    fn memory(plan: &Plan, shape: Shape) -> Self {
        let store = MemoryStore::new();
        let filled = store.clone();
        let streams = plan.run(async move { fill(&filled, shape).await });
        Self::new(plan, Arc::new(store), streams, None)
    }

    fn sqlite(plan: &Plan, shape: Shape) -> Self {
        let (file, streams) = StoreFile::filled(plan, shape);
        Self::new(plan, Arc::new(file.open(plan)), streams, Some(file))
    }

    fn new(
        plan: &Plan,
        store: Arc<dyn EventStore>,
        streams: Vec<StreamId>,
        file: Option<StoreFile>,
    ) -> Self {
        let late = late(plan, store.clone());
        Self { store, streams: streams.into(), late, file }
    }

    /// Adds the microseconds of each operation. Appends come last, since they make the store
    /// larger.
    fn measure(&self, plan: &Plan, round: usize, add: &mut impl FnMut(&str, f64)) {
        let times = if plan.quick { 50 } else { 500 };
        let any = Streams { ids: self.streams.clone(), at: round };
        let ten = Streams { ids: self.streams.iter().take(10).cloned().collect(), at: round };
        let from = || self.store.clone();
        for (what, streams) in [(READ_TEN, ten.clone()), (READ_ANY, any.clone())] {
            add(what, plan.run(reads(from(), streams, times)));
        }
        if let Some(file) = &self.file {
            add(SELECT_ANY, selects(&Reader::open(&file.path()), any.clone(), times));
        }
        for (what, streams) in [(START_TEN, ten), (START_ANY, any.clone())] {
            let options = streams.map(Subscribe::to);
            add(what, plan.run(starts(from(), options, times)));
        }
        // The last stream has the last event, whether streams are interleaved or not.
        let last = self.streams.last().unwrap().clone();
        let options = repeat(Subscribe::to(last).after(self.late));
        add(START_LATE, plan.run(starts(from(), options, times)));
        let options = repeat(Subscribe::default().after(late(plan, from())));
        add(START_ALL, plan.run(starts(from(), options, times)));

        let mut writer = Writer::new(round);
        let appends = repeat_with(move || writer.append(1));
        add(APPEND_NEW, plan.run(writes(from(), appends, 2 * times)));
        let mut events = EventGenerator::new();
        let appends = any.map(move |id| Append::new(id, ExpectedVersion::Any, [events.one()]));
        add(APPEND_ANY, plan.run(writes(from(), appends, 2 * times)));
    }
}

/// A checkpoint near the end.
fn late(plan: &Plan, store: Arc<dyn EventStore>) -> Position {
    plan.run(async move { store.last_position().await }).unwrap().minus(LATE)
}

/// The streams of a store, again and again, in an order that no cache can predict.
#[derive(Clone)]
struct Streams {
    ids: Arc<[StreamId]>,
    at: usize,
}

impl Iterator for Streams {
    type Item = StreamId;

    fn next(&mut self) -> Option<StreamId> {
        /// A prime number, so that every stream is visited.
        const STEP: usize = 7_919;
        self.at += STEP;
        self.ids.get(self.at % self.ids.len()).cloned()
    }
}

async fn reads(store: Arc<dyn EventStore>, mut streams: Streams, times: usize) -> f64 {
    let mut clock = Clock::new(times);
    while clock.goes_on() {
        black_box(store.load_stream(&streams.next().unwrap()).await.unwrap());
    }
    clock.micros()
}

fn selects(bare: &Reader, mut streams: Streams, times: usize) -> f64 {
    let mut clock = Clock::new(times);
    while clock.goes_on() {
        bare.stream(streams.next().unwrap().as_str());
    }
    clock.micros()
}

/// The time from the call to the first event.
async fn starts(
    store: Arc<dyn EventStore>,
    mut options: impl Iterator<Item = Subscribe>,
    times: usize,
) -> f64 {
    let mut clock = Clock::new(times);
    while clock.goes_on() {
        let mut subscription = store.subscribe(options.next().unwrap()).await.unwrap();
        black_box(subscription.next_event().await.unwrap());
    }
    clock.micros()
}

async fn writes(
    store: Arc<dyn EventStore>,
    mut appends: impl Iterator<Item = Append>,
    times: usize,
) -> f64 {
    let mut clock = Clock::new(times);
    while clock.goes_on() {
        store.append(appends.next().unwrap()).await.unwrap();
    }
    clock.micros()
}

/// Measures the mean time of an operation, after a warm-up.
struct Clock {
    times: usize,
    done: usize,
    began: Instant,
}

impl Clock {
    fn new(times: usize) -> Self {
        Self { times, done: 0, began: Instant::now() }
    }

    fn goes_on(&mut self) -> bool {
        let warm_up = self.times / 10;
        if self.done == warm_up {
            self.began = Instant::now();
        }
        self.done += 1;
        self.done <= warm_up + self.times
    }

    fn micros(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e6 / self.times as f64
    }
}
