//! Servers that are stopped, or do not answer.

use std::time::Duration;

use annals_core::{
    ErrorKind, EventStore, EventStoreExt, ExpectedVersion, ReadAll, Subscribe, TryStreamExt,
};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};

use crate::tools::{Server, event, id, next, within};

fn impatient() -> EventStoreDbOptions {
    EventStoreDbOptions::default().with_retry_for(Duration::from_millis(200))
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let mut server = Server::start().await;
    let store = server.open(impatient()).await;
    store.append_to("order-1", ExpectedVersion::Any, [event(1)]).await.unwrap();
    server.gateway.kill().await;
    for _ in 0..3 {
        let lost = store.append_to("order-1", ExpectedVersion::Any, [event(2)]).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Unavailable, "{lost:?}");
        let read = store.load_stream(&id("order-1")).await.unwrap_err();
        assert_eq!(read.kind(), ErrorKind::Unavailable, "{read:?}");
    }
    server.gateway.revive(server.store.clone()).await.unwrap();
    within("an append", async {
        while store.append_to("order-1", ExpectedVersion::Any, [event(3)]).await.is_err() {}
    })
    .await;
    let all: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn the_outcome_of_an_append_that_was_never_sent_is_known() {
    let server = Server::start().await;
    let store = server.open(impatient()).await;
    store.append_to("order-1", ExpectedVersion::Any, [event(1)]).await.unwrap();
    // Ends all connections, and no new one can be made.
    drop(server);
    within("a refused connection", async {
        loop {
            let sent = store.append_to("order-1", ExpectedVersion::Any, [event(2)]).await;
            let error = sent.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            if !error.outcome_unknown() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn opening_fails_at_once_without_a_server() {
    let server = Server::start().await;
    let url = server.gateway.url();
    drop(server);
    let config = EventStoreDbConfig::from_url(&url).unwrap();
    let error = within("an error", EventStoreDbStore::open(config)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.operation(), Some("open"));
}

#[tokio::test]
async fn a_lost_answer_is_unknown_if_the_server_may_not_recognise_a_retry() {
    let server = Server::start().await;
    let store = server.open(EventStoreDbOptions::default()).await;
    server.store.lose_next_answer(server.gateway.proxy());
    let lost = store.append_to("order-1", ExpectedVersion::Any, [event(1)]).await.unwrap_err();
    assert!(lost.outcome_unknown() && lost.is_retryable(), "{lost:?}");
    assert_eq!(store.load_stream(&id("order-1")).await.unwrap().len(), 1);
    // The server recognises a retry under this expectation, so the store sends the append again.
    server.store.lose_next_answer(server.gateway.proxy());
    let two = [event(2), event(3)];
    let appended = store.append_to("order-1", ExpectedVersion::Exact(1.into()), two).await.unwrap();
    assert_eq!(appended.last_version.get(), 3);
    assert!(!appended.replayed);
    let read = store.load_stream(&id("order-1")).await.unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(read[2].position, appended.position);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_the_deadline() {
    let server = Server::start().await;
    let options = impatient().with_deadline(Duration::from_millis(300));
    let store = server.open(options).await;
    store.append_to("order-1", ExpectedVersion::Any, [event(1)]).await.unwrap();
    server.gateway.proxy().stall(true);
    let sent = store.append_to("order-1", ExpectedVersion::Any, [event(2)]);
    let lost = within("the deadline", sent).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    assert!(lost.outcome_unknown(), "{lost:?}");
    server.gateway.proxy().stall(false);
    within("an append", async {
        while store.append_to("order-1", ExpectedVersion::Any, [event(3)]).await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_subscription_waits_for_its_server() {
    let mut server = Server::start().await;
    let (store, writer) = (server.open(impatient()).await, server.open(impatient()).await);
    let mut live = store.subscribe(Subscribe::default()).await.unwrap();
    for round in 0..3 {
        server.gateway.kill().await;
        let waiting = tokio::time::timeout(Duration::from_millis(50), live.next_event()).await;
        assert!(waiting.is_err(), "an event from a stopped server, or an end: {waiting:?}");
        server.gateway.revive(server.store.clone()).await.unwrap();
        within("an append", async {
            while writer
                .append_to("order-1", ExpectedVersion::Exact(round.into()), [event(round)])
                .await
                .is_err()
            {}
        })
        .await;
        assert_eq!(next(&mut live).await, round);
    }
}
