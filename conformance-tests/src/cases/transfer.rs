//! Imports of events that another store recorded, and the list of streams.

use std::sync::Arc;

use annals_core::{
    ErrorKind, EventStoreExt, EventType, ExpectedVersion, NewEvent, Payload, Position,
    RecordedEvent, Result, Store, StreamId, StreamInfo, StreamState, Subscribe, Version,
};
use chrono::DateTime;
use futures::{future::try_join_all, poll};
use tokio::task::yield_now;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_gapless, assert_kind, catch_up, done, event, everything, exact, extend, id, ids,
        take_until,
    },
};

cases! { "transfer":
    an_import_keeps_what_was_recorded [10, 25];
    an_import_keeps_the_times [25] ExactImport;
    times_may_go_back [13, 25] ExactImport;
    an_import_keeps_the_order_given [25] GlobalOrder;
    an_import_can_be_repeated [25];
    an_import_can_be_repeated_in_other_pieces [25];
    an_import_replaces_nothing [25];
    an_import_leaves_no_gap [25];
    a_stream_may_begin_at_any_version [25] Truncate;
    a_deleted_stream_is_imported_behind_its_version [25] Delete Truncate;
    a_deletion_is_kept_by_an_import [21, 25] Delete Truncate;
    a_closed_stream_takes_no_import [21, 25] Tombstone;
    an_import_refuses_what_an_append_refuses [7, 25];
    an_import_needs_versions_that_go_up [25];
    appends_go_on_after_an_import [13, 25];
    imports_and_appends_race_cleanly [3, 25];
    a_subscriber_sees_an_import [15, 17, 25] GlobalOrder;
    a_dropped_import_can_be_finished [8, 25];
    streams_are_listed_a_page_at_a_time [25] ListStreams;
    removed_streams_are_listed [25] ListStreams Truncate Delete Tombstone;
}

/// An event as another store recorded it, long ago; its microsecond depends on its version.
fn recorded(stream: impl AsRef<str>, version: u64, event: NewEvent) -> RecordedEvent {
    let time =
        DateTime::from_timestamp_micros(1_600_000_000_123_456 + i64::try_from(version).unwrap());
    event.recorded(id(stream), version.into(), Position::new(1_000 + version), time.unwrap())
}

/// New events of one stream, with the versions `from` to `to`.
fn run(stream: &str, from: u64, to: u64) -> Vec<RecordedEvent> {
    (from..=to).map(|version| recorded(stream, version, event(version))).collect()
}

/// Events of three streams, in turns.
fn interleaved(rounds: u64) -> Vec<RecordedEvent> {
    let streams = ["order-1", "order-2", "stock-7"];
    (1..=rounds).flat_map(|n| streams.map(|stream| recorded(stream, n, event(n)))).collect()
}

/// The fields of an event that an import keeps on every store.
type Kept = (StreamId, Version, uuid::Uuid, EventType, Payload, Payload);

fn kept(event: &RecordedEvent) -> Kept {
    let RecordedEvent { stream, version, id, event_type, data, metadata, .. } = event.clone();
    (stream, version, id, event_type, data, metadata)
}

/// Checks that the streams of these events hold just these events.
async fn assert_there(store: &Arc<dyn Store>, events: &[RecordedEvent]) -> Result<()> {
    let mut streams: Vec<&StreamId> = events.iter().map(|event| &event.stream).collect();
    streams.sort();
    streams.dedup();
    for stream in streams {
        let found = store.load_stream(stream).await?;
        let due = events.iter().filter(|event| event.stream == *stream);
        assert_eq!(
            found.iter().map(kept).collect::<Vec<_>>(),
            due.map(kept).collect::<Vec<_>>(),
            "{stream:?} does not hold the events that were imported"
        );
    }
    Ok(())
}

/// Events with names and payloads that some databases change.
fn odd_events() -> Vec<RecordedEvent> {
    let json = |text: &'static str| Payload::json_text(text).unwrap();
    let payloads = [
        json("{ \"b\" : 1.50e+2,\n \"a\":\"\\u0000\\ud800 \", \"a\": null }"),
        json("  [1, 12345678901234567890123456789012345678901234567890.0]\n"),
        Payload::binary(vec![0, 255, 10, 13, 34, 39, 92]),
        Payload::binary("{\"looks\":\"like JSON\"}"),
        Payload::empty(),
    ];
    let streams = ["order-1", "Order-1", " order-1 ", "größe-'\"\\%_", "😀"];
    let mut events = Vec::new();
    for (version, payload) in (1..).zip(payloads) {
        for stream in streams {
            let event_type = EventType::new(format!("Type \"{version}\" ü")).unwrap();
            let event = NewEvent::new(event_type, payload.clone());
            let event = event.with_metadata(payload.bytes().clone());
            events.push(recorded(stream, version, event));
        }
    }
    events
}

async fn an_import_keeps_what_was_recorded(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let events = odd_events();
    store.import(events.clone()).await?;
    assert_there(&other, &events).await?;
    store.import(Vec::new()).await?;
    Ok(())
}

async fn an_import_keeps_the_times(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let events = run("order-1", 1, 5);
    store.import(events.clone()).await?;
    let times = |events: &[RecordedEvent]| events.iter().map(|e| e.recorded_at).collect::<Vec<_>>();
    let found = store.load_stream(&id("order-1")).await?;
    assert_eq!(times(&found), times(&events), "the imported times were not kept");
    Ok(())
}

/// Clocks disagree: an event may be recorded before the one that it follows.
async fn times_may_go_back(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut events = run("order-1", 1, 6);
    let mut times: Vec<_> = events.iter().map(|event| event.recorded_at).collect();
    times.rotate_left(3);
    for (event, time) in events.iter_mut().zip(&times) {
        event.recorded_at = *time;
    }
    store.import(events.clone()).await?;
    let read = store.load_stream(&stream).await?;
    assert_eq!(read.iter().map(|event| event.recorded_at).collect::<Vec<_>>(), times);
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    assert_eq!(catch_up(&cx, &mut live).await.0, read);
    assert_eq!(ids(&read), ids(&events));
    if store.capabilities().global_order {
        assert_eq!(everything(&store).await?, read);
    }
    Ok(())
}

async fn an_import_keeps_the_order_given(cx: Context) -> CaseResult {
    let store = cx.open().await;
    extend(&store, &id("before-1"), 0, 2).await?;
    let events = interleaved(20);
    store.import(events[..30].to_vec()).await?;
    store.import(events[30..].to_vec()).await?;
    let all = everything(&store).await?;
    assert_eq!(ids(&all[2..]), ids(&events), "the events are not in the order of the import");
    Ok(())
}

async fn an_import_can_be_repeated(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let events = interleaved(5);
    for store in [&store, &store, &other] {
        store.import(events.clone()).await?;
    }
    assert_there(&store, &events).await?;
    Ok(())
}

async fn an_import_can_be_repeated_in_other_pieces(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let events = interleaved(12);
    let (mut rng, mut end) = (cx.rng(0), 0);
    while end < events.len() {
        let begin = end.saturating_sub(rng.usize(0..8));
        end = (end + rng.usize(1..6)).min(events.len());
        store.import(events[begin..end].to_vec()).await?;
    }
    assert_there(&store, &events).await?;
    Ok(())
}

async fn an_import_replaces_nothing(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let there = run("order-1", 1, 3);
    store.import(there.clone()).await?;
    // `run` makes new ids with each call, so these are other events than those in the stream.
    for (from, to) in [(1, 3), (2, 2), (3, 5)] {
        let refused = store.import(run("order-1", from, to)).await;
        let error = assert_kind(refused, ErrorKind::Conflict);
        assert_eq!(error.conflict().map(|conflict| conflict.actual.get()), Some(3));
    }
    assert_there(&store, &there).await?;
    Ok(())
}

async fn an_import_leaves_no_gap(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let there = run("order-1", 1, 3);
    store.import(there.clone()).await?;
    assert_kind(store.import(run("order-1", 5, 6)).await, ErrorKind::Conflict);
    assert_there(&store, &there).await?;
    Ok(())
}

async fn a_stream_may_begin_at_any_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let events = run("order-1", 5, 7);
    store.import(events[..2].to_vec()).await?;
    store.import(events.clone()).await?;
    assert_there(&store, &events).await?;
    let info = store.stream_info(&stream).await?;
    let due = StreamInfo::new(StreamState::Live, 7.into(), Some(5.into()));
    assert_eq!(info, due, "the stream must look as if it had been truncated before version 5");
    store.append_to(&stream, exact(7), [event(8)]).await?;
    assert_eq!(store.load_stream(&stream).await?.len(), 4);

    // The same holds for a stream all of whose events were truncated: here to version 2, there to
    // 8.
    extend(&store, &id("order-2"), 0, 2).await?;
    store.truncate(&id("order-2"), Version::new(3)).await?;
    let events = run("order-2", 9, 9);
    store.import(events.clone()).await?;
    assert_there(&store, &events).await?;
    Ok(())
}

async fn a_deleted_stream_is_imported_behind_its_version(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for (n, from) in [(1, 4), (2, 6)] {
        let name = format!("order-{n}");
        extend(&store, &id(&name), 0, 3).await?;
        store.delete(&id(&name), ExpectedVersion::Any).await?;
        assert_kind(store.import(run(&name, 1, 2)).await, ErrorKind::Conflict);
        assert_eq!(store.stream_info(&id(&name)).await?.state, StreamState::Deleted);
        let events = run(&name, from, from + 1);
        store.import(events.clone()).await?;
        assert_there(&store, &events).await?;
        let info = store.stream_info(&id(&name)).await?;
        assert_eq!((info.state, info.version.get()), (StreamState::Live, from + 1));
    }
    Ok(())
}

/// How a copy tells the versions that its source had deleted from missing ones: it imports any event at
/// the last of them, and deletes the stream.
async fn a_deletion_is_kept_by_an_import(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.import(run("order-1", 3, 3)).await?;
    store.delete(&stream, exact(3)).await?;
    let events = run("order-1", 4, 6);
    for count in [2, 3] {
        let events = &events[..count];
        store.import(events.to_vec()).await?;
        assert_there(&store, events).await?;
        let last = 3 + count as u64;
        let due = StreamInfo::new(StreamState::Live, last.into(), Some(4.into()));
        assert_eq!(store.stream_info(&stream).await?, due.with_deleted_at(3.into()));
    }
    Ok(())
}

async fn a_closed_stream_takes_no_import(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.tombstone(&stream, ExpectedVersion::Any).await?;
    assert_kind(store.import(run("order-1", 1, 2)).await, ErrorKind::StreamClosed);
    assert_eq!(store.stream_info(&stream).await?.state, StreamState::Tombstoned);
    Ok(())
}

async fn an_import_refuses_what_an_append_refuses(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let good = recorded("order-1", 1, event(1));
    let too_large = Payload::binary(vec![7; store.capabilities().max_event_bytes + 1]);
    let large = NewEvent::new(EventType::new("Large")?, too_large);
    let system = NewEvent::new(EventType::new("$type")?, Payload::empty());
    for (bad, kind) in [
        (recorded("$order-1", 1, event(1)), ErrorKind::InvalidInput),
        (recorded("order-2", 1, system), ErrorKind::InvalidInput),
        (recorded("order-2", 1, large), ErrorKind::LimitExceeded),
    ] {
        assert_kind(store.import(vec![good.clone(), bad]).await, kind);
        assert!(!store.stream_info(&good.stream).await?.exists(), "a refused call has written");
    }
    // These events share one buffer.
    let most = Payload::binary(vec![7; store.capabilities().max_event_bytes]);
    let count = store.capabilities().max_append_bytes / store.capabilities().max_event_bytes + 1;
    let large = (1..=count as u64).map(|version| {
        recorded("order-1", version, NewEvent::new(EventType::new("Large").unwrap(), most.clone()))
    });
    assert_kind(store.import(large.collect()).await, ErrorKind::LimitExceeded);
    assert!(!store.stream_info(&id("order-1")).await?.exists(), "a refused call has written");
    let most = store.capabilities().max_append_events as u64;
    let many: Vec<_> = (0..=most).map(|n| recorded(format!("order-{n}"), 1, event(n))).collect();
    assert_kind(store.import(many).await, ErrorKind::LimitExceeded);
    assert!(!store.stream_info(&id("order-0")).await?.exists(), "a refused call has written");
    Ok(())
}

async fn an_import_needs_versions_that_go_up(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for versions in [[1, 3], [2, 1], [1, 1], [0, 1]] {
        let events = versions.map(|version| recorded("order-1", version, event(version)));
        assert_kind(store.import(events.to_vec()).await, ErrorKind::InvalidInput);
    }
    assert!(!store.stream_info(&id("order-1")).await?.exists(), "a refused call has written");
    Ok(())
}

async fn appends_go_on_after_an_import(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    extend(&other, &id("stock-7"), 0, 1).await?;
    store.import(run("order-1", 1, 4)).await?;
    let stream = id("order-1");
    // The other handle has not seen the import.
    assert_kind(other.append_to(&stream, exact(2), [event(0)]).await, ErrorKind::Conflict);
    assert_eq!(extend(&other, &stream, 4, 2).await?.last_version.get(), 6);
    let appended = store.append_to(&stream, ExpectedVersion::Any, [event(7)]).await?;
    assert_eq!(appended.first_version.get(), 7);
    extend(&store, &id("stock-7"), 1, 1).await?;
    assert_eq!(assert_gapless(&store, &stream).await?, 7);
    let more = run("order-1", 8, 9);
    store.import(more).await?;
    assert_eq!(assert_gapless(&other, &stream).await?, 9);
    Ok(())
}

async fn imports_and_appends_race_cleanly(cx: Context) -> CaseResult {
    const APPENDS: u64 = 12;
    let handles = cx.open_many(4).await;
    let stream = id("order-1");
    let importing = async {
        for event in run("order-1", 1, 40) {
            match handles[0].import(vec![event]).await {
                // An append was faster, and has taken this version.
                Err(error) if error.kind() == ErrorKind::Conflict => break,
                result => result?,
            }
        }
        done()
    };
    let appending = try_join_all(handles[1..].iter().map(|store| {
        let stream = &stream;
        async move {
            for n in 0..APPENDS {
                store.append_to(stream, ExpectedVersion::Any, [event(n)]).await?;
            }
            done()
        }
    }));
    let (imported, appended) = futures::join!(importing, appending);
    imported?;
    appended?;
    assert!(assert_gapless(&handles[0], &stream).await? >= 3 * APPENDS);
    Ok(())
}

async fn a_subscriber_sees_an_import(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let mut live = other.subscribe(Subscribe::default()).await?;
    catch_up(&cx, &mut live).await;
    let events = interleaved(40);
    let importing = async {
        for piece in events.chunks(7) {
            store.append_to("noise-1", ExpectedVersion::Any, [event(0)]).await?;
            store.import(piece.to_vec()).await?;
        }
        done()
    };
    let last = events[events.len() - 1].id;
    // The subscriber is polled first: it waits, and has to be woken by the import.
    let (seen, imported) = futures::join!(take_until(&cx, &mut live, last), importing);
    imported?;
    let seen: Vec<_> = seen.into_iter().filter(|e| e.stream.as_str() != "noise-1").collect();
    assert_eq!(ids(&seen), ids(&events), "the subscriber got other events");
    Ok(())
}

async fn a_dropped_import_can_be_finished(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for polls in 0..12 {
        let name = |n: usize| format!("order{polls}-{n}");
        let events: Vec<_> = (1..=4)
            .flat_map(|v| (0..3).map(move |n| (n, v)))
            .map(|(n, v)| recorded(name(n), v, event(v)))
            .collect();
        {
            let mut import = Box::pin(store.import(events.clone()));
            for _ in 0..polls {
                if poll!(&mut import).is_ready() {
                    break;
                }
                yield_now().await;
            }
        }
        store.import(events.clone()).await?;
        assert_there(&store, &events).await?;
    }
    Ok(())
}

async fn listed(store: &Arc<dyn Store>, limit: usize) -> Result<Vec<(StreamId, StreamInfo)>> {
    let mut all: Vec<(StreamId, StreamInfo)> = Vec::new();
    loop {
        let after = all.last().map(|(stream, _)| stream.clone());
        let page = store.list_streams(after.as_ref(), limit).await?;
        assert!(page.len() <= limit, "the page has more streams than were asked for");
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn streams_are_listed_a_page_at_a_time(cx: Context) -> CaseResult {
    let store = cx.open().await;
    assert!(store.list_streams(None, 10).await?.is_empty());
    let names = ["b-1", "a-10", "a-2", "B-1", "ä-1", "a_2", "a", " a", "a-%", "😀", "z'\"\\"];
    for (n, name) in (1..).zip(names) {
        extend(&store, &id(name), 0, n).await?;
    }
    let mut due: Vec<_> = (1..)
        .zip(names)
        .map(|(n, name)| {
            (id(name), StreamInfo::new(StreamState::Live, Version::new(n), Some(Version::FIRST)))
        })
        .collect();
    due.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    for limit in [1, 3, names.len(), 1_000] {
        assert_eq!(listed(&store, limit).await?, due, "the list is wrong in pages of {limit}");
    }
    Ok(())
}

async fn removed_streams_are_listed(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for name in ["a", "b", "c", "d", "e"] {
        extend(&store, &id(name), 0, 4).await?;
    }
    store.truncate(&id("a"), Version::new(3)).await?;
    store.truncate(&id("b"), Version::new(5)).await?;
    store.delete(&id("c"), ExpectedVersion::Any).await?;
    store.tombstone(&id("d"), ExpectedVersion::Any).await?;
    store.tombstone(&id("f"), ExpectedVersion::Any).await?;
    store.delete(&id("e"), ExpectedVersion::Any).await?;
    extend(&store, &id("e"), 4, 1).await?;
    let listed = listed(&store, 4).await?;
    for (stream, info) in &listed {
        assert_eq!(
            *info,
            store.stream_info(stream).await?,
            "{stream:?} is listed with another state"
        );
    }
    let names: Vec<_> = listed.iter().map(|(stream, _)| stream.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
    Ok(())
}
