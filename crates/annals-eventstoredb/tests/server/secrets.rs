//! No error and no `Debug` output shows a password.

use std::sync::Arc;

use annals_core::{ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Subscribe};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};

use annals_gateway::GatewayOptions;
use annals_memory::MemoryStore;

use crate::{
    common::GatewayServer,
    tools::{Server, event, kurrentdb, next, within},
};

#[tokio::test]
async fn neither_values_nor_errors_show_a_password() {
    let server = Server::start().await;
    let url = server.gateway.url().replace("://", "://me:hunter2@");
    let config = EventStoreDbConfig::from_url(&url).unwrap();
    let store = EventStoreDbStore::open(config.clone()).await.unwrap();
    let client = kurrentdb::Client::new(url.parse().unwrap()).unwrap();
    let with_client =
        EventStoreDbStore::with_client(client, EventStoreDbOptions::default()).await.unwrap();
    for text in [format!("{config:?}"), format!("{store:?}"), format!("{with_client:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    drop(server);
    let error = within("an error", EventStoreDbStore::open(config)).await.unwrap_err();
    assert!(!format!("{error}{error:?}").contains("hunter2"), "{error:?}");
}

/// Special characters in user and password, which the client by itself would not decode.
#[tokio::test]
async fn credentials_are_decoded_before_they_are_sent() {
    let options = GatewayOptions::default().with_user("me@shop", "p@ss:w/rd");
    let server = GatewayServer::start_with(Arc::new(MemoryStore::new()), options).await.unwrap();
    let at = |user: &str| {
        let url = server.url().replace("://", &format!("://{user}@"));
        EventStoreDbConfig::from_url(&url).unwrap()
    };
    let store = EventStoreDbStore::open(at("me%40shop:p%40ss%3Aw%2Frd")).await.unwrap();
    let mut live = store.subscribe(Subscribe::default()).await.unwrap();
    store.append_to("order-1", ExpectedVersion::Any, [event(7)]).await.unwrap();
    assert_eq!(next(&mut live).await, 7);
    for user in ["me%40shop:hunter2", "me:p%40ss%3Aw%2Frd"] {
        let denied = within("an error", EventStoreDbStore::open(at(user))).await.unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::Denied, "{denied:?}");
        assert!(!format!("{denied}{denied:?}").contains("hunter2"));
    }
}
