//! Behaviour of streams that the gateway adds to the store's.

use annals_core::{EventStore, EventStoreExt, ExpectedVersion, StreamId, StreamState};
use futures::TryStreamExt as _;
use kurrentdb::{
    AppendToStreamOptions, Client, DeleteStreamOptions, Error, EventData, Position, ReadAllOptions,
    ReadStreamOptions, ResolvedEvent, StreamMetadataBuilder, StreamPosition, SubscribeToAllOptions,
    SubscribeToStreamOptions,
};

use crate::common::{Served, client, fill, soon};

async fn read(
    client: &Client,
    stream: &str,
    options: ReadStreamOptions,
) -> Result<Vec<ResolvedEvent>, Error> {
    let mut found = Vec::new();
    let mut events = client.read_stream(stream, &options).await?;
    while let Some(event) = events.next().await? {
        found.push(event);
    }
    Ok(found)
}

fn revisions(events: &[ResolvedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.get_original_event().revision).collect()
}

fn stream(name: &str) -> StreamId {
    name.try_into().unwrap()
}

#[tokio::test]
async fn truncate_before_in_metadata_truncates_in_the_store() {
    let served = Served::new().await;
    let client = served.client();
    fill(&served.store, "order-1", 0..10).await;
    let metadata = StreamMetadataBuilder::new().truncate_before(4).insert_custom_property("a", 1);
    let options = AppendToStreamOptions::default();
    client.set_stream_metadata("order-1", &options, &metadata.build()).await.unwrap();
    let all = ReadStreamOptions::default();
    assert_eq!(
        revisions(&read(&client, "order-1", all.clone()).await.unwrap()),
        [4, 5, 6, 7, 8, 9]
    );
    let info = served.store.stream_info(&stream("order-1")).await.unwrap();
    assert_eq!(info.first_version.unwrap().get(), 5);
    // `$maxCount` hides events, and removes none.
    let metadata = StreamMetadataBuilder::new().max_count(3).build();
    client.set_stream_metadata("order-1", &options, &metadata).await.unwrap();
    assert_eq!(revisions(&read(&client, "order-1", all.clone()).await.unwrap()), [7, 8, 9]);
    let backwards = all.backwards().position(StreamPosition::End).max_count(9);
    assert_eq!(revisions(&read(&client, "order-1", backwards).await.unwrap()), [9, 8, 7]);
    assert_eq!(served.store.load_stream(&stream("order-1")).await.unwrap().len(), 6);
    served.stop().await;
}

#[tokio::test]
async fn metadata_shows_a_deletion_and_a_new_start() {
    let served = Served::new().await;
    let client = served.client();
    fill(&served.store, "order-1", 0..3).await;
    client.delete_stream("order-1", &DeleteStreamOptions::default()).await.unwrap();
    let gone = read(&client, "order-1", ReadStreamOptions::default()).await;
    assert!(matches!(gone, Err(Error::ResourceNotFound)), "{gone:?}");
    let tb = async || {
        let found = read(&client, "$$order-1", ReadStreamOptions::default()).await.unwrap();
        let data: serde_json::Value = found[0].get_original_event().as_json().unwrap();
        data["$tb"].as_u64().unwrap()
    };
    assert_eq!(tb().await, i64::MAX as u64);
    fill(&served.store, "order-1", 3..5).await;
    let found = read(&client, "order-1", ReadStreamOptions::default()).await.unwrap();
    assert_eq!(revisions(&found), [3, 4]);
    assert_eq!(tb().await, 3);
    let info = served.store.stream_info(&stream("order-1")).await.unwrap();
    assert_eq!(info.state, StreamState::Live);
    served.stop().await;
}

/// Revisions in a category are positions, so a subscriber can go on after events were removed.
#[tokio::test]
async fn a_category_is_read_and_subscribed_to_as_links() {
    let served = Served::new().await;
    let client = served.client();
    for name in ["order-1", "cart-1", "order-2", "orders", "order-1"] {
        fill(&served.store, name, 0..2).await;
    }
    let resolved = ReadStreamOptions::default().resolve_link_tos();
    let found = read(&client, "$ce-order", resolved).await.unwrap();
    let names: Vec<_> = found.iter().map(|e| e.event.as_ref().unwrap().stream_id()).collect();
    assert_eq!(names, ["order-1", "order-1", "order-2", "order-2", "order-1", "order-1"]);
    assert_eq!(found[2].link.as_ref().unwrap().data, "0@order-2");
    let unresolved = read(&client, "$ce-order", ReadStreamOptions::default()).await.unwrap();
    assert!(unresolved.iter().all(|e| e.event.as_ref().unwrap().event_type == "$>"));
    assert_eq!(revisions(&found), revisions(&unresolved));
    // The subscription begins after the third event, although the events before it were removed.
    let third = found[2].get_original_event().revision;
    client.tombstone_stream("order-1", &Default::default()).await.unwrap();
    let options = SubscribeToStreamOptions::default()
        .resolve_link_tos()
        .start_from(StreamPosition::Position(third));
    let mut live = client.subscribe_to_stream("$ce-order", &options).await;
    fill(&served.store, "order-3", 0..1).await;
    for expected in [("order-2", 1), ("order-3", 0)] {
        let event = soon("an event", live.next()).await.unwrap();
        let event = event.event.unwrap();
        assert_eq!((event.stream_id(), event.revision), expected);
    }
    served.stop().await;
}

#[tokio::test]
async fn links_are_resolved_to_their_events() {
    let served = Served::new().await;
    let client = served.client();
    fill(&served.store, "order-1", 0..3).await;
    let links = ["2@order-1", "9@order-1", "0@missing-1", "-1@order-1", "nonsense"];
    let links = links.map(|link| EventData::binary("$>", link.into())).to_vec();
    let options = AppendToStreamOptions::default();
    client.append_to_stream("links-1", &options, links).await.unwrap();
    let resolved = ReadStreamOptions::default().resolve_link_tos();
    let found = read(&client, "links-1", resolved).await.unwrap();
    assert_eq!(found[0].event.as_ref().unwrap().revision, 2);
    assert_eq!(found[0].link.as_ref().unwrap().stream_id(), "links-1");
    assert!(found[1..3].iter().all(|e| e.event.is_none() && e.link.is_some()));
    // -1 stands for the last event, and what names no event is no link.
    assert_eq!(found[3].event.as_ref().unwrap().revision, 2);
    assert!(found[4].event.is_some() && found[4].link.is_none());
    served.stop().await;
}

#[tokio::test]
async fn names_that_begin_with_a_dollar_have_a_prefix_in_the_store() {
    let served = Served::new().await;
    let client = served.client();
    let event = EventData::json("$Own", &1).unwrap();
    let options = AppendToStreamOptions::default();
    client.append_to_stream("$own", &options, event).await.unwrap();
    let found = read(&client, "$own", ReadStreamOptions::default()).await.unwrap();
    assert_eq!(found[0].get_original_event().event_type, "$Own");
    let stored: Vec<_> =
        served.store.read_all(Default::default()).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(
        (stored[0].stream.as_str(), stored[0].event_type.as_str()),
        ("esdb:$own", "esdb:$Own")
    );
    for refused in ["esdb:$own", "$all", "$ce-order", "", "a\u{1}"] {
        let event = EventData::json("Counted", &1).unwrap();
        assert!(client.append_to_stream(refused, &options, event).await.is_err(), "{refused:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_client_of_a_cluster_finds_the_one_node() {
    let served = Served::new().await;
    let address = served.address;
    let client = client(&format!("esdb://{address},{address}?tls=false"));
    let event = EventData::json("Counted", &1).unwrap();
    let options = AppendToStreamOptions::default();
    soon("an append", client.append_to_stream("order-1", &options, event)).await.unwrap();
    served.stop().await;
}

/// A probe must not take the answer of gRPC to any path, which is 200, for health.
#[tokio::test]
async fn only_health_is_served_over_plain_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = Served::new().await;
    for (path, status) in [("/health/live", "204"), ("/", "404"), ("/streams/order-1", "404")] {
        let mut connection = tokio::net::TcpStream::connect(served.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", connection.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    served.stop().await;
}

/// The positions of removed events are places to go on from. Those that the store has never given are
/// refused, but for a category: that is a stream to clients.
#[tokio::test]
async fn reads_go_on_from_what_was_removed_and_from_nowhere_else() {
    let served = Served::new().await;
    let client = served.client();
    fill(&served.store, "order-1", 0..3).await;
    fill(&served.store, "gone-1", 0..2).await;
    served.store.delete(&stream("gone-1"), ExpectedVersion::Any).await.unwrap();
    let at = |at| StreamPosition::Position(Position { commit: at, prepare: at });
    let all = async |options: ReadAllOptions| {
        let mut found = Vec::new();
        let mut events = client.read_all(&options).await?;
        while let Some(event) = events.next().await? {
            found.push(event);
        }
        Ok::<_, Error>(revisions(&found))
    };
    assert!(all(ReadAllOptions::default().position(at(5))).await.unwrap().is_empty());
    let backwards = |place| ReadAllOptions::default().backwards().position(place);
    assert_eq!(all(backwards(at(5))).await.unwrap(), [2, 1, 0]);
    for options in [ReadAllOptions::default().position(at(900)), backwards(at(900))] {
        let refused = all(options).await.unwrap_err().to_string();
        assert!(refused.contains("this store is 5"), "{refused}");
    }
    let options = SubscribeToAllOptions::default().position(at(5));
    let mut live = client.subscribe_to_all(&options).await;
    fill(&served.store, "order-1", 3..4).await;
    let event = soon("an event", live.next()).await.unwrap();
    assert_eq!(event.get_original_event().revision, 3);

    for place in [6, 900] {
        let options = ReadStreamOptions::default().position(StreamPosition::Position(place));
        let read = async |options| read(&client, "$ce-order", options).await.unwrap().len();
        assert_eq!(read(options.clone().backwards()).await, 4, "before {place}");
        assert_eq!(read(options).await, usize::from(place == 6), "after {place}");
    }
    served.stop().await;
}
