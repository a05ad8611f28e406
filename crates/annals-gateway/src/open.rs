//! Calls that stay open: how many there may be, and that they end with the server.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

/// Leave for calls to stay open.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    permits: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

/// Leave for one call.
#[derive(Debug)]
pub(crate) struct Permit {
    _permit: OwnedSemaphorePermit,
    closing: watch::Receiver<bool>,
}

impl Open {
    pub(crate) fn new(most: usize, closing: watch::Receiver<bool>) -> Self {
        Self { permits: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), closing }
    }

    pub(crate) fn permit(&self) -> Result<Permit, Status> {
        let full = |_| Status::resource_exhausted("too many reads and subscriptions are open");
        let permit = self.permits.clone().try_acquire_owned().map_err(full)?;
        Ok(Permit { _permit: permit, closing: self.closing.clone() })
    }
}

impl Permit {
    /// The same, while the permit is held.
    pub(crate) fn hold<T>(
        self,
        answers: impl Stream<Item = T> + Send,
    ) -> impl Stream<Item = T> + Send {
        answers.map(move |answer| {
            let _held = &self;
            answer
        })
    }

    /// The same, until the server stops: for what has no end of its own.
    pub(crate) fn hold_until_closing<T: Send>(
        self,
        answers: impl Stream<Item = Result<T, Status>> + Send,
    ) -> impl Stream<Item = Result<T, Status>> + Send {
        let mut closing = self.closing.clone();
        let closed = async move {
            // Where the server is gone without a word, so is this.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let closing = self.closing.clone();
        // Where it has ended by itself, it has.
        let end = stream::once(async move { *closing.borrow() }).filter_map(async |closing| {
            closing.then(|| Err(Status::unavailable("the server stops")))
        });
        self.hold(answers.take_until(closed).chain(end))
    }
}
