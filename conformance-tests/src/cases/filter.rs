//! Filters by type, prefix and category, on reads and on subscriptions.

use annals_core::{
    Category, EventStoreExt, EventType, ExpectedVersion, Filter, ReadAll, RecordedEvent, Source,
    StreamPrefix, Subscribe, Subscription,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_events, assert_same_events, catch_up, everything, read_all, take, typed},
};

cases! { "filter":
    by_event_type [12] GlobalOrder;
    by_category [12] GlobalOrder;
    by_prefix [12] GlobalOrder;
    by_everything_at_once [12] GlobalOrder;
    from_every_position [12] GlobalOrder;
    limits_count_what_matches [12] GlobalOrder;
    subscriptions_filter_alike [12, 15] GlobalOrder;
    live_events_are_filtered_alike [12, 15] GlobalOrder;
    a_filter_that_matches_nothing_reaches_the_end [12, 16] GlobalOrder;
}

/// Names that a store confuses if it matches by pattern, ignores case, or splits at the wrong `-`.
const STREAMS: &[&str] = &[
    "order-1",
    "order-2",
    "order-10",
    "Order-1",
    "orders-1",
    "order_1",
    "order%1",
    "order",
    "orde-r",
    "order--1",
    "-order-1",
    "órder-1",
    "o_der-1",
    "o%-1",
    "O%-1",
    "order-\u{1f980}",
    "order-'1",
    "a\\-1",
    "\u{10ffff}-1",
    "\u{10ffff}",
];
const TYPES: &[&str] = &["OrderPlaced", "orderplaced", "OrderPlaced2", "Order_laced", "%"];

async fn fill(cx: &Context) -> annals_core::Result<Vec<RecordedEvent>> {
    let store = cx.open().await;
    let mut number = 0;
    for event_type in TYPES {
        for stream in STREAMS {
            number += 1;
            let event = typed(event_type, number);
            store.append_to(*stream, ExpectedVersion::Any, [event]).await?;
        }
    }
    everything(&store).await
}

fn types<const N: usize>(names: [&str; N]) -> [EventType; N] {
    names.map(|name| EventType::new(name).unwrap())
}

fn category(name: &str) -> Category {
    Category::new(name).unwrap()
}

fn prefix(text: &str) -> StreamPrefix {
    StreamPrefix::new(text).unwrap()
}

fn by_types() -> Vec<Filter> {
    let by = |types: &[EventType]| Filter::default().with_event_types(types.to_vec());
    vec![
        by(&types(["OrderPlaced"])),
        by(&types(["%"])),
        by(&types(["Order_laced"])),
        by(&types(["orderplaced", "OrderPlaced2", "orderplaced"])),
        by(&types(["NoSuchType"])),
        by(&types(TYPES.try_into().unwrap_or([""; 5]))),
    ]
}

fn by_categories() -> Vec<Filter> {
    let names =
        ["order", "Order", "orders", "order_1", "o_der", "o%", "orde", "a\\", "ord", "\u{10ffff}"];
    names.map(|name| Filter::default().with_category(category(name))).to_vec()
}

fn by_prefixes() -> Vec<Filter> {
    let texts = [
        "order-1",
        "order-",
        "order",
        "o",
        "O",
        "order_",
        "order%",
        "o_der",
        "o%",
        "order-'",
        "a\\",
        "-",
        "order--",
        "order-\u{1f980}",
        "\u{10ffff}",
        "ór",
        "nothing",
        "o\u{10ffff}",
    ];
    texts.map(|text| Filter::default().with_prefix(prefix(text))).to_vec()
}

fn combined() -> Vec<Filter> {
    let order = || Filter::default().with_category(category("order"));
    vec![
        Filter::default(),
        Filter::default().including_system(),
        order().with_prefix(prefix("order-1")),
        order().with_prefix(prefix("Order-1")),
        order().with_event_types(types(["OrderPlaced", "%"])),
        order().with_prefix(prefix("order-1")).with_event_types(types(["orderplaced"])),
    ]
}

async fn check(cx: Context, filters: Vec<Filter>) -> CaseResult {
    let all = fill(&cx).await?;
    let store = cx.open().await;
    for filter in filters {
        let due = matching(&all, &filter);
        let got = read_all(&store, ReadAll::default().with_filter(filter.clone())).await?;
        assert_eq!(places(&got), places(&due), "forwards, {filter:?}");
        let backwards = ReadAll::default().with_filter(filter.clone()).backwards();
        let mut got = read_all(&store, backwards).await?;
        got.reverse();
        assert_eq!(places(&got), places(&due), "backwards, {filter:?}");
    }
    Ok(())
}

fn matching(all: &[RecordedEvent], filter: &Filter) -> Vec<RecordedEvent> {
    all.iter().filter(|e| filter.matches(&e.stream, &e.event_type)).cloned().collect()
}

/// The streams and types of these events, without those of the backend's own streams, which may
/// have events already.
fn places(events: &[RecordedEvent]) -> Vec<(String, String)> {
    let ours = events.iter().filter(|event| !event.stream.is_system());
    ours.map(|e| (e.stream.to_string(), e.event_type.to_string())).collect()
}

/// The next `count` events that are not in the backend's own streams.
async fn take_ours(cx: &Context, live: &mut Subscription, count: usize) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(take(cx, live, 1).await);
        events.retain(|event| !event.stream.is_system());
    }
    events
}

async fn by_event_type(cx: Context) -> CaseResult {
    check(cx, by_types()).await
}

async fn by_category(cx: Context) -> CaseResult {
    check(cx, by_categories()).await
}

async fn by_prefix(cx: Context) -> CaseResult {
    check(cx, by_prefixes()).await
}

async fn by_everything_at_once(cx: Context) -> CaseResult {
    check(cx, combined()).await
}

async fn from_every_position(cx: Context) -> CaseResult {
    let all = fill(&cx).await?;
    let store = cx.open().await;
    let filter = || Filter::default().with_category(category("order"));
    for from in &all {
        let after = ReadAll::default().with_filter(filter()).after(from.position);
        let (before, later): (Vec<_>, Vec<_>) =
            matching(&all, &filter()).into_iter().partition(|e| e.position <= from.position);
        assert_same_events(&read_all(&store, after).await?, &later);
        let back = ReadAll::default().with_filter(filter()).before(from.position);
        let mut got = read_all(&store, back).await?;
        got.reverse();
        let due: Vec<_> = before.into_iter().filter(|e| e.position < from.position).collect();
        assert_same_events(&got, &due);
    }
    Ok(())
}

async fn limits_count_what_matches(cx: Context) -> CaseResult {
    let all = fill(&cx).await?;
    let store = cx.open().await;
    let filter = Filter::default().with_event_types(types(["%"]));
    let due = matching(&all, &filter);
    for limit in 0..=due.len() + 1 {
        let options = ReadAll::default().with_filter(filter.clone()).with_limit(limit as u64);
        assert_same_events(&read_all(&store, options).await?, &due[..limit.min(due.len())]);
    }
    Ok(())
}

async fn subscriptions_filter_alike(cx: Context) -> CaseResult {
    let all = fill(&cx).await?;
    let store = cx.open().await;
    for filter in [by_types(), by_categories(), by_prefixes(), combined()].concat() {
        let mut live = store.subscribe(Subscribe::to(filter.clone())).await?;
        let (got, caught_up) = catch_up(&cx, &mut live).await;
        assert_eq!(places(&got), places(&matching(&all, &filter)), "{filter:?}");
        assert!(caught_up >= all.last().unwrap().position, "{filter:?} caught up at {caught_up}");
    }
    Ok(())
}

async fn live_events_are_filtered_alike(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let filters = [combined(), by_categories()].concat();
    let mut lives = Vec::new();
    for filter in filters {
        let mut live = store.subscribe(Subscribe::to(filter.clone())).await?;
        catch_up(&cx, &mut live).await;
        lives.push((filter, live));
    }
    let mut category = store.subscribe(Subscribe::to(Source::category(category("order")))).await?;
    let all = fill(&cx).await?;
    for (filter, mut live) in lives {
        let due = matching(&all, &filter);
        assert_same_events(&take_ours(&cx, &mut live, due.len()).await, &due);
    }
    let due = matching(&all, &Filter::default().with_category(self::category("order")));
    assert_same_events(&take(&cx, &mut category, due.len()).await, &due);
    Ok(())
}

/// A category and a prefix that no stream has together, and names that no event has.
async fn a_filter_that_matches_nothing_reaches_the_end(cx: Context) -> CaseResult {
    let all = fill(&cx).await?;
    let (store, last) = (cx.open().await, all.last().unwrap().position);
    for filter in [
        Filter::default().with_category(category("order")).with_prefix(prefix("Order")),
        Filter::default().with_category(category("nothing")),
        Filter::default().with_prefix(prefix("nothing")),
        Filter::default().with_event_types(types(["Nothing"])),
    ] {
        for from in [all[0].position, all[all.len() / 2].position, last] {
            let options = ReadAll::default().with_filter(filter.clone());
            assert_events(
                format!("a read after {from} with {filter:?}"),
                &read_all(&store, options.clone().after(from)).await?,
                &[],
            );
            assert_events(
                format!("a read before {from} with {filter:?}"),
                &read_all(&store, options.before(from)).await?,
                &[],
            );
            let mut live = store.subscribe(Subscribe::to(filter.clone()).after(from)).await?;
            let (events, caught_up) = catch_up(&cx, &mut live).await;
            assert!(events.is_empty(), "{filter:?} gave {events:?}");
            assert!(caught_up >= last, "{filter:?} caught up at {caught_up}, before {last}");
        }
    }
    Ok(())
}
