//! Projections: handlers of events with a stored checkpoint.
//!
//! * [`Projection::at_least_once`] saves the checkpoint in the event store after events were handled.
//!   [`Projection::exactly_once`] moves it in the transaction in which the handler writes its rows,
//!   in a [`Sink`]. The type of the projection says which of the two it is.
//! * [`Projection::run`] catches up, reports progress, and goes on with live events.
//! * [`Projection::lead`] runs a projection in one of several processes; when that process dies,
//!   another takes over. [`Workers`] divides the streams of a projection between processes.
//! * A new [generation](Projection::with_generation) is built while the old one runs, and takes over
//!   when it has caught up.
//! * When a handler fails on a batch, it gets the events again, one by one. If it fails on an event at
//!   every try, the projection stops, or [parks](OnPoison) the event and goes on.

mod delivery;
mod division;
mod error;
mod hand_over;
mod handle;
mod handler;
mod keep;
mod lead;
mod options;
mod origin;
mod partition;
mod poison;
mod progress;
mod reader;
mod run;
mod start;
mod workers;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use annals_core::{Error, ErrorKind, Position, Result, Source, Start, Store, SubscriberId};
use tokio::sync::watch;

/// Where exactly-once projections write: `SqliteSink`, `PostgresSink`, or a sink of your own.
pub use annals_core::Sink;
pub use delivery::{AtLeastOnce, Delivery, ExactlyOnce, Guarantee};
pub use error::{ProjectionError, Stopped};
pub use handle::{ProjectionHandle, Status};
pub use handler::{Batch, BoxError, Handler, TransactionalHandler};
pub use partition::Partition;
pub use poison::{OnPoison, Poison};
pub use progress::Progress;
pub use workers::Workers;

use crate::RetryPolicy;
use progress::Callback;

/// A handler of events with a name, a source and a checkpoint.
///
/// ```
/// # use annals_core::{EventStoreExt, ExpectedVersion, NewEvent};
/// # use annals_domain::projection::{Batch, BoxError, Handler, Projection};
/// # use std::sync::Arc;
/// struct Count(u64);
///
/// #[async_trait::async_trait]
/// impl Handler for Count {
///     async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError> {
///         self.0 += batch.events.len() as u64;
///         Ok(())
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Arc::new(annals_memory::MemoryStore::new());
/// # store.append_to("a-1", ExpectedVersion::Any, [NewEvent::binary("b", "c")?]).await?;
/// let mut projection = Projection::at_least_once(store, "count", Count(0))?;
/// projection.catch_up().await?; // or `run`, which goes on with live events
/// assert_eq!(projection.handler().0, 1);
/// # Ok(()) }
/// ```
pub struct Projection<D> {
    store: Arc<dyn Store>,
    name: String,
    generation: NonZeroU32,
    partition: Option<Partition>,
    source: Source,
    /// Where it begins without a checkpoint.
    start: Start,
    delivery: D,
    batch: usize,
    save_every: Duration,
    retry: RetryPolicy,
    on_poison: OnPoison,
    on_progress: Option<Callback>,
    /// The token of the lease under which the projection runs.
    token: Option<u64>,
    /// What handles tell.
    status: watch::Sender<Status>,
}

impl<H: Handler> Projection<AtLeastOnce<H>> {
    /// A projection whose checkpoint is saved in the event store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that is empty, is longer than 200 bytes, or contains
    /// `@`, `#` or control characters; [`ErrorKind::Unsupported`] if the store has no order over all
    /// streams or no checkpoints.
    pub fn at_least_once(store: Arc<dyn Store>, name: &str, handler: H) -> Result<Self> {
        if !store.capabilities().checkpoints {
            return Err(Error::unsupported("checkpoints"));
        }
        Self::new(store.clone(), name, AtLeastOnce { store, handler })
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.delivery.handler
    }
}

impl<S: Sink, H: TransactionalHandler<S::Transaction>> Projection<ExactlyOnce<S, H>> {
    /// A projection whose checkpoint is stored in the sink, next to its rows.
    ///
    /// ```
    /// use std::sync::Arc;
    /// # use annals_core::{EventStoreExt, ExpectedVersion, NewEvent};
    /// use annals_domain::projection::{Batch, BoxError, Projection, Sink, TransactionalHandler};
    /// use annals_sqlite::{SqliteSink, SqliteTransaction};
    ///
    /// struct Totals;
    ///
    /// #[async_trait::async_trait]
    /// impl TransactionalHandler<SqliteTransaction> for Totals {
    ///     async fn handle(
    ///         &mut self,
    ///         transaction: &mut SqliteTransaction,
    ///         batch: &Batch<'_>,
    ///     ) -> Result<(), BoxError> {
    ///         let events = batch.events.len() as i64;
    ///         transaction.execute("INSERT INTO totals VALUES (?1)", [events])?;
    ///         Ok(())
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Arc::new(annals_memory::MemoryStore::new());
    /// # store.append_to("a-1", ExpectedVersion::Any, [NewEvent::binary("b", "c")?]).await?;
    /// let sink = SqliteSink::in_memory()?; // or `SqliteSink::open("totals.db")`
    /// let setup = sink.begin().await?;
    /// setup.execute_batch("CREATE TABLE totals (events INTEGER NOT NULL)")?;
    /// sink.commit(setup).await?;
    /// let mut projection = Projection::exactly_once(store, "totals", sink.clone(), Totals)?;
    /// projection.catch_up().await?;
    /// assert!(sink.position(&projection.subscriber()?).await?.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that is empty, is longer than 200 bytes, or contains
    /// `@`, `#` or control characters; [`ErrorKind::Unsupported`] if the store has no order over all
    /// streams.
    pub fn exactly_once(store: Arc<dyn Store>, name: &str, sink: S, handler: H) -> Result<Self> {
        Self::new(store, name, ExactlyOnce { sink: Arc::new(sink), handler })
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.delivery.handler
    }
}

/// The longest name of a projection, in bytes. It leaves room in a [`SubscriberId`] for a generation
/// and a partition.
const MAX_NAME: usize = 200;

impl<D: Delivery> Projection<D> {
    fn new(store: Arc<dyn Store>, name: &str, delivery: D) -> Result<Self> {
        let subscriber = SubscriberId::new(name)?;
        if name.len() > MAX_NAME || name.contains(['@', '#']) {
            let message = format!(
                "a projection cannot be called {name:?}: use at most {MAX_NAME} bytes, without `@` \
                 and `#`"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !store.capabilities().global_order {
            return Err(Error::unsupported("order over all streams"));
        }
        Ok(Self {
            store,
            name: name.to_owned(),
            generation: NonZeroU32::MIN,
            partition: None,
            source: Source::default(),
            start: Start::Beginning,
            delivery,
            batch: 500,
            save_every: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            on_poison: OnPoison::Stop,
            on_progress: None,
            token: None,
            status: watch::Sender::new(Status::new(subscriber)),
        })
    }

    /// Sets the generation, from 1. When a handler has changed, build its rows anew as the next
    /// generation, which has a checkpoint of its own, while the old generation runs on. When the new
    /// generation has caught up, its handler [switches](Handler::switch), and runs of earlier
    /// generations end with [`Stopped::Superseded`].
    #[must_use]
    pub fn with_generation(mut self, generation: NonZeroU32) -> Self {
        self.generation = generation;
        self.named()
    }

    fn with_partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self.named()
    }

    /// Tells handles the name of the checkpoint.
    fn named(self) -> Self {
        if let Ok(subscriber) = self.subscriber() {
            self.status.send_modify(|status| status.subscriber = subscriber);
        }
        self
    }

    /// A handle, by which others can wait for the projection and see how far it is while it
    /// [runs](Projection::run), and which process leads it.
    #[must_use]
    pub fn handle(&self) -> ProjectionHandle {
        ProjectionHandle { status: self.status.subscribe(), stored: self.delivery.stored() }
    }

    /// What the projection guarantees for each event.
    #[must_use]
    pub fn guarantee(&self) -> Guarantee {
        D::GUARANTEE
    }

    /// The name under which the checkpoint and the lease are stored: the name of the projection,
    /// `name@2` for its second generation, `name#0/4` for the first of four partitions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if this is not a valid [`SubscriberId`], which does not happen.
    pub fn subscriber(&self) -> Result<SubscriberId> {
        let mut id = self.name.clone();
        if self.generation > NonZeroU32::MIN {
            id += &format!("@{}", self.generation);
        }
        if let Some(Partition { index, count }) = self.partition {
            id += &format!("#{index}/{count}");
        }
        SubscriberId::new(id)
    }

    /// The generation that has taken over last, or 1 if none has.
    ///
    /// # Errors
    /// Those of the store that keeps the checkpoint.
    pub async fn live_generation(&mut self) -> Result<u64> {
        Ok(self.live_position().await?.map_or(1, Position::get))
    }

    async fn live_position(&mut self) -> Result<Option<Position>> {
        let live = self.live_id()?;
        self.delivery.position(&live).await
    }

    fn live_id(&self) -> Result<SubscriberId> {
        SubscriberId::new(format!("{}@live", self.name))
    }
}

impl<D: Delivery> fmt::Debug for Projection<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection")
            .field("name", &self.name)
            .field("guarantee", &D::GUARANTEE)
            .field("generation", &self.generation)
            .field("partition", &self.partition)
            .field("source", &self.source)
            .field("start", &self.start)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
