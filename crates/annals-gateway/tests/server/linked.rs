//! The streams of links that EventStoreDB's projections make.

use annals_core::{EventStoreExt, ExpectedVersion, NewEvent};
use kurrentdb::{
    AppendToStreamOptions, Client, EventData, PersistentSubscriptionEvent,
    PersistentSubscriptionOptions, ProjectionClient, ReadStreamOptions, ResolvedEvent,
    StreamPosition, SubscribeToPersistentSubscriptionOptions, SubscribeToStreamOptions,
};
use serde_json::{Value, json};

use crate::common::{Served, soon};

async fn append(served: &Served, stream: &str, event_type: &str, correlation: Option<&str>) {
    let mut event = NewEvent::json(event_type, &1).unwrap();
    if let Some(correlation) = correlation {
        event = event.with_json_metadata(&json!({ "$correlationId": correlation })).unwrap();
    }
    served.store.append_to(stream, ExpectedVersion::Any, [event]).await.unwrap();
}

/// Two orders and a cart.
async fn shop() -> Served {
    let served = Served::new().await;
    append(&served, "order-1", "Placed", Some("c-1")).await;
    append(&served, "order-2", "Placed", None).await;
    append(&served, "cart-1", "Filled", Some("c-1")).await;
    append(&served, "order-1", "Paid", Some("c-2")).await;
    served
}

async fn read(client: &Client, stream: &str, options: ReadStreamOptions) -> Vec<ResolvedEvent> {
    let mut found = Vec::new();
    let mut events = client.read_stream(stream, &options).await.unwrap();
    while let Some(event) = events.next().await.unwrap() {
        found.push(event);
    }
    found
}

fn data(event: &ResolvedEvent) -> String {
    String::from_utf8(event.get_original_event().data.to_vec()).unwrap()
}

#[tokio::test]
async fn each_has_links_to_its_events() {
    let served = shop().await;
    let client = served.client();
    for (stream, expected) in [
        ("$ce-order", &["0@order-1", "0@order-2", "1@order-1"][..]),
        ("$et-Placed", &["0@order-1", "0@order-2"]),
        ("$bc-c-1", &["0@order-1", "0@cart-1"]),
        ("$streams", &["0@order-1", "0@order-2", "0@cart-1"]),
        ("$category-order", &["order-1", "order-2"]),
    ] {
        let options = ReadStreamOptions::default();
        let found = read(&client, stream, options.clone()).await;
        assert_eq!(found.iter().map(data).collect::<Vec<_>>(), expected, "{stream}");
        let mut backwards =
            read(&client, stream, options.clone().backwards().position(StreamPosition::End)).await;
        backwards.reverse();
        assert_eq!(backwards.iter().map(data).collect::<Vec<_>>(), expected, "{stream}");
        let second = found[1].get_original_event().revision;
        let rest = read(&client, stream, options.position(StreamPosition::Position(second))).await;
        assert_eq!(rest.iter().map(data).collect::<Vec<_>>(), expected[1..], "{stream}");
        let refused = client
            .append_to_stream(
                stream,
                &AppendToStreamOptions::default(),
                EventData::json("Counted", &1).unwrap(),
            )
            .await;
        assert!(matches!(refused, Err(kurrentdb::Error::AccessDenied)), "{refused:?}");
    }
    for stream in ["$ce-none", "$et-None", "$bc-none", "$category-none", "$ce-a-b"] {
        let mut events = client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap();
        let missing = events.next().await.unwrap_err();
        assert!(matches!(missing, kurrentdb::Error::ResourceNotFound), "{stream}: {missing}");
    }
    served.stop().await;
}

#[tokio::test]
async fn links_have_the_metadata_of_the_real_ones_and_lead_to_their_events() {
    let served = shop().await;
    let client = served.client();
    let resolved = ReadStreamOptions::default().resolve_link_tos();
    let found = read(&client, "$ce-order", resolved).await;
    let (event, link) = (found[0].event.as_ref().unwrap(), found[0].link.as_ref().unwrap());
    assert_eq!((event.stream_id(), link.stream_id()), ("order-1", "$ce-order"));
    let metadata: Value = serde_json::from_slice(&link.custom_metadata).unwrap();
    let expected = json!({
        "$v": "3:-1:1:4", "$c": 1, "$p": 1, "$o": "order-1", "$causedBy": event.id,
        "$correlationId": "c-1",
    });
    assert_eq!(metadata, expected);
    let found =
        read(&client, "$category-order", ReadStreamOptions::default().resolve_link_tos()).await;
    // These name streams, so they lead to no event.
    assert!(found[0].link.is_none() && found[0].event.as_ref().unwrap().event_type == "$@");
    served.stop().await;
}

#[tokio::test]
async fn they_are_subscribed_to_and_consumed() {
    let served = shop().await;
    let client = served.client();
    let options =
        SubscribeToStreamOptions::default().start_from(StreamPosition::Start).resolve_link_tos();
    let mut live = client.subscribe_to_stream("$et-Placed", &options).await;
    let options = PersistentSubscriptionOptions::default()
        .start_from(StreamPosition::Start)
        .resolve_link_tos(true);
    client.create_persistent_subscription("$et-Placed", "g", &options).await.unwrap();
    let options = SubscribeToPersistentSubscriptionOptions::default();
    let group = client.subscribe_to_persistent_subscription("$et-Placed", "g", &options);
    let mut consumer = soon("a connection", group).await.unwrap();
    append(&served, "order-3", "Placed", None).await;
    append(&served, "order-3", "Paid", None).await;
    append(&served, "order-4", "Placed", None).await;
    for expected in ["order-1", "order-2", "order-3", "order-4"] {
        let event = soon("an event", live.next()).await.unwrap();
        assert_eq!(event.event.unwrap().stream_id(), expected);
        loop {
            let message = soon("an event", consumer.next_subscription_event()).await.unwrap();
            if let PersistentSubscriptionEvent::EventAppeared { event, .. } = message {
                assert_eq!(event.event.as_ref().unwrap().stream_id(), expected);
                consumer.ack(&event).await.unwrap();
                break;
            }
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn the_system_projections_are_running() {
    let served = Served::new().await;
    let projections: ProjectionClient = served.client().into();
    let options = Default::default();
    projections.enable("$by_category", &options).await.unwrap();
    let status = projections.get_status("$by_event_type", &options).await.unwrap().unwrap();
    assert_eq!((status.name.as_str(), status.status.as_str()), ("$by_event_type", "Running"));
    assert!(projections.enable("mine", &options).await.is_err());
    let created = projections.create("mine", "fromAll()".to_owned(), &Default::default()).await;
    assert!(created.is_err());
    served.stop().await;
}
