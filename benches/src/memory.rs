//! The store in memory: appends, and events to a subscriber.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use annals_benches::{Shape, Writer, fill};
use annals_core::{Append, EventStore, Start, Subscribe, Subscription};
use annals_memory::MemoryStore;
use tokio::task::consume_budget;

use crate::{
    plan::Plan,
    report::{Figures, Target},
};

pub(crate) fn run(plan: &Plan) {
    append(plan);
    subscribe(plan);
}

fn append(plan: &Plan) {
    let mut figures = Figures::new("Memory: one writer", "microseconds");
    for events in plan.turns(&[1, 10]) {
        let appends = if plan.quick { 20_000 } else { 500_000 / events };
        let micros = plan.run(append_time(appends, events)).as_secs_f64() * 1e6;
        figures.add(format!("an append of {events}"), micros / appends as f64);
    }
    figures.target("an append of 1", Target::AtMost(2.0));
    figures.print();
}

/// How long appends take, without the time to generate the events.
async fn append_time(appends: usize, events: usize) -> Duration {
    /// How many appends are generated before they are timed.
    const AT_A_TIME: usize = 1_000;
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let mut writer = Writer::new(0);
    let mut time = Duration::ZERO;
    for _ in 0..appends / AT_A_TIME {
        let made: Vec<Append> = (0..AT_A_TIME).map(|_| writer.append(events)).collect();
        let began = Instant::now();
        for append in made {
            store.append(append).await.unwrap();
        }
        time += began.elapsed();
    }
    time
}

fn subscribe(plan: &Plan) {
    let streams = if plan.quick { 1_000 } else { 10_000 };
    let shape = Shape { streams, events: 100, together: 10 };
    let full = MemoryStore::new();
    let store = full.clone();
    plan.run(async move { fill(&store, shape).await });
    let count = shape.total();
    let [catches_up, singly, batched] = [
        "one that catches up",
        "one that is live, appends of 1",
        "one that is live, appends of 100",
    ];
    let mut figures = Figures::new("Memory: events to a subscriber", "events a second");
    for name in plan.turns(&[catches_up, singly, batched]) {
        let time = if name == catches_up {
            let store = full.clone();
            plan.run(async move {
                let began = Instant::now();
                let subscription = store.subscribe(Subscribe::default()).await.unwrap();
                receive(subscription, count).await;
                began.elapsed()
            })
        } else {
            plan.run(live(count, if name == singly { 1 } else { 100 }))
        };
        figures.add(name, count as f64 / time.as_secs_f64());
    }
    figures.target(catches_up, Target::AtLeast(1e6));
    figures.target(batched, Target::AtLeast(1e6));
    figures.print();
}

/// How long it takes until a live subscriber has all events of one writer.
async fn live(count: u64, events: usize) -> Duration {
    let store = MemoryStore::new();
    let subscription = store.subscribe(Subscribe::default().with_start(Start::End)).await.unwrap();
    let mut writer = Writer::new(0);
    let began = Instant::now();
    let received = tokio::spawn(receive(subscription, count));
    for _ in 0..count / events as u64 {
        store.append(writer.append(events)).await.unwrap();
        // An append to memory never waits, so this task would never yield its thread.
        consume_budget().await;
    }
    received.await.unwrap();
    began.elapsed()
}

async fn receive(mut subscription: Subscription, count: u64) {
    for _ in 0..count {
        std::hint::black_box(subscription.next_event().await.unwrap());
    }
}
