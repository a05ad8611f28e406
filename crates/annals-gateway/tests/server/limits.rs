//! How much the gateway takes, and that it says so.

use std::{sync::Arc, time::Duration};

use annals_core::{EventStoreExt, ExpectedVersion, NewEvent};
use annals_gateway::{GatewayOptions, Security};
use annals_memory::MemoryStore;
use bytes::Bytes;
use kurrentdb::{AppendToStreamOptions, EventData, SubscribeToAllOptions};

use crate::{
    common::{PATIENCE, Served, fill, soon},
    counting::Counting,
};

async fn limited(options: GatewayOptions) -> Served {
    Served::with(Arc::new(MemoryStore::new()), options, Security::Insecure).await
}

#[tokio::test]
async fn an_append_is_as_large_as_it_may_be() {
    let served = limited(GatewayOptions::default().with_max_append_bytes(10_000)).await;
    let client = served.client();
    let append = async |sizes: &[usize]| {
        let events: Vec<_> = sizes
            .iter()
            .map(|size| EventData::binary("Blob", Bytes::from(vec![7; *size])))
            .collect();
        let options = AppendToStreamOptions::default();
        client.append_to_stream("order-1", &options, events).await
    };
    append(&[9_900]).await.unwrap();
    append(&[100; 70]).await.unwrap();
    for sizes in [&[10_001][..], &[6_000, 6_000], &[0; 1_000], &[1_000_000]] {
        let refused = append(sizes).await.unwrap_err().to_string();
        assert!(!refused.is_empty());
    }
    assert_eq!(served.store.load_stream(&"order-1".try_into().unwrap()).await.unwrap().len(), 71);
    served.stop().await;
}

#[tokio::test]
async fn so_many_subscriptions_are_open_and_no_more() {
    let served = limited(GatewayOptions::default().with_max_open(2)).await;
    fill(&served.store, "order-1", 0..1).await;
    let client = served.client();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut live = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
        soon("an event", live.next()).await.unwrap();
        open.push(live);
    }
    let mut refused = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
    let error = soon("a refusal", refused.next()).await.unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
    // One goes, another can come, as soon as the gateway has noticed.
    drop(open.pop());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut live = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
        match soon("an answer", live.next()).await {
            Ok(_) => break,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_call_takes_so_long_and_no_longer() {
    let store = Arc::new(Counting::new());
    store.appends.forget_permits(usize::MAX);
    let options = GatewayOptions::default().with_timeout(Duration::from_millis(50));
    let served = Served::with(store.clone(), options, Security::Insecure).await;
    let event = EventData::json("Counted", &1).unwrap();
    let options = AppendToStreamOptions::default();
    let append = served.client().append_to_stream("order-1", &options, event).await;
    assert!(matches!(append, Err(kurrentdb::Error::DeadlineExceeded)), "{append:?}");
    served.stop().await;
}

/// What a client does not take stays where it is, in the store.
#[tokio::test]
async fn a_client_that_stops_reading_costs_little() {
    const EVENTS: usize = 1_000;
    let store = Arc::new(Counting::new());
    let blob = vec![7; 100_000];
    for _ in 0..EVENTS / 100 {
        let events = (0..100).map(|_| NewEvent::binary("Blob", blob.clone()).unwrap());
        store.append_to("order-1", ExpectedVersion::Any, events).await.unwrap();
    }
    let served = Served::over(store.clone()).await;
    let mut live = served.client().subscribe_to_all(&SubscribeToAllOptions::default()).await;
    soon("an event", live.next()).await.unwrap();
    // It goes on as far as the windows of the connection reach, and then no further.
    let mut read = 0;
    while read != store.read() {
        read = store.read();
        for _ in 0..200 {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(read < EVENTS / 4, "{read} events of {EVENTS} were read for one that takes none");
    for _ in 1..EVENTS {
        soon("the next event", live.next()).await.unwrap();
    }
    served.stop().await;
}
