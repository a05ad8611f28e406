//! What older shops have stored.

use annals::{EventStoreExt, ExpectedVersion, NewEvent, Store, domain::testing::check_samples};
use serde::Deserialize;
use serde_json::Value;
use shop::{
    Options,
    domain::Rejection,
    execute::Outcome,
    report::{OrderTotals, StockTotals},
    schema,
};

use crate::stores::{Fresh, Kind, histories, run};

/// A line each, with what it has become: first of a shop that counted in whole units of the
/// currency, then of one that stored the type of an event in its data, too.
const OLD: &str = include_str!("../old-events.jsonl");

#[derive(Deserialize)]
struct Old {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
}

fn lines_of(category: &str) -> String {
    let is_one = |line: &&str| line.contains(&format!(r#""stream":"{category}-"#));
    OLD.lines().filter(is_one).map(|line| format!("{line}\n")).collect()
}

async fn append(store: &dyn Store) {
    for line in OLD.lines() {
        let Old { stream, event_type, data } = serde_json::from_str(line).unwrap();
        let event = NewEvent::json(event_type, &data).unwrap();
        store.append_to(stream, ExpectedVersion::Any, [event]).await.unwrap();
    }
}

pub(crate) fn every_upcaster_makes_of_its_samples_what_they_say() {
    let orders = check_samples(&schema::orders().unwrap(), &lines_of("order"));
    let stock = check_samples(&schema::stock().unwrap(), &lines_of("stock"));
    let checked = orders.unwrap_or_else(|faults| panic!("{faults}"))
        + stock.unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(checked, OLD.lines().count());
}

pub(crate) async fn old_orders_go_on(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    append(&*fresh.store).await;
    let old = run(fresh.store.clone(), "", &Options::default()).await.unwrap();
    let stock = StockTotals { received: 20, on_hand: 10, reserved: 8, shipped: 2 };
    assert_eq!(old.model.stock["mug"], stock, "{}", fresh.url);
    let orders =
        OrderTotals { placed: 1, paid: 1, shipped: 1, cancelled: 1, revenue_cents: 1800 + 4550 };
    assert_eq!(old.model.orders, orders);

    let commands = "place o-1 mug 2 1800\ncancel o-1\npay o-2 27\npay o-2 2700\nship o-2\n\
        cancel o-3\nship o-4\nplace o-5 mug 16 100\nplace o-5 mug 15 100\nreceive d-1 mug 20";
    let one_by_one = Options { workers: 1, ..Options::default() };
    let summary = run(fresh.store.clone(), commands, &one_by_one).await.unwrap();
    assert_eq!(summary.count(Outcome::Done), 4, "{summary}");
    assert_eq!(summary.count(Outcome::AlreadyDone), 2, "{summary}");
    for rejection in [
        Rejection::Shipped,
        Rejection::WrongPayment,
        Rejection::Cancelled,
        Rejection::TooLittleStock,
    ] {
        assert_eq!(summary.count(Outcome::Rejected(rejection)), 1, "{summary}");
    }
    let stock = StockTotals { received: 20, on_hand: 0, reserved: 15, shipped: 5 };
    assert_eq!(summary.model.stock["mug"], stock);
    let histories = histories(&*fresh.store).await;
    assert_eq!(histories["order-o-2"], ["OrderPlacedV0", "OrderPaid", "OrderShipped"]);
}
