//! One kind of fault at a time: what a caller gets, and what was written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, ErrorKind, EventStore,
    ExpectedVersion::{Any, Exact, NoStream},
    Result, Subscribe,
};
use annals_dynamodb::{DynamoDbStore, aws_sdk_dynamodb::Client};
use annals_test_servers::dynamodb::{Fault, Faults, Rates};
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use serde_json::json;

use crate::{
    common::{Place, TABLE, any, event, everything, gapless, id, options, soon, take},
    gate::{Fate, Gate},
};

const RETRY_FOR: Duration = Duration::from_millis(200);
/// The operation that writes the events, with an order and without.
const WRITES: [(bool, &str); 2] = [(true, "TransactWriteItems"), (false, "PutItem")];

/// A store with a fault in the first `times` requests of one operation.
async fn faulty(
    place: &Place,
    order: bool,
    operation: &'static str,
    fault: Fault,
    times: u64,
) -> (DynamoDbStore, Faults) {
    // Opening the store has no faults.
    place.open(order).await;
    let faults = Faults::new(0, Rates::none());
    let (rates, left) = (faults.clone(), AtomicU64::new(times));
    let gate = Gate::new(move |found, _| {
        let take = |left: u64| left.checked_sub(1);
        let harmed = found == operation && left.fetch_update(SeqCst, SeqCst, take).is_ok();
        rates.set_rates(if harmed { Rates::none().with(fault, 1.0) } else { Rates::none() });
        Fate::Pass
    });
    let options = options(order).with_retry_for(RETRY_FOR);
    let http = gate.around(faults.http_client());
    (place.open_through(http, options).await.unwrap(), faults)
}

fn first(stream: &str) -> Append {
    Append::new(id(stream), NoStream, [event(1)])
}

#[tokio::test]
async fn throttling_for_ever_is_busy() {
    for (order, operation) in WRITES {
        let place = Place::new().await;
        let (store, _) = faulty(&place, order, operation, Fault::Throttled, u64::MAX).await;
        let began = tokio::time::Instant::now();
        let error = soon("the end", store.append(first("a-1"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        assert!(error.is_retryable() && !error.outcome_unknown(), "{error:?}");
        let took = began.elapsed();
        assert!(took >= RETRY_FOR && took < RETRY_FOR + Duration::from_secs(3), "{took:?}");
        assert!(gapless(&place.open(order).await, &id("a-1")).await.is_empty());
    }
}

#[tokio::test]
async fn conflicts_for_ever_are_busy() {
    for (order, operation) in WRITES {
        let place = Place::new().await;
        let (store, _) = faulty(&place, order, operation, Fault::Conflict, u64::MAX).await;
        let error = soon("the end", store.append(first("a-1"))).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Busy, false), "{error:?}");
    }
}

#[tokio::test]
async fn lost_requests_and_answers_have_an_unknown_outcome() {
    for fault in [Fault::ErrorBefore, Fault::LostRequest, Fault::ErrorAfter, Fault::LostAnswer] {
        for (order, operation) in WRITES {
            let place = Place::new().await;
            let (store, _) = faulty(&place, order, operation, fault, u64::MAX).await;
            let error = soon("the end", store.append(first("a-1"))).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault}: {error:?}");
            assert!(error.is_retryable() && error.outcome_unknown(), "{fault}: {error:?}");
            let healthy = place.open(order).await;
            let again = Append::new(id("a-1"), Any, [event(2)]);
            soon("another append", healthy.append(again)).await.unwrap();
            if order {
                everything(&healthy).await;
            }
        }
    }
}

#[tokio::test]
async fn without_a_slot_number_nothing_is_written() {
    for fault in [Fault::LostRequest, Fault::LostAnswer] {
        let place = Place::new().await;
        let (store, _) = faulty(&place, true, "UpdateItem", fault, u64::MAX).await;
        let error = soon("the end", store.append(first("a-1"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.outcome_unknown(), "{error:?}");
        let healthy = place.open(true).await;
        healthy.append(first("b-1")).await.unwrap();
        assert_eq!(everything(&healthy).await.len(), 1);
    }
}

#[tokio::test]
async fn a_passing_fault_is_not_noticed() {
    let faults = [
        Fault::Throttled,
        Fault::Conflict,
        Fault::ErrorBefore,
        Fault::LostRequest,
        Fault::ErrorAfter,
        Fault::LostAnswer,
    ];
    for fault in faults {
        for (order, operation) in WRITES {
            let place = Place::new().await;
            let (store, faults) = faulty(&place, order, operation, fault, 2).await;
            let appended = soon("an append", store.append(first("a-1"))).await;
            let appended = appended.unwrap_or_else(|error| panic!("{fault} {order}: {error:?}"));
            assert!(!appended.replayed, "{fault}");
            assert_eq!(faults.counts()[fault.name()], 2);
            assert_eq!(appended.last_version.get(), 1);
            let next = Append::new(id("a-1"), Exact(1.into()), [event(2)]);
            store.append(next).await.unwrap();
            let healthy = place.open(order).await;
            assert_eq!(gapless(&healthy, &id("a-1")).await.len(), 2);
            if order {
                let all = everything(&healthy).await;
                assert_eq!(all[0].position, appended.position, "{fault}");
                let mut live = store.subscribe(Subscribe::default()).await.unwrap();
                assert_eq!(take(&mut live, 2).await, all);
            }
        }
    }
}

/// A server that ignores the token of a transaction executes its second try, too.
#[tokio::test]
async fn a_written_transaction_is_recognised_without_its_token() {
    for order in [true, false] {
        let place = Place::new().await;
        place.open(order).await;
        let tries = Arc::new(AtomicU64::new(0));
        let counted = tries.clone();
        let gate = Gate::new(move |operation, body| {
            if operation != "TransactWriteItems" {
                return Fate::Pass;
            }
            let mut body = body.clone();
            match counted.fetch_add(1, SeqCst) {
                0 => Fate::Unanswered,
                tries => {
                    body["ClientRequestToken"] = format!("another token {tries}").into();
                    Fate::Changed(body)
                }
            }
        });
        let store = place.open_through(gate.http_client(), options(order)).await.unwrap();
        let to = |stream| Append::new(id(stream), NoStream, [event(1), event(2)]);
        let answers = store.append_multi(vec![to("a-1"), to("b-1")]).await.unwrap();
        assert!(answers.iter().all(|answer| !answer.replayed && answer.last_version.get() == 2));
        assert_eq!(tries.load(SeqCst), 2);
        let healthy = place.open(order).await;
        for (stream, answer) in ["a-1", "b-1"].into_iter().zip(&answers) {
            let events = gapless(&healthy, &id(stream)).await;
            assert_eq!((events.len(), events[1].position), (2, answer.position));
        }
        if order {
            assert_eq!(everything(&healthy).await.len(), 4);
        }
    }
}

/// The store takes an item for its own only if it is the very item that it was to write.
#[tokio::test]
async fn an_append_of_another_store_is_not_taken_for_ours() {
    for order in [true, false] {
        let place = Place::new().await;
        let (store, other) = (place.open(order).await, place.open(order).await);
        store.append(any("a-1", 1)).await.unwrap();
        // The other store has the same payload at the same version.
        other.append(Append::new(id("a-1"), Exact(1.into()), [event(2)])).await.unwrap();
        let stale = Append::new(id("a-1"), Exact(1.into()), [event(2)]);
        let error = store.append(stale).await.unwrap_err();
        let conflict = error.conflict().unwrap();
        assert_eq!((error.kind(), conflict.actual.get()), (ErrorKind::Conflict, 2));
        assert_eq!(conflict.expected, Exact(1.into()));
        other.append(any("a-1", 3)).await.unwrap();
        let appended = store.append(any("a-1", 4)).await.unwrap();
        assert_eq!((appended.last_version.get(), appended.replayed), (4, false));
        assert_eq!(gapless(&other, &id("a-1")).await.len(), 4);
        if order {
            everything(&other).await;
        }
    }
}

/// Not every server returns the item for which a condition did not hold.
#[tokio::test]
async fn a_server_that_does_not_tell_what_it_found_is_asked() {
    for order in [true, false] {
        let place = Place::new().await;
        let other = place.open(order).await;
        let gate = Gate::new(|operation, body| {
            let mut body = body.clone();
            match operation {
                "PutItem" => body["ReturnValuesOnConditionCheckFailure"] = json!("NONE"),
                "TransactWriteItems" => {
                    for item in body["TransactItems"].as_array_mut().unwrap() {
                        item["Put"]["ReturnValuesOnConditionCheckFailure"] = json!("NONE");
                    }
                }
                _ => return Fate::Pass,
            }
            Fate::Changed(body)
        });
        let store = place.open_through(gate.http_client(), options(order)).await.unwrap();
        store.append(any("a-1", 1)).await.unwrap();
        other.append(any("a-1", 2)).await.unwrap();
        let stale = Append::new(id("a-1"), Exact(1.into()), [event(3)]);
        let error = store.append(stale).await.unwrap_err();
        assert_eq!(error.conflict().unwrap().actual.get(), 2);
    }
}

/// Gives out credentials after some failures.
#[derive(Debug)]
struct Credentials {
    failures_left: AtomicU64,
    failure: fn() -> CredentialsError,
}

impl ProvideCredentials for Credentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let take = |left: u64| left.checked_sub(1);
        future::ProvideCredentials::ready(
            match self.failures_left.fetch_update(SeqCst, SeqCst, take) {
                Ok(_) => Err((self.failure)()),
                Err(_) => Ok(aws_credential_types::Credentials::for_tests()),
            },
        )
    }
}

async fn with_credentials(
    place: &Place,
    failures: u64,
    failure: fn() -> CredentialsError,
) -> Result<DynamoDbStore> {
    let credentials = Credentials { failures_left: failures.into(), failure };
    let config = place.server.config().to_builder().credentials_provider(credentials).build();
    let options = options(true).with_retry_for(RETRY_FOR);
    DynamoDbStore::with_client(&Client::from_conf(config), TABLE, options).await
}

#[tokio::test]
async fn a_service_for_credentials_that_is_away_is_waited_for() {
    let place = Place::new().await;
    place.open(true).await;
    let away = || CredentialsError::provider_error("the metadata service answered 503");
    let store = with_credentials(&place, 2, away).await.unwrap();
    store.append(any("a-1", 1)).await.unwrap();
    let error = with_credentials(&place, u64::MAX, away).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn without_any_credentials_nothing_is_tried_again() {
    let place = Place::new().await;
    place.open(true).await;
    let none = || CredentialsError::not_loaded("no provider has any");
    let error = with_credentials(&place, 1, none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
}
