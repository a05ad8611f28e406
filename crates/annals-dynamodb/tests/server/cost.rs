//! What requests cost, to the unit.

use annals_core::{
    Append, EventStore, EventStoreExt,
    ExpectedVersion::{Any, Exact, NoStream},
    NewEvent, ReadAll, Subscribe, TryStreamExt,
};
use annals_dynamodb::DynamoDbStore;
use annals_test_servers::dynamodb::{Meter, Usage};

use crate::common::{Place, any, event, id, options, settled, soon, take};

async fn metered(place: &Place, order: bool) -> (DynamoDbStore, Meter) {
    let meter = Meter::new();
    let store = place.open_through(meter.http_client(), options(order)).await.unwrap();
    meter.take();
    (store, meter)
}

#[track_caller]
fn assert_cost(usage: &Usage, requests: u64, write_units: f64, read_units: f64) {
    let found = (usage.requests, usage.write_units, usage.read_units);
    assert_eq!(found, (requests, write_units, read_units), "{usage:?}");
}

#[tokio::test]
async fn an_append_without_order_is_one_request_and_one_unit() {
    let place = Place::new().await;
    let (store, meter) = metered(&place, false).await;
    store.append(Append::new(id("a-1"), NoStream, [event(1)])).await.unwrap();
    assert_cost(&meter.take(), 1, 1.0, 0.0);
    store.append(Append::new(id("a-1"), Exact(1.into()), [event(2)])).await.unwrap();
    assert_cost(&meter.take(), 1, 1.0, 0.0);
    store.append(any("a-1", 3)).await.unwrap();
    assert_cost(&meter.take(), 1, 1.0, 0.0);
    // A store that has only read the stream knows its version, too.
    let (reader, meter) = metered(&place, false).await;
    assert_eq!(reader.load_stream(&id("a-1")).await.unwrap().len(), 3);
    meter.take();
    reader.append(Append::new(id("a-1"), Exact(3.into()), [event(4)])).await.unwrap();
    assert_cost(&meter.take(), 1, 1.0, 0.0);
    // A store that has not read the stream must read its end.
    let (stranger, meter) = metered(&place, false).await;
    stranger.append(any("a-1", 5)).await.unwrap();
    let usage = meter.take();
    assert!(usage.requests <= 2 && usage.read_units <= 1.0, "{usage:?}");
    assert_eq!(usage.write_units, 1.0);
}

fn order_line(number: u64) -> NewEvent {
    let line = serde_json::json!({
        "order": "7d4f1c52", "line": number, "product": "a book that is read again and again",
        "quantity": 1, "price": {"amount": "19.90", "currency": "EUR"}, "warehouse": "north",
    });
    NewEvent::json("LineAdded", &line).unwrap()
}

#[tokio::test]
async fn ten_events_that_resemble_each_other_are_one_unit() {
    let place = Place::new().await;
    let (store, meter) = metered(&place, false).await;
    let append = Append::new(id("a-1"), NoStream, (0..10).map(order_line));
    assert!(append.events.iter().map(NewEvent::size).sum::<usize>() > 1_500);
    store.append(append).await.unwrap();
    assert_cost(&meter.take(), 1, 1.0, 0.0);
}

#[tokio::test]
async fn an_append_with_order_is_two_requests_and_five_units() {
    let place = Place::new().await;
    let (store, meter) = metered(&place, true).await;
    store.append(Append::new(id("a-1"), NoStream, [event(1)])).await.unwrap();
    assert_cost(&meter.take(), 2, 5.0, 0.0);
    store.append(Append::new(id("a-1"), Exact(1.into()), [event(2)])).await.unwrap();
    assert_cost(&meter.take(), 2, 5.0, 0.0);
    store.append(any("a-1", 3)).await.unwrap();
    assert_cost(&meter.take(), 2, 5.0, 0.0);
}

/// Reads cost little more than the units for the bytes of the events.
async fn reading(order: bool) {
    const EVENTS: u64 = 1_000;
    let place = Place::new().await;
    let (store, meter) = metered(&place, order).await;
    let payload = |n: u64| {
        let mut rng = fastrand::Rng::with_seed(n);
        std::iter::repeat_with(|| rng.u8(..)).take(200).collect::<Vec<_>>()
    };
    let mut bytes = 0;
    for n in 0..EVENTS {
        let event = NewEvent::binary("Measured", payload(n)).unwrap();
        bytes += event.size() + 16 + event.event_type().as_str().len() + 8;
        store.append(Append::new(id("a-1"), Exact(n.into()), [event])).await.unwrap();
    }
    meter.take();
    let least = bytes.div_ceil(4_096) as f64;
    let (reader, meter) = metered(&place, order).await;
    assert_eq!(reader.load_stream(&id("a-1")).await.unwrap().len() as u64, EVENTS);
    let usage = meter.take();
    let ratio = usage.read_units / least;
    eprintln!("order {order}: {} units, {ratio:.3} of {least}", usage.read_units);
    assert!(ratio <= 1.2, "{ratio}: {usage:?}");
    if order {
        let all = reader.read_all(ReadAll::default()).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(all.len() as u64, EVENTS);
        let usage = meter.take();
        eprintln!("all: {} units, {:.3} of {least}", usage.read_units, usage.read_units / least);
        assert!(usage.read_units / least <= 1.5, "{usage:?}");
    }
}

#[tokio::test]
async fn reading_costs_what_the_events_weigh() {
    reading(true).await;
}

#[tokio::test]
async fn reading_costs_what_the_events_weigh_without_order() {
    reading(false).await;
}

/// A subscription that catches up pays half of what a read of all pays.
#[tokio::test]
async fn catching_up_is_paid_by_half() {
    const EVENTS: usize = 600;
    let place = Place::new().await;
    settled(&place, EVENTS).await;
    let (reader, meter) = metered(&place, true).await;
    let all: Vec<_> = reader.read_all(ReadAll::default()).try_collect().await.unwrap();
    let read = meter.take().read_units;
    let (subscriber, meter) = metered(&place, true).await;
    let mut live = subscriber.subscribe(Subscribe::default()).await.unwrap();
    assert_eq!(take(&mut live, EVENTS).await, all);
    let caught_up = meter.take().read_units;
    assert!(caught_up <= 0.6 * read, "{caught_up} of {read} units");
}

#[tokio::test]
async fn the_last_position_is_two_requests() {
    let place = Place::new().await;
    for n in 0..5 {
        place.open(true).await.append(any("a-1", n)).await.unwrap();
        let (store, meter) = metered(&place, true).await;
        store.last_position().await.unwrap();
        let usage = meter.take();
        assert_eq!(usage.requests, 2, "{usage:?}");
        store.last_position().await.unwrap();
        let usage = meter.take();
        assert_eq!(usage.requests, 2, "{usage:?}");
    }
}

#[tokio::test]
async fn any_version_is_found_out_once() {
    let place = Place::new().await;
    place.open(false).await.append(any("a-1", 1)).await.unwrap();
    let (store, meter) = metered(&place, false).await;
    store.append(Append::new(id("a-1"), Any, [event(2)])).await.unwrap();
    meter.take();
    store.append(Append::new(id("a-1"), Any, [event(3)])).await.unwrap();
    assert_cost(&meter.take(), 1, 1.0, 0.0);
}

/// What a writer reads in the background, so that no reader has to settle more at once.
#[tokio::test]
async fn settling_costs_little() {
    const APPENDS: u64 = 1_024;
    let place = Place::new().await;
    let (store, meter) = metered(&place, true).await;
    for version in 0..APPENDS {
        let append = Append::new(id("a-1"), Exact(version.into()), [event(version)]);
        store.append(append).await.unwrap();
    }
    soon("the log is settled", async {
        while place.item("settled", 0).await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let usage = meter.take();
    let read = usage.read_units / APPENDS as f64;
    eprintln!("{read:.4} read units an append");
    assert!(read > 0.0 && read <= 0.02, "{usage:?}");
}
