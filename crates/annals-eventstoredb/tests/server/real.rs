//! What a real server does and the gateway does not, on a server that does it, too.

use std::time::Duration;

use annals_core::{
    Category, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Filter, Message, NewEvent,
    Payload, Position, ReadAll, RecordedEvent, Snapshot, SnapshotStore, StreamId, StreamPrefix,
    StreamState, Subscribe, TryStreamExt,
};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_gateway::like_eventstoredb::Fault;

use crate::{
    common::LikeServer,
    tools::{event, id, kurrentdb, next, within},
};

async fn start() -> (LikeServer, EventStoreDbStore) {
    let server = LikeServer::start().await.unwrap();
    let store = open(&server, EventStoreDbOptions::default()).await;
    (server, store)
}

async fn open(server: &LikeServer, options: EventStoreDbOptions) -> EventStoreDbStore {
    let config = EventStoreDbConfig::from_url(&server.url()).unwrap().with_options(options);
    EventStoreDbStore::open(config).await.unwrap()
}

fn bare(server: &LikeServer) -> kurrentdb::Client {
    kurrentdb::Client::new(server.url().parse().unwrap()).unwrap()
}

async fn all(store: &EventStoreDbStore, filter: Filter) -> Vec<RecordedEvent> {
    store.read_all(ReadAll::default().with_filter(filter)).try_collect().await.unwrap()
}

fn two() -> [NewEvent; 2] {
    [event(1), event(2)]
}

async fn write_metadata(server: &LikeServer, stream: &str, properties: serde_json::Value) {
    let event = kurrentdb::EventData::json("$metadata", &properties).unwrap();
    let name = format!("$${stream}");
    bare(server).append_to_stream(name, &Default::default(), event).await.unwrap();
}

/// The ways to hide the first events of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hiding {
    Deleted,
    DeletedAndRevived,
    Truncated,
    MaxCount,
}

async fn hide(server: &LikeServer, store: &EventStoreDbStore, stream: &StreamId, how: Hiding) {
    match how {
        Hiding::Deleted => store.delete(stream, ExpectedVersion::Any).await.unwrap(),
        Hiding::DeletedAndRevived => {
            store.delete(stream, ExpectedVersion::Any).await.unwrap();
            store.append_to(stream, ExpectedVersion::Any, [event(3)]).await.unwrap();
        }
        Hiding::Truncated => {
            store.append_to(stream, ExpectedVersion::Any, [event(3)]).await.unwrap();
            store.truncate(stream, 3.into()).await.unwrap();
        }
        Hiding::MaxCount => {
            store.append_to(stream, ExpectedVersion::Any, [event(3)]).await.unwrap();
            write_metadata(server, stream.as_str(), serde_json::json!({ "$maxCount": 1 })).await;
        }
    }
}

/// Whether an expectation holds on a stream whose first events are hidden.
fn holds(expected: ExpectedVersion, how: Hiding) -> bool {
    match expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::StreamExists => how != Hiding::Deleted,
        ExpectedVersion::NoStream => how == Hiding::Deleted,
        _ => false,
    }
}

/// The server says "done" to a retry whose events it knows and hides, and writes nothing.
#[tokio::test]
async fn a_retry_of_hidden_events_is_never_done_with_nothing_written() {
    use ExpectedVersion::{Any, Exact, NoStream, StreamExists};
    let (server, store) = start().await;
    let mut number = 0;
    for how in [Hiding::Deleted, Hiding::DeletedAndRevived, Hiding::Truncated, Hiding::MaxCount] {
        for expected in [Any, NoStream, StreamExists, Exact(0.into())] {
            // By the handle that wrote them, and by another one, which has seen no position.
            for fresh in [false, true] {
                number += 1;
                let (stream, what) =
                    (id(&format!("order-{number}")), format!("{how:?} {expected:?}"));
                let events = two();
                let first = if expected == StreamExists { Any } else { expected };
                store.append_to(&stream, first, events.clone()).await.unwrap();
                hide(&server, &store, &stream, how).await;
                let before = store.load_stream(&stream).await.unwrap().len();
                let retrying = match fresh {
                    true => open(&server, EventStoreDbOptions::default()).await,
                    false => store.clone(),
                };
                let retry = retrying.append_to(&stream, expected, events.clone()).await;
                let after = store.load_stream(&stream).await.unwrap();
                // An exact 0 means that there is no stream.
                let expected = if expected == Exact(0.into()) { NoStream } else { expected };
                if holds(expected, how) {
                    let appended = retry.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                    let last = after.last().unwrap();
                    assert_eq!(last.id, events[1].id(), "{what}");
                    assert_eq!(last.version, appended.last_version, "{what}");
                    assert_eq!(last.position, appended.position, "{what}");
                } else {
                    let conflict = retry.unwrap_err();
                    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{what}: {conflict:?}");
                    assert_eq!(after.len(), before, "{what}");
                }
            }
        }
    }
}

/// The first retry after a deletion is a new append. Another one is a retry of that.
#[tokio::test]
async fn events_that_were_written_anew_are_recognised_where_they_are() {
    let (_server, store) = start().await;
    for expected in [ExpectedVersion::NoStream, ExpectedVersion::Exact(0.into())] {
        let (stream, events) = (id(&format!("order-{expected:?}")), two());
        for (round, last) in [(0, 2), (1, 4), (2, 4)] {
            let appended = store.append_to(&stream, expected, events.clone()).await.unwrap();
            assert_eq!(appended.last_version.get(), last, "round {round}");
            if round == 0 {
                store.delete(&stream, ExpectedVersion::Any).await.unwrap();
            }
        }
        assert_eq!(store.load_stream(&stream).await.unwrap().len(), 2);
    }
}

/// Part of a retry's events may be hidden, or may stand elsewhere.
#[tokio::test]
async fn a_retry_of_which_a_part_is_hidden_is_no_retry() {
    let (_server, store) = start().await;
    let (stream, events) = (id("order-1"), two());
    store.append_to(&stream, ExpectedVersion::NoStream, events.clone()).await.unwrap();
    store.truncate(&stream, 2.into()).await.unwrap();
    let retry = store.append_to(&stream, ExpectedVersion::NoStream, events.clone()).await;
    assert_eq!(retry.unwrap_err().kind(), ErrorKind::Conflict);
    let anew = store.append_to(&stream, ExpectedVersion::Any, events.clone()).await.unwrap();
    assert_eq!((anew.first_version.get(), anew.last_version.get()), (3, 4));
}

/// Under `Any` the server goes by the first id alone.
#[tokio::test]
async fn events_of_which_some_are_known_are_all_written() {
    let (_server, store) = start().await;
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        let events = two();
        let turned: Vec<_> = events.clone().into_iter().rev().collect();
        let more: Vec<_> = events.clone().into_iter().chain([event(3)]).collect();
        // In another order they are no retry, either: the server would answer with old versions.
        for (what, sent) in [("turned", turned), ("more", more)] {
            let stream = id(&format!("{what}-{expected:?}"));
            store.append_to(&stream, ExpectedVersion::Any, events.clone()).await.unwrap();
            let ids: Vec<_> = sent.iter().map(NewEvent::id).collect();
            let appended = store.append_to(&stream, expected, sent).await.unwrap();
            assert_eq!(appended.first_version.get(), 3, "{stream}");
            let read = store.load_stream(&stream).await.unwrap();
            assert_eq!(read[2..].iter().map(|event| event.id).collect::<Vec<_>>(), ids, "{stream}");
            // The first append is still recognised.
            let retry = store.append_to(&stream, ExpectedVersion::NoStream, events.clone()).await;
            assert_eq!(retry.unwrap().last_version.get(), 2, "{stream}");
        }
    }
}

/// By culture, `cafe` is no prefix of `cafe` with an accent on its last letter.
#[tokio::test]
async fn a_prefix_finds_names_that_go_on_with_a_combining_character() {
    let (server, store) = start().await;
    let names = ["cafe-1", "cafe-\u{301}1", "cafe\u{301}-1", "cafes-1"];
    let within_namespace =
        open(&server, EventStoreDbOptions::default().with_namespace("shop")).await;
    for name in names.iter().chain(&["\u{301}-1"]) {
        for store in [&store, &within_namespace] {
            store.append_to(*name, ExpectedVersion::Any, [event(1)]).await.unwrap();
        }
    }
    let prefix = Filter::default().with_prefix(StreamPrefix::new("cafe").unwrap());
    let category = Filter::default().with_category(Category::new("cafe").unwrap());
    for (filter, due) in [(prefix, 4), (category, 2)] {
        assert_eq!(all(&store, filter.clone()).await.len(), due, "{filter:?}");
        let mut live = store.subscribe(Subscribe::to(filter)).await.unwrap();
        for _ in 0..due {
            next(&mut live).await;
        }
    }
    assert_eq!(all(&within_namespace, Filter::default()).await.len(), 5);
}

#[tokio::test]
async fn tombstones_are_no_events() {
    let (_server, store) = start().await;
    let stream = id("order-1");
    let mut of_stream = store.subscribe(Subscribe::to(stream.clone())).await.unwrap();
    let mut of_all = store.subscribe(Subscribe::default()).await.unwrap();
    let category = Filter::default().with_category(Category::new("order").unwrap());
    let mut of_category = store.subscribe(Subscribe::to(category.clone())).await.unwrap();
    store.append_to(&stream, ExpectedVersion::NoStream, two()).await.unwrap();
    for live in [&mut of_stream, &mut of_all, &mut of_category] {
        assert_eq!([next(live).await, next(live).await], [1, 2]);
    }
    store.tombstone(&stream, ExpectedVersion::Any).await.unwrap();
    store.append_to("order-2", ExpectedVersion::Any, [event(7)]).await.unwrap();
    for live in [&mut of_all, &mut of_category] {
        assert_eq!(next(live).await, 7);
    }
    let quiet = tokio::time::timeout(Duration::from_millis(100), of_stream.next_event()).await;
    assert!(quiet.is_err(), "a tombstoned stream gave {quiet:?}");
    for filter in [Filter::default(), category] {
        let read = all(&store, filter).await;
        assert_eq!(read.len(), 3);
        assert!(read.iter().all(|event| event.version.get() <= 2));
    }
    let backwards = ReadAll::default().backwards();
    let read: Vec<_> = store.read_all(backwards).try_collect().await.unwrap();
    assert_eq!(read.len(), 3);
    // The position of the tombstone is the end of the log for a moment, and a place to begin at.
    store.tombstone(&id("order-2"), ExpectedVersion::Any).await.unwrap();
    let end = store.last_position().await.unwrap();
    store.append_to("order-3", ExpectedVersion::Any, [event(8)]).await.unwrap();
    let mut resumed = store.subscribe(Subscribe::default().after(end)).await.unwrap();
    assert_eq!(next(&mut resumed).await, 8);
}

/// A name that is not ASCII cannot stand in a trailer: the server answers HTTP 500.
#[tokio::test]
async fn streams_with_other_names_than_ascii_can_be_closed_and_deleted() {
    let server = LikeServer::start().await.unwrap();
    let store = open(&server, EventStoreDbOptions::default()).await;
    let (closed, deleted) = (id("größe-1"), id("日本-1"));
    for stream in [&closed, &deleted] {
        store.append_to(stream, ExpectedVersion::NoStream, two()).await.unwrap();
    }
    store.tombstone(&closed, ExpectedVersion::Any).await.unwrap();
    let calls = server.cluster().calls();
    let refused = store.append_to(&closed, ExpectedVersion::Any, [event(3)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StreamClosed, "{refused:?}");
    assert!(store.load_stream(&closed).await.unwrap().is_empty());
    assert_eq!(server.cluster().calls(), calls + 2, "it was tried again");
    let info = store.stream_info(&closed).await.unwrap();
    assert_eq!((info.state, info.version.get()), (StreamState::Tombstoned, 2));
    for result in [
        store.delete(&closed, ExpectedVersion::Any).await,
        store.tombstone(&closed, ExpectedVersion::Any).await,
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StreamClosed);
    }
    store.delete(&deleted, ExpectedVersion::Exact(2.into())).await.unwrap();
    let exists = ExpectedVersion::StreamExists;
    let refused = store.append_to(&deleted, exists, [event(3)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    let revived = store.append_to(&deleted, ExpectedVersion::NoStream, [event(3)]).await.unwrap();
    assert_eq!(revived.first_version.get(), 3);
    let lost = store.delete(&deleted, ExpectedVersion::Exact(9.into())).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict, "{lost:?}");
}

/// The answer without a status is also that to a deletion which came too late.
#[tokio::test]
async fn a_stream_with_another_name_than_ascii_is_deleted_beside_appends() {
    let (_server, store) = start().await;
    for round in 0..20 {
        let stream = id(&format!("größe-{round}"));
        store.append_to(&stream, ExpectedVersion::NoStream, two()).await.unwrap();
        let deleting = store.delete(&stream, ExpectedVersion::Any);
        let appending = async {
            for number in 0..8 {
                store.append_to(&stream, ExpectedVersion::Any, [event(number)]).await.unwrap();
            }
        };
        let (deleted, ()) = futures::future::join(deleting, appending).await;
        deleted.unwrap();
    }
}

/// The server cannot begin there, and says so with a text that sounds as if it might pass.
#[tokio::test]
async fn a_number_between_two_positions_lies_between_them() {
    let (server, store) = start().await;
    let mut positions = Vec::new();
    for number in 0..4 {
        let appended = store.append_to("order-1", ExpectedVersion::Any, [event(number)]).await;
        positions.push(appended.unwrap().position);
    }
    let calls = server.cluster().calls();
    for (filter, between) in [
        (Filter::default(), positions[1].plus(1)),
        (Filter::default().including_system(), 1.into()),
    ] {
        let due = positions.iter().filter(|at| **at > between).count();
        let options = ReadAll::default().with_filter(filter.clone());
        let after: Vec<_> =
            store.read_all(options.clone().after(between)).try_collect().await.unwrap();
        assert_eq!(after.len(), due);
        let before: Vec<_> =
            store.read_all(options.backwards().before(between)).try_collect().await.unwrap();
        assert_eq!(before.len(), 4 - due);
        let to = Subscribe::to(filter).after(between);
        let mut live = store.subscribe(to).await.unwrap();
        for number in 4 - due..4 {
            assert_eq!(next(&mut live).await, number as u64);
        }
    }
    assert!(server.cluster().calls() - calls < 40, "requests were tried again");
}

#[tokio::test]
async fn a_nil_id_is_refused_before_it_is_sent() {
    let (server, store) = start().await;
    let calls = server.cluster().calls();
    let nil = event(1).with_id(uuid::Uuid::nil());
    let refused = store.append_to("order-1", ExpectedVersion::Any, [event(0), nil]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(server.cluster().calls(), calls);
}

/// To the server, metadata alone makes a stream exist.
#[tokio::test]
async fn a_stream_of_which_there_is_only_metadata_is_missing() {
    let (server, store) = start().await;
    let stream = id("order-1");
    write_metadata(&server, "order-1", serde_json::json!({ "$maxCount": 100 })).await;
    let info = store.stream_info(&stream).await.unwrap();
    assert_eq!((info.state, info.version.get()), (StreamState::Missing, 0));
    let exists = ExpectedVersion::StreamExists;
    for refused in [store.delete(&stream, exists).await, store.tombstone(&stream, exists).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    }
    store.delete(&stream, ExpectedVersion::Any).await.unwrap();
    let appended = store.append_to(&stream, ExpectedVersion::NoStream, two()).await.unwrap();
    assert_eq!(appended.first_version.get(), 1);
    // The deletion of what was not there has left the metadata alone.
    let more = (0..100).map(event);
    store.append_to(&stream, ExpectedVersion::Any, more).await.unwrap();
    assert_eq!(store.load_stream(&stream).await.unwrap().len(), 100);
}

/// Servers count the types of events, or they do not. So the store does.
#[tokio::test]
async fn an_append_that_is_too_large_with_its_types_is_refused_before_it_is_sent() {
    let (server, store) = start().await;
    let events = |name: &str| {
        let event_type = annals_core::EventType::new(name).unwrap();
        let data = Payload::binary(vec![0; 10_000]);
        (0..100).map(|_| NewEvent::new(event_type.clone(), data.clone())).collect::<Vec<_>>()
    };
    let calls = server.cluster().calls();
    let long = events(&"A".repeat(255));
    let refused = store.append_to("order-1", ExpectedVersion::Any, long).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert_eq!(server.cluster().calls(), calls);
    store.append_to("order-1", ExpectedVersion::Any, events("A")).await.unwrap();
}

/// The server answers 100 calls of a connection at the same time, and lets others wait.
#[tokio::test]
async fn more_subscriptions_than_a_connection_carries_all_get_their_events() {
    let server = LikeServer::start().await.unwrap();
    // A call that waits must not be ended, and sent again over another connection.
    let options = EventStoreDbOptions::default().with_deadline(Duration::from_secs(3600));
    let store = open(&server, options).await;
    let mut lives = Vec::new();
    for number in 0..120 {
        let to = match number % 2 {
            0 => Subscribe::default(),
            _ => Subscribe::to(id("order-1")),
        };
        let mut live = store.subscribe(to).await.unwrap();
        within("catching up", async {
            while !matches!(live.next().await.unwrap(), Message::CaughtUp(_)) {}
        })
        .await;
        lives.push(live);
    }
    store.append_to("order-1", ExpectedVersion::Any, [event(7)]).await.unwrap();
    for live in &mut lives {
        assert_eq!(next(live).await, 7);
    }
}

/// The server looks at many events until one matches, for longer than the deadline of a request.
#[tokio::test]
async fn a_filter_that_matches_rarely_gets_through() {
    let server = LikeServer::start().await.unwrap();
    let writer = open(&server, EventStoreDbOptions::default()).await;
    server.cluster().fill("other-1", 100_000);
    writer.append_to("rare-1", ExpectedVersion::Any, [event(7)]).await.unwrap();
    // It looks at them for about a second, twice as long as the store waits for an answer.
    server.cluster().set_fault(0, Fault::Slow);
    let options = EventStoreDbOptions::default()
        .with_deadline(Duration::from_millis(1))
        .with_retry_for(Duration::ZERO);
    let store = open(&server, options).await;
    let rare = Filter::default().with_category(Category::new("rare").unwrap());
    let found = within("the rare event", async {
        let options = ReadAll::default().with_filter(rare.clone());
        store.read_all(options).try_collect::<Vec<_>>().await
    });
    assert_eq!(found.await.unwrap().len(), 1);
    // A subscription tells all the while how far it has looked.
    let mut live = store.subscribe(Subscribe::to(rare)).await.unwrap();
    let (mut told, mut checkpoints) = (Position::START, 0);
    loop {
        match within("a message", live.next()).await.unwrap() {
            Message::Event(event) => {
                assert_eq!(event.json::<u64>().unwrap(), 7);
                break;
            }
            other => {
                assert!(other.position() >= told);
                told = other.position();
                checkpoints += 1;
            }
        }
    }
    assert!(checkpoints >= 2, "{checkpoints} messages on the way");
}

/// A subscriber that has nothing to do sends nothing, and does not look at old events again.
#[tokio::test]
async fn an_idle_subscriber_costs_no_request() {
    let server = LikeServer::start().await.unwrap();
    let options = EventStoreDbOptions::default().with_poll_interval(Duration::from_millis(5));
    let store = open(&server, options).await;
    server.cluster().fill("other-1", 5_000);
    let rare = Filter::default().with_category(Category::new("rare").unwrap());
    let mut lives = vec![
        store.subscribe(Subscribe::to(rare)).await.unwrap(),
        store.subscribe(Subscribe::default()).await.unwrap(),
        store.subscribe(Subscribe::to(id("order-1"))).await.unwrap(),
    ];
    for live in &mut lives {
        within("catching up", async {
            while !matches!(live.next().await.unwrap(), Message::CaughtUp(_)) {}
        })
        .await;
        // From here on it waits.
        let idle = tokio::time::timeout(Duration::from_millis(20), live.next()).await;
        assert!(idle.is_err(), "{idle:?}");
    }
    let calls = server.cluster().calls();
    for live in &mut lives {
        let idle = tokio::time::timeout(Duration::from_millis(100), live.next()).await;
        assert!(idle.is_err(), "{idle:?}");
    }
    assert_eq!(server.cluster().calls(), calls, "requests of subscribers that wait");
}

/// While others write, a subscriber that gets nothing is told how far it has come, and sends nothing.
#[tokio::test]
async fn a_sparse_subscriber_costs_no_request_beside_writers() {
    let (server, store) = start().await;
    let namespace = EventStoreDbOptions::default().with_namespace("shop");
    let within_namespace = open(&server, namespace).await;
    let category = Filter::default().with_category(Category::new("rare").unwrap());
    let types = Filter::default().with_event_types(["Rare".try_into().unwrap()]);
    for (number, (store, filter)) in
        [(&store, category), (&store, types), (&within_namespace, Filter::default())]
            .into_iter()
            .enumerate()
    {
        let mut live = store.subscribe(Subscribe::to(filter)).await.unwrap();
        within("catching up", async {
            while !matches!(live.next().await.unwrap(), Message::CaughtUp(_)) {}
        })
        .await;
        let mut calls = None;
        for _ in 0..20 {
            server.cluster().fill("other-1", 1);
            let told = within("a checkpoint", live.next()).await.unwrap();
            assert!(matches!(told, Message::Checkpoint(_)), "{told:?}");
            // The first wait makes the subscription that tells of each event.
            let made = *calls.get_or_insert_with(|| server.cluster().calls());
            assert_eq!(server.cluster().calls(), made, "requests of filter {number}");
        }
    }
}

/// A live subscriber that saves each position that it is told of does not make itself busy for ever.
#[tokio::test]
async fn a_checkpoint_that_is_saved_does_not_lead_to_the_next() {
    use annals_core::{CheckpointStore, SubscriberId};
    let (server, store) = start().await;
    let subscriber = SubscriberId::new("totals").unwrap();
    let category = Filter::default().with_category(Category::new("rare").unwrap());
    let types = Filter::default().with_event_types(["Rare".try_into().unwrap()]);
    for filter in [Filter::default(), category, types] {
        let mut live = store.subscribe(Subscribe::to(filter.clone())).await.unwrap();
        within("catching up", async {
            while !matches!(live.next().await.unwrap(), Message::CaughtUp(_)) {}
        })
        .await;
        for round in 0..5 {
            let append = store.append_to("other-1", ExpectedVersion::Any, [event(round)]).await;
            let told = within("a message", live.next()).await.unwrap().position();
            assert_eq!(told, append.unwrap().position, "round {round}, {filter:?}");
            store.save_checkpoint(&subscriber, told).await.unwrap();
            let more = tokio::time::timeout(Duration::from_millis(20), live.next()).await;
            assert!(more.is_err(), "{more:?} after round {round}, {filter:?}");
        }
    }
    assert_eq!(server.cluster().records(), 30);
}

/// What only reads needs no permission to write.
#[tokio::test]
async fn a_user_who_may_only_read_learns_what_a_stream_is() {
    let (server, store) = start().await;
    for name in ["live-1", "cut-1", "deleted-1", "closed-1"] {
        store.append_to(name, ExpectedVersion::Any, two()).await.unwrap();
    }
    store.truncate(&id("cut-1"), 3.into()).await.unwrap();
    store.delete(&id("deleted-1"), ExpectedVersion::Any).await.unwrap();
    store.tombstone(&id("closed-1"), ExpectedVersion::Any).await.unwrap();
    server.cluster().set_fault(0, Fault::ReadOnly);
    for (name, state, version) in [
        ("missing-1", StreamState::Missing, 0),
        ("live-1", StreamState::Live, 2),
        ("cut-1", StreamState::Live, 2),
        ("deleted-1", StreamState::Deleted, 2),
        ("closed-1", StreamState::Tombstoned, 2),
    ] {
        let info = store.stream_info(&id(name)).await.unwrap();
        assert_eq!((info.state, info.version.get()), (state, version), "{name}");
    }
    let refused = store.append_to("live-1", ExpectedVersion::Any, [event(3)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(!refused.outcome_unknown());
}

/// Deleting a stream that was deleted removes the snapshot that was saved in between.
#[tokio::test]
async fn a_snapshot_of_a_deleted_stream_goes_with_the_next_deletion() {
    let (_server, store) = start().await;
    let stream = id("order-1");
    store.append_to(&stream, ExpectedVersion::Any, two()).await.unwrap();
    store.delete(&stream, ExpectedVersion::Any).await.unwrap();
    for version in [0, 2, 3] {
        store.save_snapshot(&stream, Snapshot::new(version, Payload::empty())).await.unwrap();
        store.delete(&stream, ExpectedVersion::Any).await.unwrap();
        assert_eq!(store.load_snapshot(&stream).await.unwrap(), None, "version {version}");
    }
}

/// A removal that comes too late says so in no record: not even if the events that others have appended
/// were truncated meanwhile.
#[tokio::test]
async fn a_deletion_that_was_refused_is_not_remembered() {
    let (_server, store) = start().await;
    let mut refused = 0;
    for round in 0..40 {
        let stream = id(&format!("order-{round}"));
        store.append_to(&stream, ExpectedVersion::NoStream, two()).await.unwrap();
        let deleting = store.delete(&stream, ExpectedVersion::Exact(2.into()));
        let others = async {
            for _ in 0..round % 8 {
                tokio::task::yield_now().await;
            }
            let more = [event(3), event(4)];
            store.append_to(&stream, ExpectedVersion::Any, more).await.unwrap();
            store.truncate(&stream, 4.into()).await.unwrap();
        };
        let (deleted, ()) = futures::future::join(deleting, others).await;
        let info = store.stream_info(&stream).await.unwrap();
        match deleted {
            Ok(()) => assert_eq!(info.deleted_at.get(), 2, "round {round}"),
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                assert_eq!(info.deleted_at.get(), 0, "round {round}");
            }
        }
        assert_eq!(info.first_version, Some(4.into()), "round {round}");
    }
    assert!(refused > 0, "no deletion came too late");
}

/// What a reader has seen before the truncation took effect is truncated.
#[tokio::test]
async fn a_truncation_beyond_the_end_takes_what_is_appended_meanwhile() {
    let (_server, store) = start().await;
    for round in 0..40 {
        let stream = id(&format!("order-{round}"));
        store.append_to(&stream, ExpectedVersion::NoStream, two()).await.unwrap();
        let truncating = store.truncate(&stream, u64::MAX.into());
        let others = async {
            for _ in 0..round % 8 {
                tokio::task::yield_now().await;
            }
            store.append_to(&stream, ExpectedVersion::Any, [event(3)]).await.unwrap();
            store.load_stream(&stream).await.unwrap()
        };
        let (truncated, seen) = futures::future::join(truncating, others).await;
        truncated.unwrap();
        if seen.len() == 3 {
            let left = store.load_stream(&stream).await.unwrap();
            assert!(left.is_empty(), "round {round}: {} events are left", left.len());
        }
    }
}
