//! Whole runs: what comes out of them, whatever the order in which things happen.

use std::{collections::BTreeMap, fmt::Write, sync::atomic::Ordering::Relaxed};

use annals::Store;
use shop::{COMMANDS, Options, domain::Rejection, execute::Outcome, report::Model};

use crate::stores::{Fresh, Kind, commands_for, events, run};

/// Keeps the books a second time, from the bare JSON, and checks what must always hold.
pub(crate) async fn check(store: &dyn Store, model: &Model) {
    #[derive(Default)]
    struct Books {
        received: i64,
        reserved: i64,
        shipped: i64,
    }
    #[derive(Default)]
    struct OrderBooks {
        cents: i64,
        paid: bool,
        cancelled: bool,
    }
    let mut skus = BTreeMap::<String, Books>::new();
    let mut orders = BTreeMap::<String, OrderBooks>::new();
    for event in events(store).await {
        let data: serde_json::Value = event.json().unwrap();
        let quantity = data["quantity"].as_i64().unwrap_or(0);
        let (_, name) = event.stream.as_str().split_once('-').unwrap();
        let sku = skus.entry(name.to_owned());
        let order = orders.entry(name.to_owned());
        match event.event_type.as_str() {
            "StockReceived" => sku.or_default().received += quantity,
            "StockReserved" => sku.or_default().reserved += quantity,
            "StockReleased" => sku.or_default().reserved -= quantity,
            "StockShipped" => {
                let sku = sku.or_default();
                sku.reserved -= quantity;
                sku.shipped += quantity;
            }
            "OrderPlaced" => order.or_default().cents = data["cents"].as_i64().unwrap(),
            "OrderPaid" => order.or_default().paid = true,
            "OrderCancelled" => order.or_default().cancelled = true,
            "OrderShipped" => {}
            timer if timer.starts_with("PaymentDeadline") => {}
            other => panic!("{other}"),
        }
        if let Some(books) = skus.get(name) {
            let sold = books.reserved + books.shipped;
            assert!(books.reserved >= 0 && sold <= books.received, "{name} at {}", event.position);
        }
    }
    assert_eq!(model.stock.len(), skus.len());
    for (sku, books) in skus {
        let totals = &model.stock[&sku];
        assert_eq!(totals.received, totals.on_hand + totals.reserved + totals.shipped, "{sku}");
        let kept = (totals.received, totals.reserved, totals.shipped);
        assert_eq!(kept, (books.received, books.reserved, books.shipped), "{sku}");
    }
    let paid = orders.values().filter(|order| order.paid && !order.cancelled);
    assert_eq!(model.orders.revenue_cents, paid.map(|order| order.cents).sum::<i64>());
    let totals = &model.orders;
    let states = totals.placed + totals.paid + totals.shipped + totals.cancelled;
    assert_eq!(states, orders.len() as i64);
}

pub(crate) async fn run_twice_it_goes_on_where_it_was(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let (options, commands) = (Options::default(), commands_for(&kind));
    let first = run(fresh.store.clone(), &commands, &options).await.unwrap();
    assert_eq!(first.bad_lines, []);
    let written = if commands.lines().eq(COMMANDS.lines()) {
        assert_eq!(first.commands(), 4_969);
        assert_eq!(first.count(Outcome::Rejected(Rejection::TooLittleStock)), 37);
        7_780
    } else {
        run(Fresh::memory().await.store, &commands, &options).await.unwrap().events
    };
    assert_eq!((first.events, first.events_read), (written, written), "{}", fresh.url);
    assert_eq!(first.resumed_after, 0);
    check(&*fresh.store, &first.model).await;

    let second = run(fresh.store.clone(), &commands, &options).await.unwrap();
    assert_eq!((second.count(Outcome::Done), second.commands()), (0, first.commands()));
    assert_eq!(second.counters.appends.load(Relaxed), 0);
    assert_eq!((second.events, second.events_read), (written, 0), "{}", fresh.url);
    assert!(second.resumed_after > 0);
    assert_eq!(second.model, first.model);

    let more = "receive d-new mug-white 5\nplace o-new mug-white 5 4450";
    let third = run(fresh.store.clone(), more, &options).await.unwrap();
    assert_eq!((third.count(Outcome::Done), third.events_read, third.events), (2, 3, written + 3));
    assert!(third.resumed_after >= second.resumed_after);
}

/// Some two hundred orders that fight for two skus, of which there is too little.
fn scarce(seed: u64) -> String {
    let mut state = seed;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut lines = String::new();
    for number in 0..200 {
        let (sku, quantity, order) = (random(2), random(9) + 1, random(120));
        let line = match random(8) {
            0 => format!("receive d{number} s{sku} {}", quantity * 3),
            1..=3 => format!("place o{order} s{sku} {quantity} 100"),
            4 | 5 => format!("pay o{order} 100"),
            6 => format!("ship o{order}"),
            _ => format!("cancel o{order}"),
        };
        writeln!(lines, "{line}\nplace o{number} s{sku} {quantity} 100").unwrap();
    }
    lines
}

pub(crate) async fn whatever_the_interleaving(kind: Kind) {
    let mut conflicts = 0;
    for seed in 1..=3 {
        let fresh = Fresh::open(&kind).await;
        // The second time, much of what was refused succeeds.
        for _ in 0..2 {
            let summary = run(fresh.store.clone(), &scarce(seed), &Options::default()).await;
            let summary = summary.unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", fresh.url));
            check(&*fresh.store, &summary.model).await;
            conflicts += summary.counters.conflicts.load(Relaxed);
        }
    }
    assert!(conflicts > 0, "no two writers ever met");
}

pub(crate) async fn two_shops_at_once_do_each_command_once(kind: Kind) {
    // All that concerns the first orders, so that what one shop refuses because the other is
    // behind is no matter in the end.
    let first = |line: &&str| line.split(' ').nth(1).is_some_and(|key| key < "o-0400");
    let commands = commands_for(&kind);
    let commands: String = commands.lines().filter(first).map(|line| format!("{line}\n")).collect();
    let alone = Fresh::memory().await;
    let alone = run(alone.store, &commands, &Options::default()).await.unwrap();
    let fresh = Fresh::open(&kind).await;
    let shop = || {
        let (store, commands) = (fresh.store.clone(), commands.clone());
        tokio::spawn(async move { run(store, &commands, &Options::default()).await.unwrap() })
    };
    let (one, other) = (shop(), shop());
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    let written = |summary: &shop::Summary| summary.counters.appends.load(Relaxed);
    assert_eq!(written(&one) + written(&other), alone.events, "{}", fresh.url);
    let after = run(fresh.store.clone(), &commands, &Options::default()).await.unwrap();
    assert_eq!(
        (after.count(Outcome::Done), after.model),
        (0, alone.model.clone()),
        "{}",
        fresh.url
    );
}

pub(crate) async fn events_say_what_caused_them(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let commands = "receive d1 mug 5\nplace o1 mug 2 900\npay o1 900\nship o1";
    run(fresh.store.clone(), commands, &Options::default()).await.unwrap();
    let mut said = Vec::new();
    for event in events(&*fresh.store).await {
        let (correlation, causation) = (event.correlation_id(), event.causation_id());
        said.push((event.event_type.to_string(), correlation.unwrap(), causation.unwrap()));
    }
    let expected = [
        ("StockReceived", "d1", "receive d1"),
        ("StockReserved", "o1", "place o1"),
        ("OrderPlaced", "o1", "place o1"),
        ("OrderPaid", "o1", "pay o1"),
        ("OrderShipped", "o1", "ship o1"),
        ("StockShipped", "o1", "ship o1"),
    ];
    let said: Vec<_> = said.iter().map(|(t, a, b)| (t.as_str(), a.as_str(), b.as_str())).collect();
    assert_eq!(said, expected);
}
