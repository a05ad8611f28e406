//! Events that other applications wrote.

use annals_core::{
    ContentKind, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Payload, ReadAll,
    Snapshot, SnapshotStore, TryStreamExt,
};
use annals_eventstoredb::EventStoreDbOptions;

use crate::tools::{Server, id, kurrentdb};
use kurrentdb::{DeleteStreamOptions, EventData};

#[tokio::test]
async fn events_of_other_applications_are_read_as_they_are() {
    let server = Server::start().await;
    let (store, bare) = (server.open(EventStoreDbOptions::default()).await, server.bare());
    let json = |event_type| EventData::json(event_type, &serde_json::json!({ "a": 1 })).unwrap();
    let written = vec![
        json("Plain"),
        json("Odd metadata").metadata(vec![0xff, 0].into()),
        EventData::binary("Binary", vec![0xfe].into()).metadata("{\"a\":1}".into()),
        EventData::binary("$>", "0@order-1".into()),
        json(" "),
        json("Empty metadata").metadata(Default::default()),
    ];
    bare.append_to_stream("others-1", &Default::default(), written).await.unwrap();
    let link = EventData::binary("$>", "0@others-1".into());
    bare.append_to_stream("links", &Default::default(), link).await.unwrap();

    let read = store.load_stream(&id("others-1")).await.unwrap();
    let types: Vec<_> = read.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["Plain", "Odd metadata", "Binary", "$>", " ", "Empty metadata"]);
    let kinds: Vec<_> = read.iter().map(|e| (e.data.kind(), e.metadata.kind())).collect();
    use ContentKind::{Binary, Json};
    let expected =
        [(Json, Binary), (Json, Binary), (Binary, Json), (Binary, Binary), (Json, Binary)];
    assert_eq!(kinds[..5], expected);
    assert_eq!(*read[1].metadata.bytes(), &[0xff, 0][..]);
    assert!(read[5].metadata.is_empty());

    let all: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    assert_eq!(all[..6], read);
    assert_eq!(all[6].event_type.as_str(), "$>");
    assert_eq!(all[6].data.bytes(), "0@others-1");
}

#[tokio::test]
async fn streams_of_the_server_are_hidden_unless_asked_for() {
    let server = Server::start().await;
    let (store, bare) = (server.open(EventStoreDbOptions::default()).await, server.bare());
    let event = || EventData::binary("Written", "x".into());
    for stream in ["$settings", "order-1", "$$order-1"] {
        bare.append_to_stream(stream, &Default::default(), event()).await.unwrap();
    }
    let read = |filter| {
        let events = store.read_all(ReadAll::default().with_filter(filter));
        async { events.map_ok(|e| e.stream.to_string()).try_collect::<Vec<_>>().await.unwrap() }
    };
    let written = annals_core::EventType::new("Written").unwrap();
    assert_eq!(read(Filter::default()).await, ["order-1"]);
    assert_eq!(read(Filter::default().with_event_types([written])).await, ["order-1"]);
    let all = read(Filter::default().including_system()).await;
    assert_eq!(all, ["$settings", "order-1", "$$order-1"]);
    assert_eq!(store.load_stream(&id("$settings")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_snapshot_of_a_stream_that_another_application_deleted_is_not_loaded() {
    let server = Server::start().await;
    let (store, bare) = (server.open(EventStoreDbOptions::default()).await, server.bare());
    let stream = id("order-1");
    let event = NewEvent::binary("Placed", "x").unwrap();
    store.append_to(&stream, ExpectedVersion::NoStream, [event]).await.unwrap();
    let snapshot = Snapshot::new(1, Payload::empty());
    store.save_snapshot(&stream, snapshot.clone()).await.unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), Some(snapshot));
    bare.delete_stream("order-1", &DeleteStreamOptions::default()).await.unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), None);
}
