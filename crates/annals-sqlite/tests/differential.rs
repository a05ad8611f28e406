//! Makes the same random calls on this store and on the reference store, and compares the answers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use annals_core::{
    Append, Category, Error, ExpectedVersion, Filter, NewEvent, Position, ReadAll, ReadStream,
    RecordedEvent, Snapshot, Start, Store, StreamId, StreamPrefix, Subscribe, SubscriberId,
    Version,
};
use annals_memory::MemoryStore;
use annals_sqlite::{SqliteConfig, SqliteStore};
use chrono::DateTime;
use futures::TryStreamExt;
use uuid::Uuid;

/// Stream ids that a store could confuse.
const STREAMS: [&str; 10] = [
    "order-1", "Order-1", "order-%", "order-_", "orde", " order-1", "order-1 ", "ordér-1",
    "o'r\"d-1", "%",
];
const TYPES: [&str; 4] = ["Placed", "placed", "Pl\"ac\\ed", "日本"];

/// The beginning of the answer to an append to several streams.
const SEVERAL: &str = "several: ";

/// A random number generator of this test, so that a seed gives the same run everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    fn stream(&mut self) -> StreamId {
        common::id(STREAMS[self.below(STREAMS.len())])
    }

    fn version(&mut self) -> Version {
        Version::new(self.below(12) as u64)
    }

    fn position(&mut self) -> Position {
        Position::new(self.below(60) as u64)
    }

    fn expected(&mut self) -> ExpectedVersion {
        match self.below(6) {
            0 => ExpectedVersion::NoStream,
            1 => ExpectedVersion::StreamExists,
            2 => ExpectedVersion::Exact(self.version()),
            _ => ExpectedVersion::Any,
        }
    }

    fn event(&mut self) -> NewEvent {
        let bytes: Vec<u8> = (0..self.below(9)).map(|_| self.below(256) as u8).collect();
        let event_type = TYPES[self.below(TYPES.len())];
        let event = match self.below(3) {
            0 => NewEvent::binary(event_type, bytes).unwrap().with_metadata("{\"b\":1.0, \"a\":1}"),
            1 => NewEvent::json(event_type, "a\u{0}ü").unwrap().with_metadata(bytes),
            _ => NewEvent::binary(event_type, bytes).unwrap(),
        };
        event.with_id(Uuid::from_u64_pair(self.0, 0))
    }

    fn append(&mut self) -> Append {
        let events: Vec<_> = (0..self.below(4)).map(|_| self.event()).collect();
        Append::new(self.stream(), self.expected(), events)
    }

    fn filter(&mut self) -> Filter {
        let mut filter = Filter::default();
        if self.below(3) == 0 {
            let category = self.stream().category();
            filter = filter.with_category(category.unwrap_or(Category::new("none").unwrap()));
        }
        if self.below(3) == 0 {
            let stream = self.stream();
            let cut: String = stream.as_str().chars().take(1 + self.below(6)).collect();
            filter = filter.with_prefix(StreamPrefix::new(cut).unwrap());
        }
        if self.below(3) == 0 {
            let types = (0..=self.below(2)).map(|_| TYPES[self.below(4)].try_into().unwrap());
            filter = filter.with_event_types(types.collect::<Vec<_>>());
        }
        filter
    }
}

/// Sets the times of events to the same value, because two stores record different times.
fn timeless(mut events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
    events.iter_mut().for_each(|event| event.recorded_at = DateTime::UNIX_EPOCH);
    events
}

fn told(error: &Error) -> String {
    let text = error.to_string();
    // The two stores have different names, but the same limits.
    format!("{:?} {:?} {}", error.kind(), error.conflict(), text.replace("sqlite", "memory"))
}

async fn step(store: &dyn Store, random: &mut Random, last: &Append) -> String {
    let answer = |result: Result<String, Error>| result.unwrap_or_else(|error| told(&error));
    let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let subscriber = SubscriberId::new("sub").unwrap();
    answer(match random.below(20) {
        0..6 => store.append(last.clone()).await.map(|appended| debug(&appended)),
        6 => {
            let stream = random.stream();
            store.truncate(&stream, random.version()).await.map(|()| String::new())
        }
        7 => {
            let (stream, expected) = (random.stream(), random.expected());
            store.delete(&stream, expected).await.map(|()| String::new())
        }
        8 if random.below(20) == 0 => {
            let (stream, expected) = (random.stream(), random.expected());
            store.tombstone(&stream, expected).await.map(|()| String::new())
        }
        8 => store.stream_info(&random.stream()).await.map(|info| debug(&info)),
        9..12 => {
            let stream = random.stream();
            let mut options = ReadStream::default();
            if random.below(2) == 0 {
                options = options.backwards();
            }
            if random.below(2) == 0 {
                options = options.with_from(random.version());
            }
            if random.below(2) == 0 {
                options = options.with_limit(random.below(5) as u64);
            }
            let events = store.read_stream(&stream, options).try_collect().await;
            events.map(|events: Vec<_>| debug(&timeless(events)))
        }
        12..16 => {
            let mut options = ReadAll::default().with_filter(random.filter());
            options = match random.below(4) {
                0 => options.after(random.position()),
                1 => options.before(random.position()),
                2 => options.backwards(),
                _ => options,
            };
            if random.below(2) == 0 {
                options = options.with_limit(random.below(9) as u64);
            }
            let events = store.read_all(options).try_collect().await;
            events.map(|events: Vec<_>| debug(&timeless(events)))
        }
        16 => {
            let stream = random.stream();
            let snapshot = Snapshot::new(random.version(), random.event().data().clone());
            let saved = match random.below(4) {
                0 => store.delete_snapshot(&stream).await,
                _ => store.save_snapshot(&stream, snapshot).await,
            };
            saved.unwrap();
            store.load_snapshot(&random.stream()).await.map(|snapshot| debug(&snapshot))
        }
        17 => {
            let position = random.position();
            match random.below(4) {
                0 => store.reset_checkpoint(&subscriber, None).await.unwrap(),
                1 => store.reset_checkpoint(&subscriber, Some(position)).await.unwrap(),
                _ => drop(store.save_checkpoint(&subscriber, position).await.unwrap()),
            }
            store.load_checkpoint(&subscriber).await.map(|position| debug(&position))
        }
        18 => {
            let appends = vec![random.append(), random.append()];
            let appended = store.append_multi(appends).await;
            appended.map(|appended| format!("{SEVERAL}{appended:?}"))
        }
        _ => {
            let source = match random.below(2) {
                0 => annals_core::Source::All(random.filter()),
                _ => annals_core::Source::Stream(random.stream()),
            };
            let start = match random.below(4) {
                0 => Start::Beginning,
                1 => Start::After(random.position()),
                2 => Start::AfterVersion(random.version()),
                _ => Start::End,
            };
            match store.subscribe(Subscribe::to(source).with_start(start)).await {
                Err(error) => Err(error),
                Ok(mut subscription) => {
                    let mut seen = String::new();
                    loop {
                        match subscription.next().await.unwrap() {
                            annals_core::Message::Event(event) => {
                                seen += &debug(&timeless(vec![event]));
                            }
                            other => {
                                seen += &debug(&other);
                                break;
                            }
                        }
                    }
                    Ok(seen)
                }
            }
        }
    })
}

#[tokio::test]
async fn answers_as_the_reference_store_does() {
    let rounds = std::env::var("ANNALS_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..rounds.unwrap_or(20) {
        let memory = MemoryStore::new();
        let sqlite = SqliteStore::open(SqliteConfig::in_memory()).await.unwrap();
        let mut random = Random(seed);
        let mut last = random.append();
        for at in 0..200 {
            // Otherwise use the last append again, which may then be a retry. Do not go on with it
            // after an append to several streams, because the reference store recognises more
            // retries than this one.
            if random.below(3) > 0 {
                last = random.append();
            }
            let mut again = Random(random.0);
            let reference = step(&memory, &mut random, &last).await;
            let found = step(&sqlite, &mut again, &last).await;
            assert_eq!(found, reference, "seed {seed}, step {at}");
            if reference.starts_with(SEVERAL) {
                last = random.append();
            }
        }
    }
}
