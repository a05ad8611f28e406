//! Reads a subscription in chunks.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use annals_core::{Error, ErrorKind, Message, Position, RecordedEvent, Result, Subscription};
use futures::StreamExt;

use super::{Partition, poison::PARKED};

pub(super) struct Reader {
    subscription: Subscription,
    partition: Option<Partition>,
    /// Whether the projection parks events. It then reads no parked event, neither its own nor that of
    /// another projection: two projections that park would otherwise park each other's for ever.
    parks: bool,
    max_events: usize,
}

/// Events that were read, and how far they reach.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) events: Vec<RecordedEvent>,
    /// The chunk covers the source up to this position. `None` as long as nothing was read.
    pub(super) to: Option<Position>,
    /// Whether the subscription has caught up.
    pub(super) caught_up: bool,
}

impl Chunk {
    /// Empties the chunk and keeps its allocated memory.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        (self.to, self.caught_up) = (None, false);
    }
}

impl Reader {
    pub(super) fn new(
        subscription: Subscription,
        partition: Option<Partition>,
        parks: bool,
        max_events: usize,
    ) -> Self {
        Self { subscription, partition, parks, max_events }
    }

    /// Reads until the chunk is full. Cancel-safe.
    pub(super) async fn fill(&mut self, chunk: &mut Chunk) -> Result<()> {
        poll_fn(|cx| self.poll(chunk, cx)).await
    }

    /// Waits for one message, then reads what else is available at once. Cancel-safe.
    pub(super) async fn read_available(&mut self, chunk: &mut Chunk) -> Result<()> {
        poll_fn(|cx| match self.poll(chunk, cx) {
            Poll::Pending if chunk.to.is_some() => Poll::Ready(Ok(())),
            polled => polled,
        })
        .await
    }

    fn poll(&mut self, chunk: &mut Chunk, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.is_full(chunk) {
            match ready!(self.subscription.poll_next_unpin(cx)) {
                Some(message) => self.add(message?, chunk),
                // A subscription ends only after an error, which was returned before.
                None => {
                    let message = "the subscription has ended";
                    return Poll::Ready(Err(Error::new(ErrorKind::Unavailable, message)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_full(&self, chunk: &Chunk) -> bool {
        chunk.events.len() >= self.max_events || chunk.caught_up
    }

    fn add(&self, message: Message, chunk: &mut Chunk) {
        chunk.to = Some(message.position());
        match message {
            Message::Event(event) if self.wants(&event) => chunk.events.push(event),
            Message::CaughtUp(_) => chunk.caught_up = true,
            _ => {}
        }
    }

    fn wants(&self, event: &RecordedEvent) -> bool {
        self.partition.is_none_or(|partition| partition.has(&event.stream))
            && !(self.parks && event.event_type.as_str() == PARKED)
    }
}
