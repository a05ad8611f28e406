//! DynamoDB throttles the partition of a slot.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use annals_core::{ErrorKind, EventStore, Subscribe};
use annals_dynamodb::DynamoDbStore;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    common::{Place, any, everything, gapless, id, options, soon, take},
    gate::{Door, Fate, Gate},
};

/// How many transactions came with a slot of each stripe.
type Tries = Arc<Mutex<BTreeMap<String, usize>>>;

/// A store whose transactions are throttled by the stripe of their slot. The stripe of the first
/// transaction is given with each.
async fn throttled(
    place: &Place,
    is_throttled: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
) -> (DynamoDbStore, Tries) {
    let tries = Tries::default();
    let (counted, first) = (tries.clone(), Mutex::new(None));
    let gate = Gate::new(move |operation, body| {
        let Some(items) =
            body["TransactItems"].as_array().filter(|_| operation == "TransactWriteItems")
        else {
            return Fate::Pass;
        };
        let stripe = items[items.len() - 1]["Put"]["Item"]["pk"]["S"].as_str().unwrap();
        *counted.lock().unwrap().entry(stripe.to_owned()).or_default() += 1;
        let mut first = first.lock().unwrap();
        let first = first.get_or_insert_with(|| stripe.to_owned());
        if is_throttled(stripe, first) { cancelled(items.len()) } else { Fate::Pass }
    });
    let options = options(true).with_retry_for(Duration::from_millis(300));
    (place.open_through(gate.http_client(), options).await.unwrap(), tries)
}

/// The answer that throttles the last of so many writes.
fn cancelled(writes: usize) -> Fate {
    let mut reasons = vec![json!({"Code": "None"}); writes - 1];
    reasons.push(json!({"Code": "ThrottlingError", "Message": "Throughput exceeds the limit"}));
    Fate::Answered(json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons",
        "CancellationReasons": reasons,
    }))
}

/// Readers wait for a slot that is late, and close it. Its writer takes another one before that.
#[tokio::test]
async fn a_slot_in_a_throttled_partition_is_given_up() {
    let place = Place::new().await;
    let (store, tries) = throttled(&place, |stripe, first| stripe == first).await;
    let appended = soon("an append", store.append(any("a-1", 1))).await.unwrap();
    let tries: Vec<usize> = tries.lock().unwrap().values().copied().collect();
    assert_eq!((tries.iter().sum::<usize>(), tries.len()), (3, 2), "{tries:?}");
    let all = everything(&place.open(true).await).await;
    assert_eq!((all.len(), all[0].position), (1, appended.position));
}

#[tokio::test]
async fn not_every_slot_of_a_throttled_table_is_tried() {
    let place = Place::new().await;
    let (store, tries) = throttled(&place, |_, _| true).await;
    let error = soon("the end", store.append(any("a-1", 1))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Busy, false), "{error:?}");
    assert_eq!(tries.lock().unwrap().len(), 4);
    assert!(gapless(&place.open(true).await, &id("a-1")).await.is_empty());
}

/// If closing a slot takes long, the stripe is throttled, and the writer of its next slot gets longer.
#[tokio::test]
async fn later_slots_of_a_throttled_partition_are_closed_later() {
    const CLOSE_AFTER: Duration = Duration::from_millis(50);
    let place = Place::new().await;
    let stripe = || options(true).with_stripes(1).with_close_after(CLOSE_AFTER);
    let closed = Arc::new(Mutex::new(Vec::new()));
    let closing = closed.clone();
    let slow = Gate::new(move |operation, body| {
        let is_slot = |body: &Value| body["Item"]["pk"]["S"] == "l:0";
        if operation == "PutItem" && is_slot(body) {
            closing.lock().unwrap().push(Instant::now());
            return Fate::Late(CLOSE_AFTER + Duration::from_millis(10));
        }
        Fate::Pass
    });
    let other = place.open_with(stripe()).await.unwrap();
    let reader = place.open_through(slow.http_client(), stripe()).await.unwrap();
    let mut live = reader.subscribe(Subscribe::default()).await.unwrap();
    for round in 0..2 {
        let door = Door::default();
        let waits = door.clone();
        let hesitant = Gate::new(move |operation, _| match operation {
            "TransactWriteItems" if !waits.is_open() => Fate::Wait(waits.clone()),
            _ => Fate::Pass,
        });
        let options = stripe().with_request_timeout(Duration::from_secs(60));
        let late = place.open_through(hesitant.http_client(), options).await.unwrap();
        let late = tokio::spawn(async move { late.append(any("late-1", 1)).await });
        soon("a slot is allocated", door.reached_by(1)).await;
        let before = Instant::now();
        other.append(any("a-1", round)).await.unwrap();
        take(&mut live, 1).await;
        let closed = closed.lock().unwrap().last().copied().unwrap();
        let least = if round == 0 { CLOSE_AFTER } else { 2 * CLOSE_AFTER };
        assert!(closed - before >= least, "round {round}: after {:?}", closed - before);
        door.open();
        soon("the late append", late).await.unwrap().unwrap();
        take(&mut live, 1).await;
    }
    assert_eq!(closed.lock().unwrap().len(), 2);
}
