//! Takes events from a subscription, as many as there are.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use annals_core::{
    Error, ErrorKind, Message, Position, RecordedEvent, Result, StreamId, Subscription,
};
use futures::StreamExt;

use super::Partition;

pub(super) struct Reader {
    subscription: Subscription,
    partition: Option<Partition>,
    /// What it writes itself, it does not read.
    leaves_out: Option<StreamId>,
    size: usize,
}

/// Events, and how far they reach.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub(super) events: Vec<RecordedEvent>,
    /// Everything up to here is in it, or is not wanted.
    pub(super) to: Option<Position>,
    /// Whether that was all there is.
    pub(super) caught_up: bool,
}

impl Pack {
    /// Takes everything out, and keeps the room for as much.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        (self.to, self.caught_up) = (None, false);
    }
}

impl Reader {
    pub(super) fn new(
        subscription: Subscription,
        partition: Option<Partition>,
        leaves_out: Option<StreamId>,
        size: usize,
    ) -> Self {
        Self { subscription, partition, leaves_out, size }
    }

    /// Puts what comes next into the pack, until it is full. Cancel-safe.
    pub(super) async fn fill(&mut self, pack: &mut Pack) -> Result<()> {
        poll_fn(|cx| self.poll(pack, cx)).await
    }

    /// Puts into the pack what is there already, at least one message. Cancel-safe.
    pub(super) async fn take(&mut self, pack: &mut Pack) -> Result<()> {
        poll_fn(|cx| match self.poll(pack, cx) {
            Poll::Pending if pack.to.is_some() => Poll::Ready(Ok(())),
            polled => polled,
        })
        .await
    }

    fn poll(&mut self, pack: &mut Pack, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.is_full(pack) {
            match ready!(self.subscription.poll_next_unpin(cx)) {
                Some(message) => self.put(message?, pack),
                // It has said before why.
                None => {
                    let message = "the subscription has ended";
                    return Poll::Ready(Err(Error::new(ErrorKind::Unavailable, message)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_full(&self, pack: &Pack) -> bool {
        pack.events.len() >= self.size || pack.caught_up
    }

    fn put(&self, message: Message, pack: &mut Pack) {
        pack.to = Some(message.position());
        match message {
            Message::Event(event) if self.wants(&event.stream) => pack.events.push(event),
            Message::CaughtUp(_) => pack.caught_up = true,
            _ => {}
        }
    }

    fn wants(&self, stream: &StreamId) -> bool {
        self.partition.is_none_or(|partition| partition.has(stream))
            && self.leaves_out.as_ref() != Some(stream)
    }
}
