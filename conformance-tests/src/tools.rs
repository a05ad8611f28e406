//! Helpers that many cases use.

use std::{
    collections::{HashMap, HashSet},
    fmt::{Debug, Display},
    sync::Arc,
};

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

/// A number of the contract as a length or an index.
pub(crate) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// Appends events to a stream, in as few appends as the store allows. The number in each event is its
/// version. Returns the answer to the last append.
pub(crate) async fn fill(
    store: &Arc<dyn Store>,
    stream: &StreamId,
    versions: std::ops::RangeInclusive<u64>,
) -> Result<Appended> {
    fill_with(store, stream, versions, event).await
}

/// As [`fill`], with an event for each version.
pub(crate) async fn fill_with(
    store: &Arc<dyn Store>,
    stream: &StreamId,
    versions: std::ops::RangeInclusive<u64>,
    event: impl Fn(u64) -> NewEvent,
) -> Result<Appended> {
    let most = store.capabilities().max_append_events as u64;
    let (mut base, end) = (versions.start() - 1, *versions.end());
    loop {
        let next = (base + most).min(end);
        let batch = (base + 1..=next).map(&event);
        let appended = store.append(Append::new(stream.clone(), exact(base), batch)).await?;
        if next == end {
            return Ok(appended);
        }
        base = next;
    }
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
        assert!(
            (event.position > Position::START) == order,
            "the store declares `global_order: {order}`, and gave {event:?}"
        );
    }
}

/// Checks that the versions of a stream are 1, 2, 3, … without a gap, and returns the last.
pub(crate) async fn assert_gapless(store: &Arc<dyn Store>, stream: &StreamId) -> Result<u64> {
    let all = store.load_stream(stream).await?;
    assert_versions(format_args!("the whole stream {stream}"), &all, 1..=all.len() as u64);
    assert!(all.iter().all(|event| event.stream == *stream), "{stream} gave {}", show(&all));
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
    let mut versions = HashMap::new();
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
    let RecordedEvent { stream, version, .. } = read;
    let where_ = format_args!("version {version} of {stream}");
    assert_eq!(
        written.id(),
        read.id,
        "{where_}: the id that was written, and the one that was read"
    );
    assert_eq!(
        *written.event_type(),
        read.event_type,
        "{where_}: the type that was written, and the one that was read"
    );
    assert_eq!(
        *written.data(),
        read.data,
        "{where_}: the data that was written, and the data that was read"
    );
    assert_eq!(
        *written.metadata(),
        read.metadata,
        "{where_}: the metadata that was written, and the metadata that was read"
    );
}

/// Checks that a call was refused with this kind of error. That the error names the backend, the
/// operation and the stream is checked of every error.
#[track_caller]
pub(crate) fn assert_kind<T: Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Err(error) => {
            assert!(error.kind() == kind, "the error due is {kind:?}, but it is {error:?}");
            assert!(
                !error.outcome_unknown(),
                "nothing was sent, or its outcome is known: {error:?}"
            );
            error
        }
        Ok(value) => panic!("the call must be refused with {kind:?}, but it succeeded: {value:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_conflict<T: Debug>(
    result: Result<T>,
    stream: &StreamId,
    expected: ExpectedVersion,
    actual: u64,
) {
    let error = assert_kind(result, ErrorKind::Conflict);
    let conflict = error.conflict().expect("a conflict error must carry its versions");
    let found = (&conflict.stream, conflict.expected, conflict.actual.get());
    assert!(
        found == (stream, expected, actual),
        "the conflict due is that of {stream}, expected {expected}, actual version {actual}; but it \
         is that of {}, expected {}, actual version {}",
        found.0,
        found.1,
        found.2
    );
}

/// Waits for the next `count` events of a subscription.
pub(crate) async fn take(
    cx: &Context,
    live: &mut Subscription,
    count: usize,
) -> Vec<RecordedEvent> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let waited = format!(
            "event {} of {count} of a subscription, after {}",
            taken.len() + 1,
            show(&taken)
        );
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
        let waited = format!("the event {last} of a subscription, after {}", show(&taken));
        let event = cx.within(&waited, live.next_event()).await;
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
        let waited = format!("a subscription to catch up, after {}", show(&taken));
        match cx.within(&waited, live.next()).await.unwrap() {
            Message::Event(event) => taken.push(event),
            Message::CaughtUp(position) => {
                assert_in_order(&taken);
                return (taken, position);
            }
            _ => {}
        }
    }
}

/// Events in a failure: their streams and versions, those that follow each other as one range.
pub(crate) fn show(events: &[RecordedEvent]) -> String {
    if events.is_empty() {
        return "nothing".to_owned();
    }
    let follows = |one: &RecordedEvent, next: &RecordedEvent| {
        let step = next.version.get().wrapping_sub(one.version.get());
        (one.stream == next.stream && [1, u64::MAX].contains(&step)).then_some(step)
    };
    let (mut runs, mut rest) = (Vec::new(), events);
    while let Some((first, after)) = rest.split_first() {
        let step = after.first().and_then(|next| follows(first, next));
        let pairs = rest.windows(2);
        let same = |pair: &&[RecordedEvent]| step.is_some() && follows(&pair[0], &pair[1]) == step;
        let count = pairs.take_while(same).count() + 1;
        let last = &rest[count - 1];
        runs.push(match count {
            1 => format!("{:?} {}", first.stream.as_str(), first.version),
            _ => format!("{:?} {} to {}", first.stream.as_str(), first.version, last.version),
        });
        rest = &rest[count..];
    }
    let more = runs.len().saturating_sub(MOST_SHOWN);
    runs.truncate(MOST_SHOWN);
    let more = if more > 0 { format!(", and {more} more ranges") } else { String::new() };
    format!("{}{more} ({} events)", runs.join(", "), events.len())
}

/// How many ranges of events a failure shows.
const MOST_SHOWN: usize = 24;

/// Checks that a read or a subscription gave just the events that were due. `what` says where they
/// come from: "the read of `a-1` after its deletion".
#[track_caller]
pub(crate) fn assert_events(what: impl Display, got: &[RecordedEvent], due: &[RecordedEvent]) {
    if got == due {
        return;
    }
    let place = |e: &RecordedEvent| (e.stream.clone(), e.version);
    if got.iter().map(place).eq(due.iter().map(place)) {
        let pair = got.iter().zip(due).find(|(got, due)| got != due);
        let (got, due) = pair.expect("the lists differ");
        panic!("{what} should give {due:?}; it gave {got:?}");
    }
    let (has, wants): (HashSet<_>, HashSet<_>) =
        (got.iter().map(place).collect(), due.iter().map(place).collect());
    let only = |events: &[RecordedEvent], other: &HashSet<_>| -> String {
        show(&events.iter().filter(|e| !other.contains(&place(e))).cloned().collect::<Vec<_>>())
    };
    panic!(
        "{what} should give {}; it gave {}; missing: {}; unexpected: {}",
        show(due),
        show(got),
        only(due, &has),
        only(got, &wants)
    );
}

/// Checks the versions of the events of one stream.
#[track_caller]
pub(crate) fn assert_versions(
    what: impl Display,
    got: &[RecordedEvent],
    due: impl IntoIterator<Item = u64>,
) {
    let due: Vec<u64> = due.into_iter().collect();
    if !got.iter().map(|event| event.version.get()).eq(due.iter().copied()) {
        let due = match &due[..] {
            [] => "nothing".to_owned(),
            [first, .., last] if due.len() > 12 => {
                format!("{} versions, {first} to {last}", due.len())
            }
            due => format!("the versions {due:?}"),
        };
        panic!("{what} should give {due}; it gave {}", show(got));
    }
}

/// Checks which versions of a stream can be read.
pub(crate) async fn assert_holds(
    what: impl Display,
    store: &Arc<dyn Store>,
    stream: &StreamId,
    due: impl IntoIterator<Item = u64>,
) -> Result<()> {
    let got = store.load_stream(stream).await?;
    assert_versions(format_args!("{what}: reading {stream}"), &got, due);
    Ok(())
}

/// Checks that two lists of events are equal. The failure names the missing and the unexpected
/// events.
#[track_caller]
pub(crate) fn assert_same_events(got: &[RecordedEvent], due: &[RecordedEvent]) {
    assert_events("the read or the subscription", got, due);
}
