//! A stream's metadata on the server, which other applications use, too.

use annals_core::{EventStore, EventStoreExt, ExpectedVersion, StreamState};
use annals_eventstoredb::EventStoreDbOptions;

use crate::tools::{Server, event, id, kurrentdb};
use kurrentdb::{EventData, ReadStreamOptions};

#[tokio::test]
async fn truncation_keeps_the_other_properties() {
    let server = Server::start().await;
    let (store, bare) = (server.open(EventStoreDbOptions::default()).await, server.bare());
    for number in 1..=5 {
        store.append_to("order-1", ExpectedVersion::Any, [event(number)]).await.unwrap();
    }
    let others = serde_json::json!({ "$maxCount": 100, "$acl": "anything", "owner": { "x": 1.5 } });
    let others_event = EventData::json("$metadata", &others).unwrap();
    bare.append_to_stream("$$order-1", &Default::default(), others_event).await.unwrap();
    for (before, kept) in [(3, 2), (2, 2), (100, 5)] {
        store.truncate(&id("order-1"), before.into()).await.unwrap();
        let options = ReadStreamOptions::default().backwards();
        let options = options.position(kurrentdb::StreamPosition::End).max_count(1);
        let mut read = bare.read_stream("$$order-1", &options).await.unwrap();
        let last = read.next().await.unwrap().unwrap();
        let mut now: serde_json::Value = last.get_original_event().as_json().unwrap();
        let truncated = now.as_object_mut().unwrap().remove("$tb");
        assert_eq!(truncated, Some(kept.into()), "$tb after truncate({before})");
        assert_eq!(now, others);
    }
}

/// Streams without readable events: truncated, deleted, tombstoned, missing.
#[tokio::test]
async fn states_of_streams_without_events_are_told_apart() {
    let server = Server::start().await;
    let store = server.open(EventStoreDbOptions::default()).await;
    for name in ["cut-1", "deleted-1", "closed-1"] {
        store.append_to(name, ExpectedVersion::Any, [event(1), event(2)]).await.unwrap();
    }
    store.truncate(&id("cut-1"), 3.into()).await.unwrap();
    store.delete(&id("deleted-1"), ExpectedVersion::Any).await.unwrap();
    store.tombstone(&id("closed-1"), ExpectedVersion::Any).await.unwrap();
    for (name, state, version) in [
        ("cut-1", StreamState::Live, 2),
        ("deleted-1", StreamState::Deleted, 2),
        ("closed-1", StreamState::Tombstoned, 2),
        ("missing-1", StreamState::Missing, 0),
    ] {
        let info = store.stream_info(&id(name)).await.unwrap();
        assert_eq!((info.state, info.version.get()), (state, version), "{name}");
        assert_eq!(info.first_version, None);
        assert!(store.load_stream(&id(name)).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn reserved_names_are_refused() {
    let server = Server::start().await;
    let store = server.open(EventStoreDbOptions::default()).await;
    for name in ["annals.snapshot.order-1", "annals.checkpoint.totals", "annals.lease.totals"] {
        let refused = store.append_to(name, ExpectedVersion::Any, [event(1)]).await.unwrap_err();
        assert_eq!(refused.kind(), annals_core::ErrorKind::InvalidInput);
        let refused = store.truncate(&id(name), 2.into()).await.unwrap_err();
        assert_eq!(refused.kind(), annals_core::ErrorKind::InvalidInput);
    }
}
