//! A filter that matches one of very many events.

use std::{sync::Arc, time::Instant};

use annals_core::{
    Append, EventStore, EventStoreExt, EventType, ExpectedVersion, Filter, Message, NewEvent,
    Payload, ReadAll, Subscribe, TryStreamExt,
};
use annals_memory::MemoryStore;

use super::{adapter, bare, serve};
use crate::{
    plan::Plan,
    report::{Figures, Target, figure},
};

/// The target for the ratio to the time that the server takes to look through its events.
const SCAN: Target = Target::AtMost(1.2);
const RARE: &str = "Rare";
/// How many events are written at once.
const TOGETHER: u64 = 1_000;

pub(super) fn run(plan: &Plan) {
    let store = MemoryStore::new();
    let address = serve(plan, &store);
    let count = plan.sparse;
    let (ours, bare) = plan.run(async move {
        fill(&store, count).await;
        (adapter(address).await, bare::connect(address))
    });
    let title = format!(
        "Gateway on memory: a filter with one match behind {} events",
        figure(count as f64)
    );
    let mut figures = Figures::new(title, "milliseconds");
    let (mut told, mut longest) = (usize::MAX, 0_f64);
    let [read, bare_read, live, bare_live] =
        ["a read", "a read, bare", "a subscription", "a subscription, bare"];
    for name in plan.turns(&[read, bare_read, live, bare_live]) {
        let (ours, bare, rare) = (ours.clone(), bare.clone(), Arc::<str>::from(RARE));
        let (took, messages, silence) = plan.run(async move {
            let began = Instant::now();
            let (mut messages, mut silence) = (None, 0.0);
            let filter = Filter::default().with_event_types([EventType::new(RARE).unwrap()]);
            if name == read {
                let events = ours.read_all(ReadAll::default().with_filter(filter));
                assert_eq!(events.try_collect::<Vec<_>>().await.unwrap().len(), 1);
            } else if name == live {
                let mut live = ours.subscribe(Subscribe::to(filter)).await.unwrap();
                let (mut count, mut last) = (0, Instant::now());
                while !matches!(live.next().await.unwrap(), Message::Event(_)) {
                    count += 1;
                    silence = f64::max(silence, last.elapsed().as_secs_f64() * 1e3);
                    last = Instant::now();
                }
                messages = Some(count);
            } else {
                let answers = bare::read_all(bare, rare, name == bare_live).await;
                bare::first_event(answers, name == bare_read).await;
            }
            (began.elapsed().as_secs_f64() * 1e3, messages, silence)
        });
        figures.add(name, took);
        told = told.min(messages.unwrap_or(told));
        longest = longest.max(silence);
    }
    figures.ratio(read, bare_read, SCAN);
    figures.ratio(live, bare_live, SCAN);
    figures.print();
    println!(
        "\nA subscription was told {told} times or more how far it has come, and waited {} ms at \
         most for the next time.",
        figure(longest)
    );
}

/// Writes `count` events, and one of another type behind them.
async fn fill(store: &MemoryStore, count: u64) {
    let event = |name: &str| {
        let event_type = EventType::new(name).unwrap();
        NewEvent::new(event_type, Payload::json(&1).unwrap())
    };
    for number in 0..count.div_ceil(TOGETHER) {
        let events = (0..TOGETHER.min(count - number * TOGETHER)).map(|_| event("Frequent"));
        let stream = annals_core::StreamId::new(format!("other-{}", number % 100)).unwrap();
        let append = Append::new(stream, ExpectedVersion::Any, events);
        store.append(append).await.unwrap();
    }
    store.append_to("rare-1", ExpectedVersion::Any, [event(RARE)]).await.unwrap();
}
