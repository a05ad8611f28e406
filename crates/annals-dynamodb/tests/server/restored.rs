//! Tables after a restore: DynamoDB copies items into a backup one by one, so that the counter of the
//! log can be older than the log.

use std::collections::BTreeSet;

use annals_core::{Append, EventStore, EventStoreExt, ExpectedVersion::Exact};
use annals_dynamodb::{DynamoDbConfig, DynamoDbStore, aws_sdk_dynamodb::types::AttributeValue::N};
use annals_test_servers::dynamodb::Meter;

use crate::common::{Place, TABLE, any, event, everything, id, options};

const STREAMS: u64 = 40;

/// A store with an append to each of 40 streams, so that the log has 40 slots.
async fn written() -> (Place, DynamoDbStore) {
    let place = Place::new().await;
    let store = place.open(true).await;
    for n in 0..STREAMS {
        store.append(any(&format!("a-{n}"), n)).await.unwrap();
    }
    (place, store)
}

/// Sets the counter back, as an older copy of its item would.
async fn set_back(place: &Place, to: u64) {
    place.set("counter", 0, "n", N(to.to_string())).await;
}

async fn count(store: &DynamoDbStore) -> usize {
    let events = everything(store).await;
    let distinct: BTreeSet<_> = events.iter().map(|event| event.position).collect();
    assert_eq!(distinct.len(), events.len(), "two events have one position");
    events.len()
}

#[tokio::test]
async fn opening_raises_a_counter_that_is_behind() {
    let (place, _) = written().await;
    set_back(&place, 3).await;
    let config = DynamoDbConfig::from_url(&place.server.url(TABLE)).unwrap();
    let behind = DynamoDbStore::inspect(config.clone()).await.unwrap().counter_behind;
    assert_eq!(behind, STREAMS - 3);
    let store = place.open(true).await;
    assert_eq!(DynamoDbStore::inspect(config).await.unwrap().counter_behind, 0);
    assert_eq!(count(&store).await, 40);
    store.append(any("new-1", 1)).await.unwrap();
    assert_eq!(count(&store).await, 41);
}

#[tokio::test]
async fn an_append_raises_a_counter_that_is_behind_in_a_few_requests() {
    let (place, _) = written().await;
    let meter = Meter::new();
    let store = place.open_through(meter.http_client(), options(true)).await.unwrap();
    set_back(&place, 3).await;
    meter.take();
    store.append(any("new-1", 1)).await.unwrap();
    let usage = meter.take();
    // The end of the stream, two that find a used slot, the counter and its 8 stripes, the raise, and
    // two that write.
    assert!(usage.requests <= 15, "{usage:?}");
    assert_eq!(count(&store).await, 41);
}

#[tokio::test]
async fn an_append_after_an_event_beyond_the_counter_raises_it() {
    let (place, _) = written().await;
    let meter = Meter::new();
    let store = place.open_through(meter.http_client(), options(true)).await.unwrap();
    set_back(&place, 3).await;
    // The last slot is lost as well, so that only the stream tells of it.
    let stripe = format!("l:{}", STREAMS % 8);
    place.remove(&stripe, STREAMS.try_into().unwrap()).await;
    let stream = id(&format!("a-{}", STREAMS - 1));
    let append = Append::new(stream.clone(), Exact(1.into()), [event(2)]);
    meter.take();
    let appended = store.append(append).await.unwrap();
    let usage = meter.take();
    assert!(usage.requests <= 15, "{usage:?}");
    assert!(appended.position.get() / 1024 > STREAMS, "{appended:?} is not beyond all slots");
    let fresh = place.open(true).await;
    assert_eq!(crate::common::read_all(&fresh).await.len(), 40);
}

/// A process that settled the log once goes on from what others have settled since.
#[tokio::test]
async fn the_end_of_the_log_is_found_from_where_others_have_settled() {
    let (place, other) = written().await;
    let meter = Meter::new();
    let store = place.open_through(meter.http_client(), options(true)).await.unwrap();
    store.last_position().await.unwrap();
    for n in 0..300 {
        other.append(any("b-1", n)).await.unwrap();
    }
    let end = other.last_position().await.unwrap();
    meter.take();
    assert_eq!(store.last_position().await.unwrap(), end);
    let usage = meter.take();
    // The counter, what is settled, and what is after it in each of the 8 stripes.
    assert!(usage.requests <= 10 && usage.read_units <= 10.0, "{usage:?}");
}
