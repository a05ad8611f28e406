//! Several stores on one server.

use annals_core::{
    EventStore, EventStoreExt, EventType, ExpectedVersion, Filter, Payload, ReadAll, Snapshot,
    SnapshotStore, Subscribe, TryStreamExt,
};
use annals_eventstoredb::{EventStoreDbOptions, EventStoreDbStore};

use crate::tools::{Server, event, id, next};

async fn names(store: &EventStoreDbStore, filter: Filter) -> Vec<String> {
    let events = store.read_all(ReadAll::default().with_filter(filter));
    events.map_ok(|event| event.stream.to_string()).try_collect().await.unwrap()
}

#[tokio::test]
async fn each_sees_its_own_streams() {
    let server = Server::start().await;
    let open = |name: &str| server.open(EventStoreDbOptions::default().with_namespace(name));
    let (shop, shopping) = (open("shop").await, open("shopping").await);
    let everything = server.open(EventStoreDbOptions::default()).await;
    let mut live = shop.subscribe(Subscribe::default()).await.unwrap();
    for (number, store) in [(1, &shop), (2, &shopping), (3, &shop)] {
        store.append_to("order-1", ExpectedVersion::Any, [event(number)]).await.unwrap();
    }
    shop.save_snapshot(&id("order-1"), Snapshot::new(2, Payload::empty())).await.unwrap();
    assert_eq!(shopping.load_snapshot(&id("order-1")).await.unwrap(), None);
    assert_eq!(names(&shop, Filter::default()).await, ["order-1", "order-1"]);
    assert_eq!(names(&shopping, Filter::default()).await, ["order-1"]);
    let all = ["shop.order-1", "shopping.order-1", "shop.order-1"];
    assert_eq!(names(&everything, Filter::default()).await, all);
    let types = Filter::default().with_event_types([EventType::new("Numbered").unwrap()]);
    assert_eq!(names(&shopping, types).await, ["order-1"]);
    let system = names(&shopping, Filter::default().including_system()).await;
    assert_eq!(system, ["order-1", "$$shop.annals.snapshot.order-1"]);
    assert_eq!([next(&mut live).await, next(&mut live).await], [1, 3]);
}

/// Also if one is called as the other and more.
#[tokio::test]
async fn none_is_a_part_of_another() {
    let server = Server::start().await;
    let open = |name: &str| server.open(EventStoreDbOptions::default().with_namespace(name));
    let namespaces = ["acme", "acme.eu", "acme.eu.x", "acme%2Eeu", "acme."];
    for (number, name) in (1..).zip(namespaces) {
        let store = open(name).await;
        for stream in ["s-1", "eu.s-1", ".eu.s-1"] {
            store.append_to(stream, ExpectedVersion::NoStream, [event(number)]).await.unwrap();
        }
    }
    for name in namespaces {
        let store = open(name).await;
        assert_eq!(names(&store, Filter::default()).await, ["s-1", "eu.s-1", ".eu.s-1"], "{name}");
        store.delete(&id("eu.s-1"), ExpectedVersion::Any).await.unwrap();
        assert_eq!(store.load_stream(&id("s-1")).await.unwrap().len(), 1, "{name}");
    }
}
