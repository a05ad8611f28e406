//! Orders that are not paid in time; by a clock that the test moves.

use std::{collections::BTreeMap, sync::Arc};

use annals::{
    RecordedEvent, Store,
    domain::{CommandHandler, Context},
};
use chrono::{DateTime, TimeDelta, Utc};
use shop::{
    AnyError, Options,
    domain::{Deadline, DeadlineCommand},
    execute::{Counters, Executor},
    fulfilment::Fulfilment,
};

use crate::{
    dropped::dropped_again_and_again,
    faulty::{Fault, Faulty},
    stores::{Fresh, Kind, events, histories, run},
};

const HOUR: TimeDelta = TimeDelta::hours(1);

/// Two orders are paid, one is cancelled, and two are waited for.
const COMMANDS: &str = "receive d1 mug 20\nreceive d2 jug 5\nplace o1 mug 4 1800\n\
    place o2 mug 6 2700\npay o2 2700\nplace o3 jug 5 500\nplace o4 mug 1 450\ncancel o4\n\
    place o5 mug 2 900\npay o5 900\nship o5";

fn fulfilment(store: Arc<dyn Store>) -> Fulfilment {
    let executor = Executor::new(store.clone(), Arc::new(Counters::default())).unwrap();
    Fulfilment::new(store, executor, HOUR).unwrap()
}

async fn round(store: Arc<dyn Store>, now: DateTime<Utc>) -> Result<(), AnyError> {
    fulfilment(store).round(now).await
}

async fn shop(kind: &Kind) -> Fresh {
    let fresh = Fresh::open(kind).await;
    let options = Options { workers: 1, ..Options::default() };
    run(fresh.store.clone(), COMMANDS, &options).await.unwrap();
    fresh
}

/// When every deadline is over, whatever the time is now.
fn late() -> DateTime<Utc> {
    Utc::now() + HOUR + HOUR
}

/// What each stream has to be in the end; the timers set in the order of their orders.
async fn check(fresh: &Fresh, what: &str) {
    let histories = histories(&*fresh.store).await;
    let is = |stream: &str, expected: &[&str]| {
        let url = &fresh.url;
        assert_eq!(histories[stream], expected, "{stream} after {what} on {url}");
    };
    for order in ["o1", "o3"] {
        is(&format!("order-{order}"), &["OrderPlaced", "OrderCancelled"]);
        is(&format!("timer-{order}"), &["PaymentDeadlineSet", "PaymentDeadlineExpired"]);
    }
    is("order-o2", &["OrderPlaced", "OrderPaid"]);
    is("order-o4", &["OrderPlaced", "OrderCancelled"]);
    is("order-o5", &["OrderPlaced", "OrderPaid", "OrderShipped"]);
    for order in ["o2", "o4", "o5"] {
        is(&format!("timer-{order}"), &["PaymentDeadlineSet", "PaymentDeadlineMet"]);
    }
    is("stock-jug", &["StockReceived", "StockReserved", "StockReleased"]);
    let released = histories["stock-mug"].iter().filter(|event| *event == "StockReleased");
    assert_eq!(released.count(), 2, "{what} on {}", fresh.url);
}

pub(crate) async fn what_is_not_paid_in_time_is_cancelled(kind: Kind) {
    let fresh = shop(&kind).await;
    let mut fulfilment = fulfilment(fresh.store.clone());
    fulfilment.round(Utc::now()).await.unwrap();
    let before = histories(&*fresh.store).await;
    assert_eq!(before["order-o1"], ["OrderPlaced"]);
    assert_eq!(before["timer-o1"], ["PaymentDeadlineSet"]);
    for _ in 0..2 {
        fulfilment.round(late()).await.unwrap();
        check(&fresh, "a round").await;
    }
    let summary = run(fresh.store.clone(), "", &Options::default()).await.unwrap();
    assert_eq!((summary.model.stock["jug"].on_hand, summary.model.orders.placed), (5, 0));
}

pub(crate) async fn every_event_says_which_one_caused_it(kind: Kind) {
    let fresh = shop(&kind).await;
    round(fresh.store.clone(), late()).await.unwrap();
    let events = events(&*fresh.store).await;
    let of = |stream: &str, event_type: &str| -> &RecordedEvent {
        let is_it = |event: &&RecordedEvent| {
            event.stream.as_str() == stream
                && event.event_type.as_str() == event_type
                && event.correlation_id().as_deref() == Some("o1")
        };
        events.iter().find(is_it).unwrap_or_else(|| panic!("{event_type} of {stream}"))
    };
    let expired = of("timer-o1", "PaymentDeadlineExpired");
    for (effect, cause) in [
        (of("timer-o1", "PaymentDeadlineSet"), of("order-o1", "OrderPlaced")),
        (expired, of("timer-o1", "PaymentDeadlineSet")),
        (of("order-o1", "OrderCancelled"), expired),
        (of("stock-mug", "StockReleased"), expired),
    ] {
        assert_eq!(effect.causation_id(), Some(cause.id.to_string()), "{}", effect.event_type);
    }
}

pub(crate) async fn what_is_paid_in_the_last_moment_stays(kind: Kind) {
    let fresh = shop(&kind).await;
    round(fresh.store.clone(), Utc::now()).await.unwrap();
    // As if it had been stopped before the order was cancelled.
    let deadlines = CommandHandler::new(fresh.store.clone(), Deadline).unwrap();
    let check = DeadlineCommand::Check { now: late() };
    deadlines.execute("o1", &check, &Context::new()).await.unwrap();
    run(fresh.store.clone(), "pay o1 1800", &Options::default()).await.unwrap();
    round(fresh.store.clone(), late()).await.unwrap();
    let histories = histories(&*fresh.store).await;
    assert_eq!(histories["order-o1"], ["OrderPlaced", "OrderPaid"], "{}", fresh.url);
    assert_eq!(histories["timer-o1"], ["PaymentDeadlineSet", "PaymentDeadlineExpired"]);
    let summary = run(fresh.store.clone(), "ship o1", &Options::default()).await.unwrap();
    assert_eq!(summary.model.stock["mug"].shipped, 6, "its stock was there");
}

pub(crate) async fn stopped_after_any_write_no_time_out_is_lost(kind: Kind) {
    let mut writes = 0;
    loop {
        let fresh = shop(&kind).await;
        let stops = Faulty::new(&fresh.store, Fault::StopsAfter(writes));
        let stopped = round(stops, late()).await;
        round(fresh.store.clone(), late()).await.unwrap();
        check(&fresh, &format!("{writes} writes")).await;
        match stopped {
            Err(error) => assert!(error.to_string().contains("stopped"), "{error}"),
            Ok(()) => break,
        }
        writes += 1;
    }
    assert!(writes > 14, "each append was the last one once");
}

pub(crate) async fn dropped_anywhere_no_time_out_is_lost(kind: Kind) {
    for seed in 1..=4 {
        let fresh = shop(&kind).await;
        let round = || round(fresh.store.clone(), late());
        dropped_again_and_again(seed, round).await.unwrap();
        check(&fresh, &format!("seed {seed}")).await;
    }
}

pub(crate) async fn several_at_once_cancel_once(kind: Kind) {
    let fresh = shop(&kind).await;
    for now in [Utc::now(), late()] {
        let rounds = [(); 3].map(|()| tokio::spawn(round(fresh.store.clone(), now)));
        for round in rounds {
            round.await.unwrap().unwrap();
        }
    }
    check(&fresh, "three at once").await;
}

/// The shop itself, with deadlines that are over at once: nothing stays unpaid.
pub(crate) async fn a_shop_without_patience(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let at_once = Options { payment_within: Some(TimeDelta::zero()), ..Options::default() };
    run(fresh.store.clone(), COMMANDS, &at_once).await.unwrap();
    let orders: BTreeMap<_, _> = histories(&*fresh.store)
        .await
        .into_iter()
        .filter(|(stream, _)| stream.starts_with("order-"))
        .collect();
    assert_eq!(orders.len(), 5);
    for (order, history) in orders {
        let is_over = |event: &String| event == "OrderPaid" || event == "OrderCancelled";
        assert_eq!(
            history.iter().filter(|event| is_over(event)).count(),
            1,
            "{order}: {history:?}"
        );
    }
}
