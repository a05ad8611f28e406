//! What many cases do.

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

/// What a task of a case answers where all went well.
pub(crate) fn done() -> Result<()> {
    Ok(())
}

/// An event that says its number.
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

/// Appends events that say their versions to a stream at version `base`.
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

/// All events of the store, in order, each once; checked to be so.
pub(crate) async fn everything(store: &Arc<dyn Store>) -> Result<Vec<RecordedEvent>> {
    let all = read_all(store, ReadAll::default()).await?;
    assert_in_order(&all);
    assert_positions_declared(store, &all);
    Ok(all)
}

/// Events have positions just where the store declares an order over all streams.
#[track_caller]
fn assert_positions_declared(store: &Arc<dyn Store>, events: &[RecordedEvent]) {
    let order = store.capabilities().global_order;
    for event in events {
        assert_eq!(event.position > Position::START, order, "the position of {event:?}");
    }
}

/// The version of a stream that has to be whole: 1, 2, 3, …
pub(crate) async fn assert_gapless(store: &Arc<dyn Store>, stream: &StreamId) -> Result<u64> {
    let all = store.load_stream(stream).await?;
    for (place, event) in (1..).zip(&all) {
        assert_eq!(event.version.get(), place, "a gap or a double in {stream:?}");
        assert_eq!(event.stream, *stream);
    }
    assert_positions_rise(&all);
    assert_positions_declared(store, &all);
    Ok(all.len() as u64)
}

/// Or there are none, as on a store that keeps no order over all streams; whether it may, is checked
/// where the store is at hand.
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

/// Positions rise, and within each stream versions do.
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
    assert_eq!(written.id(), read.id, "another id");
    assert_eq!(*written.event_type(), read.event_type, "another type");
    assert_eq!(*written.data(), read.data, "other data");
    assert_eq!(*written.metadata(), read.metadata, "other metadata");
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Err(error) => {
            assert_eq!(error.kind(), kind, "the wrong kind of error: {error:?}");
            assert!(!error.outcome_unknown(), "an outcome that is known: {error:?}");
            error
        }
        Ok(value) => panic!("{kind} was due, but it went through: {value:?}"),
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
    let conflict = error.conflict().expect("a conflict must say its versions");
    assert_eq!(conflict.stream, *stream, "a conflict on another stream");
    assert_eq!(conflict.expected, expected, "a conflict on another expectation");
    assert_eq!(conflict.actual.get(), actual, "a conflict at another version");
}

/// The next `count` events of a subscription.
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

/// The events of a subscription up to the one with this id: whatever was skipped will not come any
/// more, so nobody has to wait for it.
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

/// The events before a subscription says that it has caught up, and the position it says.
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

/// Fails, and says what is missing and what is too much, where two lists of events differ.
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
        "got {} events where {} were due; missing {missing:?}; unexpected {extra:?}",
        got.len(),
        wanted.len()
    );
}
