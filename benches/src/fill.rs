//! Stores that are full of events.

use annals_core::{Append, EventStore, ExpectedVersion, StreamId};
use futures::future::join_all;

use crate::Events;

/// How many appends wait at the same time: as many as a store puts into one transaction.
const AT_ONCE: usize = 1_000;

/// How many streams, how long, and how they lie among each other.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many streams.
    pub streams: usize,
    /// How many events each has.
    pub events: u64,
    /// How many of them grow at the same time, an event each in turn; then come as many others.
    /// 1 puts every stream in one piece, `streams` scatters each over the whole store.
    pub together: usize,
}

impl Shape {
    /// All events.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.streams as u64 * self.events
    }
}

/// Fills a store that is empty, and returns the streams in order.
pub async fn fill(store: &dyn EventStore, shape: Shape) -> Vec<StreamId> {
    let streams: Vec<StreamId> = (0..shape.streams).map(filled_stream).collect();
    let mut events = Events::new();
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

/// About in their order: which of those that wait comes first is for the store to say.
async fn write(store: &dyn EventStore, appends: &mut Vec<Append>) {
    for appended in join_all(appends.drain(..).map(|append| store.append(append))).await {
        appended.unwrap();
    }
}

/// The name of one of the streams that a store is filled with; the first is 0.
#[must_use]
pub fn filled_stream(number: usize) -> StreamId {
    StreamId::new(format!("order-{number:08}")).unwrap()
}
