//! Reads of more than one page, and of damaged events.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use annals_core::{
    Append, Category, ErrorKind, EventStore, EventStoreExt, EventType, ExpectedVersion, Filter,
    Message, NewEvent, Position, ReadAll, ReadStream, RecordedEvent, Start, StreamPrefix,
    Subscribe, Version,
};
use annals_sqlite::SqliteStore;
use common::{append, event, id, open, raw, within};
use futures::TryStreamExt;

/// Several times as many events as a filtered page looks at.
const MANY: usize = 60_000;

/// A store with one event of its own type and category at each end, and many other events between
/// them.
async fn haystack(path: &Path) -> SqliteStore {
    let store = open(path).await;
    let needle = || NewEvent::binary("Needle", "x").unwrap();
    store.append_to("needle-1", ExpectedVersion::Any, [needle()]).await.unwrap();
    for _ in 0..MANY / 10_000 {
        let events = (0..10_000).map(|_| event("hay"));
        store.append(Append::new(id("hay-1"), ExpectedVersion::Any, events)).await.unwrap();
    }
    store.append_to("needle-2", ExpectedVersion::Any, [needle()]).await.unwrap();
    store
}

fn filters() -> [Filter; 3] {
    [
        Filter::default().with_event_types([EventType::new("Needle").unwrap()]),
        Filter::default().with_category(Category::new("needle").unwrap()),
        Filter::default().with_prefix(StreamPrefix::new("needle-").unwrap()),
    ]
}

fn positions(events: &[RecordedEvent]) -> Vec<usize> {
    events.iter().map(|event| event.position.get() as usize).collect()
}

#[tokio::test]
async fn filters_go_on_past_what_they_leave_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = haystack(&dir.path().join("events.db")).await;
    let read = async |options: ReadAll| -> Vec<usize> {
        positions(&store.read_all(options).try_collect::<Vec<_>>().await.unwrap())
    };
    for filter in filters() {
        let options = ReadAll::default().with_filter(filter.clone());
        assert_eq!(read(options.clone()).await, [1, MANY + 2]);
        assert_eq!(read(options.clone().backwards()).await, [MANY + 2, 1]);
        assert_eq!(read(options.clone().after(1)).await, [MANY + 2]);
        assert_eq!(read(options.before(MANY as u64)).await, [1]);

        let mut live = store.subscribe(Subscribe::to(filter)).await.unwrap();
        let mut told = Vec::new();
        loop {
            match within(live.next()).await.unwrap() {
                Message::CaughtUp(at) => break told.push(at),
                message => told.push(message.position()),
            }
        }
        assert!(told.len() > 4, "an event at each end, checkpoints between: {told:?}");
        assert!(told.is_sorted());
        assert_eq!(told.last(), Some(&Position::new(MANY as u64 + 2)));
    }
}

#[tokio::test]
async fn a_long_stretch_of_removed_events_is_one_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = haystack(&dir.path().join("events.db")).await;
    store.delete(&id("hay-1"), ExpectedVersion::Any).await.unwrap();
    for filter in filters() {
        let options = ReadAll::default().with_filter(filter.clone());
        for options in [options.clone(), options.backwards()] {
            let events: Vec<_> = store.read_all(options).try_collect().await.unwrap();
            assert_eq!(events.len(), 2);
        }
        let mut live = store.subscribe(Subscribe::to(filter).after(1)).await.unwrap();
        // A page without events would be told as a checkpoint before this event.
        assert_eq!(within(live.next()).await.unwrap().into_event().unwrap().stream, id("needle-2"));
    }
}

#[tokio::test]
async fn pages_join_without_a_seam() {
    let dir = tempfile::tempdir().unwrap();
    let store = haystack(&dir.path().join("events.db")).await;
    let stream = id("hay-1");
    let read = async |options: ReadStream| -> Vec<u64> {
        let events: Vec<_> = store.read_stream(&stream, options).try_collect().await.unwrap();
        common::versions(&events)
    };
    let many = MANY as u64;
    assert_eq!(read(ReadStream::default()).await, (1..=many).collect::<Vec<_>>());
    assert_eq!(read(ReadStream::default().backwards()).await, (1..=many).rev().collect::<Vec<_>>());
    let some = ReadStream::default().with_from(1_500).with_limit(3_000);
    assert_eq!(read(some.clone()).await, (1_500..4_500).collect::<Vec<_>>());
    assert_eq!(
        read(some.with_from(3_100).backwards()).await,
        (101..=3_100).rev().collect::<Vec<_>>()
    );
    let all: Vec<_> = store.read_all(ReadAll::default().after(7)).try_collect().await.unwrap();
    assert_eq!(positions(&all), (8..=MANY + 2).collect::<Vec<_>>());
    let options = ReadAll::default().before(5_000).with_limit(4_000);
    let all: Vec<_> = store.read_all(options).try_collect().await.unwrap();
    assert_eq!(positions(&all), (1_000..5_000).rev().collect::<Vec<_>>());
}

/// The version at a position is found by a binary search, also in a stream whose first events were
/// removed.
#[tokio::test]
async fn subscriptions_to_a_stream_begin_after_any_position() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("events.db")).await;
    for n in 0..60 {
        store.append(append(&format!("a-{}", n % 3), ExpectedVersion::Any, "x")).await.unwrap();
    }
    store.truncate(&id("a-1"), Version::new(6)).await.unwrap();
    for after in 0..=60u64 {
        let subscribe = Subscribe::to(id("a-1")).after(after);
        let mut live = store.subscribe(subscribe).await.unwrap();
        let first = within(live.next()).await.unwrap().into_event().map(|e| e.position.get());
        let expected = (after + 1..=60).find(|at| at % 3 == 2 && at.div_ceil(3) >= 6);
        assert_eq!(first, expected, "after {after}");
    }
    let mut live = store.subscribe(Subscribe::to(id("a-1")).with_start(Start::End)).await.unwrap();
    assert_eq!(within(live.next()).await.unwrap(), Message::CaughtUp(Position::new(60)));
}

/// A damaged event that SQLite's own checks do not find ends a read with an error, never as if it
/// were the end of the stream.
#[tokio::test]
async fn what_cannot_be_decoded_ends_the_read_as_corrupt() {
    for damage in [
        "UPDATE annals_events SET id = x'00' WHERE version = 3",
        "UPDATE annals_events SET type = '' WHERE version = 3",
        "UPDATE annals_events SET type = CAST(x'ff' AS TEXT) WHERE version = 3",
        "UPDATE annals_events SET kinds = 4 WHERE version = 3",
        "UPDATE annals_events SET recorded_at = 9223372036854775807 WHERE version = 3",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let store = open(&path).await;
        store.append_to("a-1", ExpectedVersion::Any, (0..5).map(|_| event("x"))).await.unwrap();
        raw(&path).execute_batch(damage).unwrap();
        for read in [
            store.read_stream(&id("a-1"), ReadStream::default()),
            store.read_all(ReadAll::default()),
        ] {
            let error = read.try_collect::<Vec<_>>().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}: {error}");
        }
        // The other versions can still be read.
        let rest = ReadStream::default().with_from(4);
        let rest: Vec<_> = store.read_stream(&id("a-1"), rest).try_collect().await.unwrap();
        assert_eq!(rest.len(), 2);
    }
}

#[tokio::test]
async fn after_damage_to_its_names_a_stream_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path).await;
    store.append_to("a-1", ExpectedVersion::Any, [event("x")]).await.unwrap();
    raw(&path).execute_batch("DELETE FROM annals_streams").unwrap();
    let error = store.read_all(ReadAll::default()).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(store.load_stream(&id("a-1")).await.unwrap().len(), 0);
}
