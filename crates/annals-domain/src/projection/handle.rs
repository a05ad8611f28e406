//! What others may ask of a projection while it runs: how far it is, and who leads it.

use std::{fmt, sync::Arc, time::Duration};

use annals_core::{
    CheckpointStore, Error, ErrorKind, LeaseRecord, Position, Result, Sink, Store, SubscriberId,
};
use async_trait::async_trait;
use tokio::{sync::watch, time::sleep};

/// How often [`ProjectionHandle::reached`] asks for the checkpoint of a projection that runs in
/// another process.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How far a projection is, and whether this process runs it: [`ProjectionHandle::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The name of the projection, with its generation and its partition.
    pub subscriber: SubscriberId,
    /// All events up to this position were handled by this process or before it started, or left out
    /// by the filter. `None` if the projection did not run in this process yet.
    pub position: Option<Position>,
    /// Whether this process runs the projection now.
    pub is_running: bool,
    /// Whether the projection runs and has caught up.
    pub is_live: bool,
    /// The fencing token, while this process [leads](super::Projection::lead) the projection.
    pub token: Option<u64>,
    /// The lease as this process has seen it last: its holder is whoever leads. `None` if the
    /// projection does not run under a lease, or if nobody has held the lease yet.
    pub lease: Option<LeaseRecord>,
}

impl Status {
    pub(super) fn new(subscriber: SubscriberId) -> Self {
        Self {
            subscriber,
            position: None,
            is_running: false,
            is_live: false,
            token: None,
            lease: None,
        }
    }

    /// Whether this process [leads](super::Projection::lead) the projection.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.token.is_some()
    }
}

/// Where the checkpoint of a projection is stored.
#[async_trait]
#[doc(hidden)]
pub trait Stored: Send + Sync {
    /// The checkpoint.
    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>>;
}

/// In the event store.
pub(super) struct InStore(pub(super) Arc<dyn Store>);

#[async_trait]
impl Stored for InStore {
    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.0.load_checkpoint(subscriber).await
    }
}

/// In a sink.
pub(super) struct InSink<S>(pub(super) Arc<S>);

#[async_trait]
impl<S: Sink> Stored for InSink<S> {
    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.0.position(subscriber).await
    }
}

/// Asks a projection how far it is, from [`Projection::handle`](super::Projection::handle). Clones
/// are cheap.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use annals_core::{EventStoreExt, ExpectedVersion, NewEvent, Store};
/// # use annals_domain::projection::{Batch, BoxError, Handler, Projection};
/// # struct Ignore;
/// # #[async_trait::async_trait]
/// # impl Handler for Ignore {
/// #     async fn handle(&mut self, _: &Batch<'_>) -> Result<(), BoxError> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Arc::new(annals_memory::MemoryStore::new());
/// let mut projection = Projection::at_least_once(store.clone(), "names", Ignore)?;
/// let names = projection.handle();
/// tokio::spawn(async move { projection.run(std::future::pending()).await });
///
/// let event = NewEvent::json("renamed", &"Ada")?;
/// let written = store.append_to("customer-7", ExpectedVersion::Any, [event]).await?;
/// names.reached(written.position, Duration::from_secs(5)).await?;
/// // A read of the names includes the event now.
/// assert!(names.status().is_live);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ProjectionHandle {
    pub(super) status: watch::Receiver<Status>,
    pub(super) stored: Arc<dyn Stored>,
}

impl ProjectionHandle {
    /// How far the projection is, and whether this process runs or leads it. Asks no store.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the projection has handled every event up to a position, such as
    /// [`Executed::position`](crate::Executed::position): events that its filter leaves out count as
    /// handled. Returns how far it is then.
    ///
    /// While this process runs the projection, the projection itself ends the wait, and no store is
    /// asked. Otherwise another process may run it: its checkpoint is then asked for, twenty times a
    /// second. That process saves it at least every
    /// [`with_save_every`](super::Projection::with_save_every).
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if the projection is not there when the time is over; the error says how
    /// far it is. Those of the store of the checkpoint.
    pub async fn reached(
        &self,
        position: impl Into<Position>,
        timeout: Duration,
    ) -> Result<Position> {
        let wanted = position.into();
        let mut at = None;
        let reached = tokio::time::timeout(timeout, self.wait(wanted, &mut at)).await;
        reached.unwrap_or_else(|_| {
            let Status { subscriber, is_running, .. } = self.status();
            let is = at.map_or("has no position".to_owned(), |at| format!("is at position {at}"));
            let runs = if is_running { "" } else { ", and does not run in this process" };
            let message = format!(
                "the projection {subscriber} {is} after {timeout:?}, not at {wanted}{runs}"
            );
            Err(Error::new(ErrorKind::Busy, message))
        })
    }

    async fn wait(&self, wanted: Position, at: &mut Option<Position>) -> Result<Position> {
        let mut status = self.status.clone();
        loop {
            let (subscriber, is_running) = {
                let status = status.borrow_and_update();
                *at = status.position;
                (status.subscriber.clone(), status.is_running)
            };
            if !is_running {
                *at = self.stored.position(&subscriber).await?;
            }
            if let Some(at) = at.filter(|at| *at >= wanted) {
                return Ok(at);
            }
            let ask = async {
                if is_running { std::future::pending().await } else { sleep(ASK_EVERY).await }
            };
            tokio::select! {
                () = ask => {}
                changed = status.changed() => if changed.is_err() {
                    // The projection was dropped. Another process may go on with it.
                    sleep(ASK_EVERY).await;
                },
            }
        }
    }
}

impl fmt::Debug for ProjectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectionHandle").field(&*self.status.borrow()).finish()
    }
}
