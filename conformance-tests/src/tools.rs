//! Helpers that many cases use.

use std::{collections::HashSet, sync::Arc};

use annals_core::{
    Append, Appended, Error, ErrorKind, EventStoreExt, ExpectedVersion, Message, NewEvent,
    Position, ReadAll, ReadStream, RecordedEvent, Result, Store, StreamId, Subscription, Version,
};
use futures::TryStreamExt;
use serde_json::json;

use crate::case::Context;

pub(crate) fn id(text: impl AsRef<str>) -> StreamId {
    StreamId::new(text).unwrap()
}

/// The success of an async block whose error type the compiler cannot infer.
pub(crate) fn done() -> Result<()> {
    Ok(())
}

/// An event whose data is its number.
pub(crate) fn event(number: u64) -> NewEvent {
    NewEvent::json("Numbered", &json!({ "number": number })).unwrap()
}

pub(crate) fn typed(event_type: &str, number: u64) -> NewEvent {
    NewEvent::json(event_type, &json!({ "number": number })).unwrap()
}

pub(crate) fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<NewEvent> {
    numbers.into_iter().map(event).collect()
}

pub(crate) fn number(event: &RecordedEvent) -> u64 {
    event.json::<serde_json::Value>().unwrap()["number"].as_u64().unwrap()
}

pub(crate) fn ids(events: &[RecordedEvent]) -> Vec<uuid::Uuid> {
    events.iter().map(|event| event.id).collect()
}

pub(crate) fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version::new(version))
}

/// Appends `count` events to a stream at version `base`. The number in each event is its version.
pub(crate) async fn extend(
    store: &Arc<dyn Store>,
    stream: &StreamId,
    base: u64,
    count: u64,
) -> Result<Appended> {
    let numbered = events(base + 1..=base + count);
    store.append(Append::new(stream.clone(), exact(base), numbered)).await
}

pub(crate) async fn read(
    store: &Arc<dyn Store>,
    stream: &StreamId,
    options: ReadStream,
) -> Result<Vec<RecordedEvent>> {
    store.read_stream(stream, options).try_collect().await
}

pub(crate) async fn read_all(
    store: &Arc<dyn Store>,
    options: ReadAll,
) -> Result<Vec<RecordedEvent>> {
    store.read_all(options).try_collect().await
}

/// Reads all events of the store, and checks their order and positions.
pub(crate) async fn everything(store: &Arc<dyn Store>) -> Result<Vec<RecordedEvent>> {
    let all = read_all(store, ReadAll::default()).await?;
    assert_in_order(&all);
    assert_positions_declared(store, &all);
    Ok(all)
}

/// Checks that events have positions if and only if the store declares an order over all streams.
#[track_caller]
fn assert_positions_declared(store: &Arc<dyn Store>, events: &[RecordedEvent]) {
    let order = store.capabilities().global_order;
    for event in events {
        assert_eq!(event.position > Position::START, order, "the position of {event:?}");
    }
}

/// Checks that the versions of a stream are 1, 2, 3, … without a gap, and returns the last.
pub(crate) async fn assert_gapless(store: &Arc<dyn Store>, stream: &StreamId) -> Result<u64> {
    let all = store.load_stream(stream).await?;
    for (place, event) in (1..).zip(&all) {
        assert_eq!(event.version.get(), place, "a gap or a duplicate version in {stream:?}");
        assert_eq!(event.stream, *stream);
    }
    assert_positions_rise(&all);
    assert_positions_declared(store, &all);
    Ok(all.len() as u64)
}

/// Checks that positions rise, or that no event has one: so it is on a store without an order over
/// all streams. `assert_positions_declared` checks that the store declares which of the two it is.
#[track_caller]
pub(crate) fn assert_positions_rise(events: &[RecordedEvent]) {
    if events.iter().all(|event| event.position == Position::START) {
        return;
    }
    for pair in events.windows(2) {
        assert!(
            pair[0].position < pair[1].position,
            "positions out of order: {} then {}",
            pair[0].position,
            pair[1].position
        );
    }
}

/// Checks that positions rise, and that versions rise within each stream.
#[track_caller]
pub(crate) fn assert_in_order(events: &[RecordedEvent]) {
    assert_positions_rise(events);
    let mut versions = std::collections::HashMap::new();
    for event in events {
        let before = versions.insert(event.stream.clone(), event.version);
        assert!(
            before.is_none_or(|before| before < event.version),
            "version {} of {:?} comes after {before:?}",
            event.version,
            event.stream
        );
    }
}

#[track_caller]
pub(crate) fn assert_same(written: &NewEvent, read: &RecordedEvent) {
    assert_eq!(written.id(), read.id, "the event has another id");
    assert_eq!(*written.event_type(), read.event_type, "the event has another type");
    assert_eq!(*written.data(), read.data, "the event has other data");
    assert_eq!(*written.metadata(), read.metadata, "the event has other metadata");
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Err(error) => {
            assert_eq!(error.kind(), kind, "the wrong kind of error: {error:?}");
            assert!(!error.outcome_unknown(), "the outcome must be known: {error:?}");
            error
        }
        Ok(value) => panic!("expected the error {kind}, but the call succeeded: {value:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_conflict<T: std::fmt::Debug>(
    result: Result<T>,
    stream: &StreamId,
    expected: ExpectedVersion,
    actual: u64,
) {
    let error = assert_kind(result, ErrorKind::Conflict);
    let conflict = error.conflict().expect("a conflict error must carry its versions");
    assert_eq!(conflict.stream, *stream, "the conflict names another stream");
    assert_eq!(conflict.expected, expected, "the conflict names another expected version");
    assert_eq!(conflict.actual.get(), actual, "the conflict names another actual version");
}

/// Waits for the next `count` events of a subscription.
pub(crate) async fn take(
    cx: &Context,
    live: &mut Subscription,
    count: usize,
) -> Vec<RecordedEvent> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let waited = format!("event {} of {count} of a subscription", taken.len() + 1);
        taken.push(cx.within(&waited, live.next_event()).await.unwrap());
    }
    assert_in_order(&taken);
    taken
}

/// Reads a subscription up to the event with this id. An event that the subscription skipped is
/// then known to be missing, without waiting for it.
pub(crate) async fn take_until(
    cx: &Context,
    live: &mut Subscription,
    last: uuid::Uuid,
) -> Vec<RecordedEvent> {
    let mut taken: Vec<RecordedEvent> = Vec::new();
    while taken.last().is_none_or(|event| event.id != last) {
        let event = cx.within("the next event of a subscription", live.next_event()).await;
        taken.push(event.unwrap());
    }
    assert_in_order(&taken);
    taken
}

/// Reads a subscription until it says that it has caught up. Returns the events before that
/// message, and its position.
pub(crate) async fn catch_up(
    cx: &Context,
    live: &mut Subscription,
) -> (Vec<RecordedEvent>, Position) {
    let mut taken = Vec::new();
    loop {
        match cx.within("a subscription to catch up", live.next()).await.unwrap() {
            Message::Event(event) => taken.push(event),
            Message::CaughtUp(position) => {
                assert_in_order(&taken);
                return (taken, position);
            }
            _ => {}
        }
    }
}

/// Checks that two lists of events are equal. The failure names the missing and the unexpected
/// events.
#[track_caller]
pub(crate) fn assert_same_events(got: &[RecordedEvent], wanted: &[RecordedEvent]) {
    if got == wanted {
        return;
    }
    let (has, wants): (HashSet<_>, HashSet<_>) =
        (got.iter().map(|e| e.id).collect(), wanted.iter().map(|e| e.id).collect());
    let place = |e: &RecordedEvent| (e.stream.to_string(), e.version, e.position);
    let missing: Vec<_> = wanted.iter().filter(|e| !has.contains(&e.id)).map(place).collect();
    let extra: Vec<_> = got.iter().filter(|e| !wants.contains(&e.id)).map(place).collect();
    panic!(
        "got {} events, expected {}; missing {missing:?}; unexpected {extra:?}",
        got.len(),
        wanted.len()
    );
}
