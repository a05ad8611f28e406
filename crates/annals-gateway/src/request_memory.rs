//! The memory of requests that arrive: a request whose message is not complete yet waits here, instead
//! of in memory, when all such messages together have as many bytes as the gateway allows.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

/// A message takes so much without asking, so that large messages cannot hold up small ones.
const FREE: usize = 16 * 1024;
/// The unit of what messages ask for.
const UNIT: usize = 1024;
/// How long a message that is larger than that may take to arrive.
const MAX_TIME: Duration = Duration::from_secs(30);
/// The length of what stands before each message: a flag, and the length of the message.
const PREFIX: usize = 5;

/// How many bytes of incomplete messages the gateway holds.
#[derive(Clone, Debug)]
pub(crate) struct RequestMemory(Arc<Semaphore>);

impl RequestMemory {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((max_bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Makes a body wait for memory.
    pub(crate) fn limit<B>(&self, inner: B) -> LimitedBody<B> {
        LimitedBody {
            inner,
            units: PollSemaphore::new(self.0.clone()),
            held: None,
            message: Message::default(),
            began: None,
        }
    }
}

/// The message that arrives: how far its frames have come.
#[derive(Debug, Default)]
struct Message {
    prefix: Vec<u8>,
    /// How many bytes have arrived, and how many are still to come.
    arrived: usize,
    left: usize,
}

impl Message {
    /// Notes the bytes of a frame. True if a message ended in it.
    fn pass(&mut self, mut frame: &[u8]) -> bool {
        let mut ended = false;
        while !frame.is_empty() {
            if self.left == 0 && self.prefix.len() < PREFIX {
                let (head, rest) = frame.split_at(frame.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(head);
                frame = rest;
                if let [_, a, b, c, d] = *self.prefix.as_slice() {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.arrived = 0;
                }
            } else {
                let part = frame.len().min(self.left);
                frame.advance(part);
                self.left -= part;
                self.arrived += part;
            }
            if self.left == 0 && self.prefix.len() == PREFIX {
                self.prefix.clear();
                self.arrived = 0;
                ended = true;
            }
        }
        ended
    }
}

/// A body of a request that waits for memory.
pub(crate) struct LimitedBody<B> {
    inner: B,
    units: PollSemaphore,
    held: Option<OwnedSemaphorePermit>,
    message: Message,
    /// When the message that holds memory has to be complete.
    began: Option<Pin<Box<Sleep>>>,
}

impl<B> LimitedBody<B> {
    /// Waits until the message may have more memory than it holds.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.message.left == 0 || self.message.arrived < FREE {
            return Poll::Ready(Ok(()));
        }
        let began =
            self.began.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + MAX_TIME)));
        if began.as_mut().poll(cx).is_ready() {
            let message = "the message took too long to arrive";
            return Poll::Ready(Err(Status::deadline_exceeded(message)));
        }
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT;
        if held >= self.message.arrived {
            return Poll::Ready(Ok(()));
        }
        // Ask for as much again as has arrived, so that a large message asks only a few times.
        let more = self.message.arrived.min(self.message.left).div_ceil(UNIT).max(1);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = ready!(self.units.poll_acquire_many(cx, more));
        match (&mut self.held, more) {
            (_, None) => {}
            (Some(held), Some(more)) => held.merge(more),
            (held, more) => *held = more,
        }
        Poll::Ready(Ok(()))
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Err(error) = ready!(this.poll_memory(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && this.message.pass(data)
        {
            // The message goes on to the call, whose own limits hold from now on.
            (this.held, this.began) = (None, None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_lengths_say() {
        let mut message = Message::default();
        assert!(!message.pass(&[0, 0, 0, 0]));
        assert!(!message.pass(&[3, b'a']));
        assert_eq!((message.arrived, message.left), (1, 2));
        assert!(message.pass(b"bc"));
        // An empty message, and the begin of another one.
        assert!(message.pass(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'x']));
        assert_eq!((message.arrived, message.left), (1, 255));
    }
}
