//! Fills stores with events.

use annals_core::{Append, EventStore, ExpectedVersion, StreamId};
use futures::future::join_all;

use crate::EventGenerator;

/// How many appends run at the same time: as many as a store puts into one transaction.
const AT_ONCE: usize = 1_000;

/// How many streams a store has, how long they are, and how their events are interleaved.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The number of streams.
    pub streams: usize,
    /// The number of events in each stream.
    pub events: u64,
    /// The number of streams that grow at the same time: each gets an event in turn, until all are
    /// full. With 1, each stream is contiguous; with `streams`, each is spread over the whole
    /// store.
    pub together: usize,
}

impl Shape {
    /// The number of events in all streams.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.streams as u64 * self.events
    }
}

/// Fills an empty store. Returns the streams in the order in which they were filled.
pub async fn fill(store: &dyn EventStore, shape: Shape) -> Vec<StreamId> {
    let streams: Vec<StreamId> = (0..shape.streams).map(filled_stream).collect();
    let mut events = EventGenerator::new();
    let mut appends = Vec::new();
    for together in streams.chunks(shape.together) {
        for _ in 0..shape.events {
            for stream in together {
                appends.push(Append::new(stream.clone(), ExpectedVersion::Any, [events.one()]));
                if appends.len() == AT_ONCE {
                    write(store, &mut appends).await;
                }
            }
        }
    }
    write(store, &mut appends).await;
    streams
}

/// The store chooses the order among these appends, so events are only roughly in the order given.
async fn write(store: &dyn EventStore, appends: &mut Vec<Append>) {
    for appended in join_all(appends.drain(..).map(|append| store.append(append))).await {
        appended.unwrap();
    }
}

/// The name of the stream with this number, from 0, in a filled store.
#[must_use]
pub fn filled_stream(number: usize) -> StreamId {
    StreamId::new(format!("order-{number:08}")).unwrap()
}
