//! The items of an append become visible one by one: a reader waits for an item that is not visible
//! yet, and never takes a missing item for the end.

use annals_core::{
    ErrorKind, EventStore, EventStoreExt,
    ExpectedVersion::{Any, NoStream},
    ReadAll, ReadStream, RecordedEvent, Result, Subscribe, TryStreamExt,
};
use annals_dynamodb::DynamoDbStore;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use crate::{
    common::{Place, TABLE, any, id, noise, options, soon, take},
    gate::{Fate, Gate},
};

/// A stream with an append of three items between two appends of one item.
async fn with_large(order: bool) -> Place {
    let place = Place::new().await;
    let store = place.open(order).await;
    store.append(any("a-1", 1)).await.unwrap();
    let large = (2..=4).map(|n| noise("large", 210_000 + n));
    store.append_to("a-1", Any, large).await.unwrap();
    store.append(any("a-1", 5)).await.unwrap();
    place
}

async fn read(store: &DynamoDbStore, options: ReadStream) -> (Vec<u64>, Result<()>) {
    let mut events = store.read_stream(&id("a-1"), options);
    let mut versions = Vec::new();
    loop {
        match soon("a read", events.try_next()).await {
            Ok(Some(event)) => versions.push(event.version.get()),
            Ok(None) => return (versions, Ok(())),
            Err(error) => return (versions, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_missing_part_ends_a_read_with_an_error() {
    let place = with_large(false).await;
    place.remove("s:a-1", 3).await;
    let forwards = async || read(&place.open(false).await, ReadStream::default()).await;
    let backwards =
        async || read(&place.open(false).await, ReadStream::default().backwards()).await;
    let ((up, up_end), (down, down_end)) = tokio::join!(forwards(), backwards());
    assert_eq!(up_end.expect_err("the read just ends").kind(), ErrorKind::Corrupt);
    assert_eq!(down_end.expect_err("the read just ends").kind(), ErrorKind::Corrupt);
    assert_eq!((up, down), (vec![1, 2], vec![5, 4]));
}

#[tokio::test]
async fn a_missing_last_part_ends_a_read_with_an_error() {
    let place = Place::new().await;
    let store = place.open(false).await;
    let large = (1..=3).map(|n| noise("large", 210_000 + n));
    store.append_to("a-1", NoStream, large).await.unwrap();
    place.remove("s:a-1", 3).await;
    let (seen, end) = read(&place.open(false).await, ReadStream::default()).await;
    assert_eq!(
        (seen, end.expect_err("the read just ends").kind()),
        (vec![1, 2], ErrorKind::Corrupt)
    );
}

#[tokio::test]
async fn a_missing_part_ends_a_read_of_all_with_an_error() {
    let place = with_large(true).await;
    place.remove("s:a-1", 3).await;
    let store = place.open(true).await;
    let all = store.read_all(ReadAll::default()).try_collect::<Vec<RecordedEvent>>();
    assert_eq!(soon("reading all", all).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_reader_waits_for_a_part_that_comes_later() {
    for backwards in [false, true] {
        let place = with_large(false).await;
        let part = place.item("s:a-1", 3).await.unwrap();
        place.remove("s:a-1", 3).await;
        let queries = tokio::sync::watch::Sender::new(0);
        let count = queries.clone();
        let gate = Gate::new(move |operation, _| {
            count.send_modify(|count| *count += u64::from(operation == "Query"));
            Fate::Pass
        });
        let store = place.open_through(gate.http_client(), options(false)).await.unwrap();
        let mut how = ReadStream::default();
        if backwards {
            how = how.backwards();
        }
        let reading = tokio::spawn(async move { read(&store, how).await });
        let looked = async { queries.subscribe().wait_for(|count| *count >= 3).await.map(|_| ()) };
        soon("the reader looks for the item", looked).await.unwrap();
        let put = place.client().put_item().table_name(TABLE).set_item(Some(part));
        put.send().await.unwrap();
        let (mut versions, end) = reading.await.unwrap();
        end.unwrap();
        if backwards {
            versions.reverse();
        }
        assert_eq!(versions, [1, 2, 3, 4, 5], "backwards: {backwards}");
    }
}

/// A slot of the log may become visible before the items that it refers to.
#[tokio::test]
async fn a_reader_waits_for_events_that_the_log_refers_to() {
    let place = with_large(true).await;
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let gate = Gate::new(move |operation, body| {
        let asks = operation == "BatchGetItem" && body.to_string().contains("\"s:a-1\"");
        let not_yet = asks && counted.fetch_add(1, SeqCst) == 0;
        let nothing = json!({"Responses": {TABLE: []}, "UnprocessedKeys": {}});
        if not_yet { Fate::Answered(nothing) } else { Fate::Pass }
    });
    let store = place.open_through(gate.http_client(), options(true)).await.unwrap();
    let mut live = store.subscribe(Subscribe::default()).await.unwrap();
    let versions: Vec<_> = take(&mut live, 5).await.iter().map(|e| e.version.get()).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
    assert!(asked.load(SeqCst) > 1);
}

/// DynamoDB may take longer to finish a transaction than a reader looks for its items. The transactional
/// read is what tells that from a loss.
#[tokio::test]
async fn a_part_that_is_still_being_written_is_not_missing() {
    let place = with_large(true).await;
    let part = place.item("s:a-1", 3).await.unwrap();
    place.remove("s:a-1", 3).await;
    let asked = tokio::sync::watch::Sender::new(0);
    let gate = Gate::new({
        let asked = asked.clone();
        move |operation, _| {
            if operation != "TransactGetItems" {
                return Fate::Pass;
            }
            asked.send_modify(|asked| *asked += 1);
            Fate::Answered(json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "CancellationReasons": [{"Code": "TransactionConflict"}],
            }))
        }
    });
    let store = place.open_through(gate.http_client(), options(true)).await.unwrap();
    let store = Arc::new(store);
    let reads = [ReadStream::default(), ReadStream::default().backwards()].map(|how| {
        let store = store.clone();
        tokio::spawn(async move { read(&store, how).await.1 })
    });
    let mut all = store.subscribe(Subscribe::default()).await.unwrap();
    let mut one = store.subscribe(Subscribe::to(id("a-1"))).await.unwrap();
    let lives = tokio::spawn(async move { (take(&mut all, 5).await, take(&mut one, 5).await) });
    for end in reads {
        let error = soon("a read", end).await.unwrap().expect_err("the read just ends");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    soon("a subscriber asks", asked.subscribe().wait_for(|asked| *asked >= 4)).await.unwrap();
    let put = place.client().put_item().table_name(TABLE).set_item(Some(part));
    put.send().await.unwrap();
    let (all, one) = soon("the subscribers go on", lives).await.unwrap();
    assert_eq!(all, one);
}

/// The search for the version at a position ends, whichever item is missing.
#[tokio::test]
async fn a_subscription_after_a_position_finds_out_that_a_part_is_missing() {
    let place = with_large(true).await;
    let store = place.open(true).await;
    let events = store.load_stream(&id("a-1")).await.unwrap();
    place.remove("s:a-1", 3).await;
    for event in events {
        let subscribe = Subscribe::to(id("a-1")).after(event.position);
        let subscribed = soon("the search ends", store.subscribe(subscribe)).await;
        // The search may not need the missing item.
        if let Err(error) = subscribed {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}
