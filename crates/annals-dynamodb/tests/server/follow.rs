//! Subscribers get the events that other stores append, whatever happens to requests and to other
//! subscribers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{Append, EventStore, ExpectedVersion::Any, Message, Subscribe, TryStreamExt};
use annals_dynamodb::aws_sdk_dynamodb::types::AttributeValue::N;
use annals_test_servers::dynamodb::plain_http;
use futures::{FutureExt, future::join_all};
use serde_json::json;

use crate::{
    common::{Place, any, id, noise, options, settled, soon, subscriptions, take},
    gate::{Door, Fate, Gate},
};

/// A subscriber looks at an empty slot more often than a slow server answers a poll.
#[tokio::test]
async fn a_slot_that_stays_empty_does_not_blind_a_subscriber() {
    let place = Place::new().await;
    let other = place.open(true).await;
    other.append(any("a-1", 1)).await.unwrap();
    let empty = Door::default();
    empty.open();
    let asks = empty.clone();
    let slow = Gate::new(move |operation, body| match operation {
        "GetItem" if body["Key"]["pk"]["S"] == "counter" => Fate::Late(Duration::from_millis(150)),
        "BatchGetItem" if body.to_string().contains("\"l:2\"") => Fate::Wait(asks.clone()),
        _ => Fate::Pass,
    });
    let subscriber = place.open_through(slow.http_client(), options(true)).await.unwrap();
    let mut live = subscriber.subscribe(Subscribe::default()).await.unwrap();
    take(&mut live, 1).await;
    place.set("counter", 0, "n", N("2".to_owned())).await;
    // Wait until the subscriber has read that slot several times.
    let asked = empty.reached_by(3);
    tokio::select! {
        () = soon("the subscriber reads the slot", asked) => {}
        event = live.next_event() => panic!("{event:?}"),
    }
    other.append(any("a-1", 2)).await.unwrap();
    assert_eq!(take(&mut live, 1).await[0].version.get(), 2);
}

/// What an eventually consistent read leaves out is read again.
#[tokio::test]
async fn old_answers_hide_no_event() {
    const EVENTS: usize = 300;
    let place = Place::new().await;
    settled(&place, EVENTS).await;
    let old = Arc::new(AtomicU64::new(0));
    let answers = old.clone();
    let gate = Gate::new(move |operation, body| {
        if operation != "Query" || body["ConsistentRead"] != false {
            return Fate::Pass;
        }
        answers.fetch_add(1, SeqCst);
        Fate::Answered(json!({"Items": [], "Count": 0, "ScannedCount": 0}))
    });
    let subscriber = place.open_through(gate.http_client(), options(true)).await.unwrap();
    let mut live = subscriber.subscribe(Subscribe::default()).await.unwrap();
    take(&mut live, EVENTS).await;
    assert!(old.load(SeqCst) > 0);
}

/// The subscribers of a process ask once for a slot whose writer has died, not each by itself.
#[tokio::test]
async fn subscribers_that_wait_for_the_same_slot_share_a_question() {
    const SUBSCRIBERS: usize = 20;
    let place = Place::new().await;
    let other = place.open(true).await;
    other.append(any("a-1", 1)).await.unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let asks = asked.clone();
    let counting = Gate::new(move |operation, body| {
        if operation == "GetItem" && body["Key"]["pk"]["S"] == "l:2" {
            asks.fetch_add(1, SeqCst);
        }
        Fate::Pass
    });
    let store = place.open_through(counting.http_client(), options(true)).await.unwrap();
    let mut subscriptions = subscriptions(&store, SUBSCRIBERS).await;
    place.set("counter", 0, "n", N("2".to_owned())).await;
    other.append(any("a-1", 2)).await.unwrap();
    for events in join_all(subscriptions.iter_mut().map(|live| take(live, 1))).await {
        assert_eq!(events[0].version.get(), 2);
    }
    let asked = asked.load(SeqCst);
    assert!(asked <= 2, "{SUBSCRIBERS} subscribers asked {asked} times");
}

/// The subscribers of a process read what is new once, not each by itself.
#[tokio::test]
async fn subscribers_read_the_end_of_the_log_together() {
    const SUBSCRIBERS: usize = 50;
    const EVENTS: u64 = 20;
    let place = Place::new().await;
    let other = place.open(true).await;
    other.append(any("a-1", 0)).await.unwrap();
    let read = Arc::new(AtomicU64::new(0));
    let reads = read.clone();
    let counting = Gate::new(move |operation, _| {
        reads.fetch_add(u64::from(["BatchGetItem", "Query"].contains(&operation)), SeqCst);
        Fate::Pass
    });
    let store = place.open_through(counting.http_client(), options(true)).await.unwrap();
    let mut subscriptions = subscriptions(&store, SUBSCRIBERS).await;
    read.store(0, SeqCst);
    for n in 1..=EVENTS {
        other.append(any("a-1", n)).await.unwrap();
        for events in join_all(subscriptions.iter_mut().map(|live| take(live, 1))).await {
            assert_eq!(events[0].version.get(), n + 1);
        }
    }
    let read = read.load(SeqCst);
    assert!(read <= 4 * EVENTS, "{SUBSCRIBERS} subscribers read {read} times for {EVENTS} events");
}

#[tokio::test]
async fn a_subscriber_that_is_not_polled_does_not_stop_others_from_polling() {
    let place = Place::new().await;
    let (store, other) = (place.open(true).await, place.open(true).await);
    let caught_up = async || {
        let mut live = store.subscribe(Subscribe::default()).await.unwrap();
        let message = soon("the subscriber has caught up", live.try_next()).await.unwrap();
        assert!(matches!(message, Some(Message::CaughtUp(_))), "{message:?}");
        live
    };
    let mut idle = caught_up().await;
    assert!(idle.next_event().now_or_never().is_none());
    let mut live = caught_up().await;
    other.append(any("a-1", 1)).await.unwrap();
    take(&mut live, 1).await;
    take(&mut idle, 1).await;
}

/// Events that only the items have are fetched after the log was read. If that fails for longer
/// than requests are tried, the log has been read past these events.
#[tokio::test]
async fn a_page_whose_events_could_not_be_fetched_is_given_whole() {
    let place = Place::new().await;
    let other = place.open(true).await;
    for n in 0..3 {
        let events = [noise(&format!("large {n}"), 2_000)];
        other.append(Append::new(id(&format!("a-{n}")), Any, events)).await.unwrap();
    }
    let failures = Arc::new(AtomicU64::new(0));
    let count = failures.clone();
    let gate = Gate::new(move |operation, body| {
        let fetches = operation == "BatchGetItem" && body.to_string().contains("\"s:a-");
        if !fetches || count.fetch_add(1, SeqCst) >= 10 {
            return Fate::Pass;
        }
        let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
        Fate::Answered(json!({ "__type": kind, "message": "slower" }))
    });
    let options = options(true).with_retry_for(Duration::from_millis(20));
    let store = place.open_through(gate.around(plain_http()), options).await.unwrap();
    let mut live = store.subscribe(Subscribe::default()).await.unwrap();
    let seen = take(&mut live, 3).await;
    let seen: Vec<_> = seen.iter().map(|event| event.stream.as_str()).collect();
    assert_eq!(seen, ["a-0", "a-1", "a-2"]);
    assert!(failures.load(SeqCst) > 10);
}
