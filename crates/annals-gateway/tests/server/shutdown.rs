//! What happens to open calls when the gateway stops.

use std::sync::Arc;

use annals_core::EventStoreExt;
use kurrentdb::{AppendToStreamOptions, EventData, SubscribeToAllOptions};

use crate::{
    common::{Served, fill, soon},
    counting::Counting,
};

#[tokio::test]
async fn subscriptions_end_and_running_appends_finish() {
    let store = Arc::new(Counting::new());
    let served = Served::over(store.clone()).await;
    fill(&served.store, "order-1", 0..1).await;
    store.arrived.forget_permits(1);
    let mut live = served.client().subscribe_to_all(&SubscribeToAllOptions::default()).await;
    soon("an event", live.next()).await.unwrap();
    // No append may go on until the gateway was told to stop.
    store.appends.forget_permits(usize::MAX);
    let client = served.client();
    let append = tokio::spawn(async move {
        let event = EventData::json("Counted", &2).unwrap();
        client.append_to_stream("order-1", &AppendToStreamOptions::default(), event).await
    });
    soon("the append", store.arrived.acquire()).await.unwrap().forget();
    let stop = tokio::spawn(served.stop());
    let ended = soon("the end of the subscription", live.next()).await.unwrap_err();
    assert!(ended.to_string().contains("the server stops"), "{ended}");
    store.appends.add_permits(1);
    let written = soon("the append", append).await.unwrap().unwrap();
    assert_eq!(written.next_expected_version, 1);
    stop.await.unwrap();
    assert_eq!(store.load_stream(&"order-1".try_into().unwrap()).await.unwrap().len(), 2);
}
