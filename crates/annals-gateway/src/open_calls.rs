//! Calls that stay open (reads, subscriptions, batches of appends): limits their number, and ends
//! them when the server stops.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

/// Admits calls that stay open.
#[derive(Clone, Debug)]
pub(crate) struct OpenCalls {
    permits: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Held by one open call until it ends.
#[derive(Debug)]
pub(crate) struct OpenCall {
    _permit: OwnedSemaphorePermit,
    stopping: watch::Receiver<bool>,
}

impl OpenCalls {
    /// `stopping` becomes true when the server begins to stop.
    pub(crate) fn new(max_open: usize, stopping: watch::Receiver<bool>) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_open.min(Semaphore::MAX_PERMITS))), stopping }
    }

    pub(crate) fn admit(&self) -> Result<OpenCall, Status> {
        let full = |_| Status::resource_exhausted("too many reads and subscriptions are open");
        let permit = self.permits.clone().try_acquire_owned().map_err(full)?;
        Ok(OpenCall { _permit: permit, stopping: self.stopping.clone() })
    }
}

impl OpenCall {
    /// Counts the call as open until `answers` is dropped.
    pub(crate) fn hold<T>(
        self,
        answers: impl Stream<Item = T> + Send,
    ) -> impl Stream<Item = T> + Send {
        answers.map(move |answer| {
            let _held = &self;
            answer
        })
    }

    /// Like `hold`, and ends `answers` with an error when the server stops. For subscriptions,
    /// which have no end of their own.
    pub(crate) fn hold_until_stopped<T: Send>(
        self,
        answers: impl Stream<Item = Result<T, Status>> + Send,
    ) -> impl Stream<Item = Result<T, Status>> + Send {
        let mut stopping = self.stopping.clone();
        let stopped = async move {
            // An error means that the sender was dropped: the server has ended, so end as well.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let stopping = self.stopping.clone();
        // If `answers` ended on its own, the call ends without an error.
        let end = stream::once(async move { *stopping.borrow() }).filter_map(async |stopping| {
            stopping.then(|| Err(Status::unavailable("the server stops")))
        });
        self.hold(answers.take_until(stopped).chain(end))
    }
}
