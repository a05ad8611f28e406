//! Reads of a stream and of all.

use std::hint::black_box;

use annals_benches::{Shape, fill};
use annals_core::{EventStore, EventStoreExt, ReadAll};
use annals_eventstoredb::kurrentdb::{ReadAllOptions, ReadStream, ReadStreamOptions};
use annals_memory::MemoryStore;
use futures::TryStreamExt;

use super::{adapter, client, serve};
use crate::{
    plan::Plan,
    report::{Figures, Target},
};

/// The target for the ratio to the official client.
const READS: Target = Target::AtLeast(0.9);
const STREAMS: usize = 100;
const STREAM_EVENTS: u64 = 1_000;

pub(super) fn run(plan: &Plan) {
    let store = MemoryStore::new();
    let shape = Shape { streams: STREAMS, events: STREAM_EVENTS, together: 10 };
    let address = serve(plan, &store);
    let (ours, client, ids) = plan.run(async move {
        let ids = fill(&store, shape).await;
        (adapter(address).await, client(address), ids)
    });
    let title = format!("Gateway on memory: reads; {STREAMS} streams of {STREAM_EVENTS} events");
    let mut figures = Figures::new(title, "events a second");
    let [stream, bare_stream, all, bare_all] =
        ["a stream", "a stream, kurrentdb", "all", "all, kurrentdb"];
    for name in plan.turns(&[stream, bare_stream, all, bare_all]) {
        let (ours, client, ids) = (ours.clone(), client.clone(), ids.clone());
        let mut turn = 0;
        let figure = plan.rate_of(move || {
            turn += 1;
            let (ours, client) = (ours.clone(), client.clone());
            let id = ids.get(turn % ids.len()).cloned().unwrap();
            async move {
                match name {
                    _ if name == stream => black_box(ours.load_stream(&id).await.unwrap()).len(),
                    _ if name == bare_stream => {
                        let options = ReadStreamOptions::default();
                        let read = client.read_stream(id.as_str(), &options).await.unwrap();
                        bare_events(read).await
                    }
                    _ if name == all => {
                        let (mut events, mut count) = (ours.read_all(ReadAll::default()), 0);
                        while let Some(event) = events.try_next().await.unwrap() {
                            black_box(event);
                            count += 1;
                        }
                        count
                    }
                    _ => {
                        let read = client.read_all(&ReadAllOptions::default()).await.unwrap();
                        bare_events(read).await
                    }
                }
            }
        });
        figures.add(name, figure);
    }
    figures.ratio(stream, bare_stream, READS);
    figures.ratio(all, bare_all, READS);
    figures.print();
}

async fn bare_events(mut read: ReadStream) -> usize {
    let mut count = 0;
    while let Some(event) = read.next().await.unwrap() {
        black_box(event);
        count += 1;
    }
    count
}
