//! Moving out of stores that hold what annals does not take: nothing is left out without a word.

use std::fs;

use annals::{
    CheckpointStore, EventStore, EventStoreExt, ExpectedVersion, PLACEHOLDER, RecordedEvent, Store,
    StreamState, Version, eventstoredb::kurrentdb,
};
use annals_gateway::like_eventstoredb::Cluster;
use annals_test_stores::Fresh;
use kurrentdb::{AppendToStreamOptions, Client, EventData};
use tokio::net::TcpListener;

use crate::{
    command::{all, ends, ok, url_of},
    files::sqlite,
};

fn line(version: u64, event_type: &str) -> String {
    let (id, at) = (uuid::Uuid::now_v7(), "2026-01-31T12:00:00.000000Z");
    format!(
        r#"{{"stream":"order-1","version":{version},"position":{version},"recorded_at":"{at}","id":"{id}","type":"{event_type}","data":{version}}}"#
    )
}

async fn types(store: &std::sync::Arc<dyn Store>, stream: &str) -> Vec<String> {
    let events = store.load_stream(&stream.try_into().unwrap()).await.unwrap();
    events.iter().map(|event| event.event_type.to_string()).collect()
}

/// Between a file and a store.
pub(crate) async fn what_annals_cannot_name_stays_in_a_file_or_gets_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let from = url_of("jsonl", &dir, "events");
    let lines = ["A", "$custom", "B", "$>", "$custom"].iter().zip(1..).map(|(t, n)| line(n, t));
    fs::write(dir.path().join("events"), lines.map(|line| line + "\n").collect::<String>())
        .unwrap();
    // A file keeps them as they are.
    let other = url_of("jsonl", &dir, "other");
    ok(&["copy", &from, &other]).await;
    ok(&["verify", &from, &other]).await;
    let to = Fresh::open(&sqlite()).await;
    let urls = [from.as_str(), to.url.as_str()];
    let dry = ends(&["copy", "--dry-run", urls[0], urls[1]], 3).await;
    assert!(
        dry.contains("order-1: 2 events under names that annals does not take, versions 2 to 5")
    );
    for options in [&[][..], &["--links", "skip"], &["--unnamable", "rename"]] {
        let said = ends(&[&["copy", urls[0], urls[1]], options].concat(), 3).await;
        assert!(said.contains("say what to do with them"), "{options:?}: {said}");
        assert!(all(&to.store).await.is_empty(), "{options:?}: it has written");
    }
    let said =
        ends(&["copy", urls[0], urls[1], "--links", "resolve", "--unnamable", "skip"], 2).await;
    assert!(said.contains("needs EventStoreDB as the source"), "{said}");
    let options = ["--links", "skip", "--unnamable", "skip"];
    let said = ends(&[&["copy", urls[0], urls[1]], &options[..]].concat(), 5).await;
    assert!(said.contains("stays behind: order-1: 1 link, version 4"), "{said}");
    assert!(said.contains("but 1 link, 2 events under names"), "{said}");
    let there = types(&to.store, "order-1").await;
    assert_eq!(there, ["A", PLACEHOLDER, "B", PLACEHOLDER, PLACEHOLDER]);
    ends(&[&["verify", urls[0], urls[1]], &options[..]].concat(), 5).await;
    ends(&["verify", urls[0], urls[1]], 3).await;
    // With all of them.
    let to = Fresh::open(&sqlite()).await;
    let urls = [from.as_str(), to.url.as_str()];
    let options = ["--links", "keep", "--unnamable", "rename"];
    ok(&[&["copy", urls[0], urls[1]], &options[..]].concat()).await;
    ok(&[&["verify", urls[0], urls[1]], &options[..]].concat()).await;
    let there = types(&to.store, "order-1").await;
    assert!(there[1].starts_with("%24custom~") && there[1] == there[4], "{there:?}");
    assert_eq!(there[3], "annals.link");
}

/// A server as other applications leave it.
async fn server() -> (String, Client) {
    let cluster = Cluster::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    cluster.set_address(0, &address.ip().to_string(), address.port());
    tokio::spawn(cluster.node(0).serve(listener));
    let url = format!("esdb://{address}?tls=false");
    (url.clone(), Client::new(url.parse().unwrap()).unwrap())
}

async fn write(client: &Client, stream: &str, event_type: &str, data: &str) {
    let event = EventData::binary(event_type, data.to_owned().into());
    let options = AppendToStreamOptions::default();
    client.append_to_stream(stream, &options, event).await.unwrap();
}

async fn set_settings(client: &Client, stream: &str, settings: serde_json::Value) {
    let event = EventData::json("$metadata", &settings).unwrap();
    let options = AppendToStreamOptions::default();
    client.append_to_stream(format!("$${stream}"), &options, event).await.unwrap();
}

/// What the events of a stream hold.
fn data(events: &[RecordedEvent], stream: &str) -> Vec<String> {
    let of_stream = events.iter().filter(|event| event.stream.as_str().starts_with(stream));
    of_stream.map(|event| String::from_utf8_lossy(event.data.bytes()).into_owned()).collect()
}

pub(crate) async fn a_server_with_events_of_others_is_left_with_all_of_them() {
    let (from, client) = server().await;
    let long = "L".repeat(300);
    for (stream, event_type, data) in [
        ("order-1", "A", "one"),
        ("order-\n1", "A", "in a stream with a control character"),
        ("order-1", "$custom", "of a type of its own"),
        ("order-1", long.as_str(), "of a long type"),
        ("view", "$>", "0@order-1"),
        ("view", "$>", "7@order-1"),
        ("order-1", "B", "two"),
        ("deleted-1", "A", "gone"),
        ("closed-1", "A", "gone"),
    ] {
        write(&client, stream, event_type, data).await;
    }
    set_settings(&client, "order-1", serde_json::json!({ "$maxCount": 100 })).await;
    client.delete_stream("deleted-1", &Default::default()).await.unwrap();
    client.tombstone_stream("closed-1", &Default::default()).await.unwrap();

    let to = Fresh::open(&sqlite()).await;
    let urls = [from.as_str(), to.url.as_str()];
    let said = ends(&["copy", urls[0], urls[1]], 3).await;
    assert!(said.contains("2 links, 3 events under names that annals does not take"), "{said}");
    assert!(all(&to.store).await.is_empty());
    ends(&["verify", urls[0], urls[1]], 3).await;

    let options = ["--links", "resolve", "--unnamable", "rename"];
    let said = ends(&[&["copy", urls[0], urls[1]], &options[..]].concat(), 5).await;
    assert!(said.contains("view: 1 link to an event that is gone, version 2"), "{said}");
    assert!(said.contains("stays behind: order-1: its settings $maxCount"), "{said}");
    let there = all(&to.store).await;
    let due = ["one", "of a type of its own", "of a long type", "two"];
    assert_eq!(data(&there, "order-1"), due);
    assert_eq!(data(&there, "order-%0A1~"), ["in a stream with a control character"]);
    // The second link leads nowhere.
    assert_eq!(data(&there, "view"), ["one", ""]);
    for (stream, state, version) in
        [("deleted-1", StreamState::Deleted, 1), ("closed-1", StreamState::Tombstoned, 0)]
    {
        let info = to.store.stream_info(&stream.try_into().unwrap()).await.unwrap();
        // The server tells no version of a stream that others have tombstoned.
        assert_eq!((info.state, info.version.get()), (state, version), "{stream}");
    }
    ends(&[&["verify", urls[0], urls[1]], &options[..]].concat(), 5).await;

    // What is written since comes with the next run, which ends alike.
    write(&client, "order-\n1", "A", "later").await;
    write(&client, "view", "$>", "3@order-1").await;
    ends(&[&["copy", urls[0], urls[1]], &options[..]].concat(), 5).await;
    let there = all(&to.store).await;
    assert_eq!(data(&there, "order-%0A1~").len(), 2);
    assert_eq!(data(&there, "view"), ["one", "", "two"]);

    // Left out, each is named.
    let to = Fresh::open(&sqlite()).await;
    let urls = [from.as_str(), to.url.as_str()];
    let options = ["--links", "skip", "--unnamable", "skip"];
    let said = ends(&[&["copy", urls[0], urls[1]], &options[..]].concat(), 5).await;
    for due in [
        "view: 3 links, versions 1 to 3",
        r#""order-\n1": 2 events under names that annals does not take, versions 1 to 2"#,
        "order-1: 2 events under names that annals does not take, versions 2 to 3",
    ] {
        assert!(said.contains(&format!("stays behind: {due}")), "{due}: {said}");
    }
    let none = to.store.stream_info(&"view".try_into().unwrap()).await.unwrap();
    assert_eq!(none.state, StreamState::Missing);
    ends(&[&["verify", urls[0], urls[1]], &options[..]].concat(), 5).await;
    // An append goes on after the last version.
    let version = ExpectedVersion::Exact(Version::new(4));
    to.store.append_to("order-1", version, [crate::command::event(1)]).await.unwrap();
}

/// Settings of streams, and what users have put into streams of the server's own, are lost with the server.
/// What the server makes by itself is not.
pub(crate) async fn what_only_a_server_keeps_stays_behind_with_a_status_of_its_own() {
    let (from, client) = server().await;
    for stream in ["order-1", "cart-1", "gone-1"] {
        write(&client, stream, "A", "one").await;
    }
    write(&client, "$ce-order", "$>", "0@order-1").await;
    write(&client, "$stats-127.0.0.1:2113", "$statsCollected", "{}").await;
    set_settings(&client, "$stats-127.0.0.1:2113", serde_json::json!({ "$maxAge": 86400 })).await;
    // Other settings that are gone again, and those of a stream that is gone.
    set_settings(&client, "cart-1", serde_json::json!({ "$maxCount": 7, "mine": 1 })).await;
    set_settings(&client, "cart-1", serde_json::json!({ "$tb": 0 })).await;
    set_settings(&client, "gone-1", serde_json::json!({ "$maxCount": 7 })).await;
    client.delete_stream("gone-1", &Default::default()).await.unwrap();
    let store = annals::connect(&from).await.unwrap();
    store.save_checkpoint(&"totals".try_into().unwrap(), 1.into()).await.unwrap();

    let to = Fresh::open(&sqlite()).await;
    let urls = [from.as_str(), to.url.as_str()];
    let note = "3 events in 3 streams that the server makes by itself";
    for command in [&["copy", "--dry-run"][..], &["copy"], &["verify"]] {
        let said = ends(&[command, &urls[..]].concat(), 0).await;
        assert!(said.contains(note) && !said.contains("stays behind"), "{command:?}: {said}");
    }

    set_settings(&client, "order-1", serde_json::json!({ "$acl": {}, "$tb": 0, "mine": 1 })).await;
    write(&client, "$of-an-application", "A", "one").await;
    write(&client, "$of-an-application", "A", "two").await;
    let due = [
        "stays behind: order-1: its settings $acl, mine",
        "stays behind: $of-an-application: 2 events of users in streams whose names begin with $, \
         versions 1 to 2",
    ];
    for command in [&["copy", "--dry-run"][..], &["copy"], &["verify"]] {
        let said = ends(&[command, &urls[..]].concat(), 5).await;
        assert!(due.iter().all(|due| said.contains(due)), "{command:?}: {said}");
        assert!(said.contains("the settings of 1 stream"), "{command:?}: {said}");
    }
    // Of streams that are selected, the settings.
    for (category, status) in [("order", 5), ("cart", 0)] {
        let options = ["--category", category];
        for command in [&["copy", "--dry-run"][..], &["verify"]] {
            let said = ends(&[command, &options, &urls[..]].concat(), status).await;
            assert!(!said.contains("$of-an-application"), "{command:?}: {said}");
        }
    }
}
