//! Benchmarks of single operations of the stores, by criterion.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]
#![allow(missing_docs, reason = "criterion's macros generate an undocumented function")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_benches::{Shape, Writer, fill};
use annals_core::{Append, EventStore, EventStoreExt, ReadAll, Source, Start, StreamId, Subscribe};
use annals_memory::MemoryStore;
use annals_sqlite::{SqliteConfig, SqliteStore};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// 100,000 events: a large store, but small enough to read as a whole.
const LARGE: Shape = Shape { streams: 100, events: 1_000, together: 100 };
/// A late checkpoint is this many events before the end.
const LATE: u64 = 10;

/// A store, and the directory that is removed with it.
struct Sample {
    store: Arc<dyn EventStore>,
    _dir: Option<TempDir>,
}

impl Sample {
    async fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), _dir: None }
    }

    async fn sqlite() -> Self {
        // Beside this program: the system's directory for temporary files may be in memory.
        let dir = std::env::current_exe().unwrap().with_file_name("");
        let dir = tempfile::tempdir_in(dir).unwrap();
        let store = SqliteStore::open(SqliteConfig::new(dir.path().join("events.db"))).await;
        Self { store: Arc::new(store.unwrap()), _dir: Some(dir) }
    }
}

fn stores(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    store(criterion, &runtime, "memory", || runtime.block_on(Sample::memory()));
    store(criterion, &runtime, "sqlite", || runtime.block_on(Sample::sqlite()));
}

fn store(criterion: &mut Criterion, runtime: &Runtime, name: &str, open: impl Fn() -> Sample) {
    let mut group = criterion.benchmark_group(name);
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    for events in [1, 10] {
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(format!("append of {events}"), |bench| {
            // Each sample has a new store, so that the store does not grow over the samples.
            bench.iter_custom(|times| runtime.block_on(append(open(), times, events)));
        });
    }
    let sample = open();
    let streams = runtime.block_on(fill(sample.store.as_ref(), LARGE));
    read(&mut group, runtime, &sample.store, &streams);
    subscribe(&mut group, runtime, &sample.store, &streams);
    group.finish();
}

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// The time that `times` appends take, without the time to generate them.
async fn append(sample: Sample, times: u64, events: usize) -> Duration {
    let mut writer = Writer::new(0);
    let appends: Vec<Append> = (0..times).map(|_| writer.append(events)).collect();
    let began = Instant::now();
    for append in appends {
        black_box(sample.store.append(append).await.unwrap());
    }
    began.elapsed()
}

fn read(
    group: &mut Group<'_>,
    runtime: &Runtime,
    store: &Arc<dyn EventStore>,
    streams: &[StreamId],
) {
    group.throughput(Throughput::Elements(LARGE.events));
    group.bench_function("read of a stream of 1,000", |bench| {
        let mut next = streams.iter().cycle();
        bench.to_async(runtime).iter(|| {
            let (store, stream) = (store.clone(), next.next().unwrap().clone());
            async move { store.load_stream(&stream).await.unwrap() }
        });
    });
    group.throughput(Throughput::Elements(LARGE.total()));
    group.bench_function("read of all 100,000", |bench| {
        bench.to_async(runtime).iter(|| async {
            let events = store.read_all(ReadAll::default());
            let count = |read, event| async move {
                black_box(event);
                Ok(read + 1)
            };
            assert_eq!(events.try_fold(0, count).await.unwrap(), LARGE.total());
        });
    });
}

fn subscribe(
    group: &mut Group<'_>,
    runtime: &Runtime,
    store: &Arc<dyn EventStore>,
    streams: &[StreamId],
) {
    group.throughput(Throughput::Elements(LARGE.total()));
    group.bench_function("subscription: catches up with 100,000", |bench| {
        bench.to_async(runtime).iter(|| first(store, Subscribe::default(), LARGE.total()));
    });
    let last = runtime.block_on(store.last_position()).unwrap();
    let late = |source: Source| Subscribe::to(source).with_start(Start::After(last.minus(LATE)));
    let stream = Source::Stream(streams.last().unwrap().clone());
    group.throughput(Throughput::Elements(1));
    for (name, source) in [("all", Source::default()), ("a stream", stream)] {
        group.bench_function(format!("subscription: starts late in {name}"), |bench| {
            bench.to_async(runtime).iter(|| first(store, late(source.clone()), 1));
        });
    }
}

/// Subscribes, and waits for this many events.
async fn first(store: &Arc<dyn EventStore>, options: Subscribe, events: u64) {
    let mut subscription = store.subscribe(options).await.unwrap();
    for _ in 0..events {
        black_box(subscription.next_event().await.unwrap());
    }
}

criterion_group!(benches, stores);
criterion_main!(benches);
