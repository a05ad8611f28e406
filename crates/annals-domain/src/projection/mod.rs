//! Projections: handlers of events that know how far they have come.
//!
//! * [`Projection::at_least_once`] keeps its checkpoint in the event store, after events were
//!   handled; [`Projection::exactly_once`] in the transaction in which the handler writes its rows,
//!   in any [`Sink`]. Which of them it is stands in the type.
//! * [`Projection::run`] catches up, says how far it is, and goes on live.
//! * [`Projection::lead`] does so in one of several processes, the others taking over when that one
//!   dies; [`Workers`] spreads a projection over processes by stream.
//! * A [generation](Projection::with_generation) is built beside the one before, and takes over
//!   when it has caught up.
//! * A handler that fails on an event gets it again, alone; where that does not help, the
//!   projection stops, or [parks](OnPoison) the event and goes on.

mod delivery;
mod lead;
mod poison;
#[cfg(feature = "postgres")]
pub mod postgres;
mod progress;
mod reader;
mod run;
mod sink;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use annals_core::{Error, ErrorKind, Position, Result, Source, Store, SubscriberId};

pub use delivery::{
    AtLeastOnce, Batch, BoxError, Delivery, ExactlyOnce, Guarantee, Handler, TransactionalHandler,
};
pub use lead::Workers;
pub use poison::{OnPoison, Poison};
pub use progress::Progress;
pub use run::{ProjectionError, Stopped};
pub use sink::Sink;

use crate::RetryPolicy;
use progress::Callback;

/// A handler of events with a name, a source, and a checkpoint.
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
/// projection.catch_up().await?; // or `run`, which goes on live
/// assert_eq!(projection.handler().0, 1);
/// # Ok(()) }
/// ```
pub struct Projection<D> {
    store: Arc<dyn Store>,
    name: String,
    generation: NonZeroU32,
    partition: Option<Partition>,
    source: Source,
    delivery: D,
    batch: usize,
    save_every: Duration,
    retry: RetryPolicy,
    on_poison: OnPoison,
    on_progress: Option<Callback>,
    /// Of the lease under which it runs.
    token: Option<u64>,
}

/// A share of all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Partition {
    /// Which one, from 0.
    pub index: u32,
    /// Of how many.
    pub count: NonZeroU32,
}

impl<H: Handler> Projection<AtLeastOnce<H>> {
    /// A projection whose checkpoint is kept in the event store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that is empty, longer than 200 bytes, or has a `@`, a
    /// `#` or control characters;
    /// [`ErrorKind::Unsupported`] where the store has no order over all streams, or keeps no
    /// checkpoints.
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
    /// A projection whose checkpoint is kept beside its rows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that is empty, longer than 200 bytes, or has a `@`, a
    /// `#` or control characters;
    /// [`ErrorKind::Unsupported`] where the store has no order over all streams.
    pub fn exactly_once(store: Arc<dyn Store>, name: &str, sink: S, handler: H) -> Result<Self> {
        Self::new(store, name, ExactlyOnce { sink, handler })
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.delivery.handler
    }
}

/// What leaves room in a [`SubscriberId`] for a generation and a partition.
const MAX_NAME: usize = 200;

impl<D: Delivery> Projection<D> {
    fn new(store: Arc<dyn Store>, name: &str, delivery: D) -> Result<Self> {
        SubscriberId::new(name)?;
        if name.len() > MAX_NAME || name.contains(['@', '#']) {
            let message = format!(
                "the name of a projection has at most {MAX_NAME} bytes, and no `@` and no `#`: \
                 {name:?}"
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
            delivery,
            batch: 500,
            save_every: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            on_poison: OnPoison::Stop,
            on_progress: None,
            token: None,
        })
    }

    /// Sets what it reads: one stream, a category, or a filter, best one
    /// [made from a schema](crate::Schema::filter). Everything, unless this is called.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the most events that a handler gets at once (500; at least one), which are also as many
    /// as are read ahead.
    #[must_use]
    pub fn with_batch(mut self, events: usize) -> Self {
        self.batch = events.max(1);
        self
    }

    /// Sets how often a checkpoint is kept where the handler does not do so (every second): while
    /// catching up, and where nothing but others' events go by. Also how often it looks whether a
    /// later generation has taken over.
    #[must_use]
    pub fn with_save_every(mut self, time: Duration) -> Self {
        self.save_every = time;
        self
    }

    /// Sets what is tried again, and how often: calls to the stores, and an event on which the
    /// handler fails.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets what becomes of an event on which the handler fails for good. It stops, unless this is
    /// called.
    #[must_use]
    pub fn with_poison(mut self, on_poison: OnPoison) -> Self {
        self.on_poison = on_poison;
        self
    }

    /// Tells how far it is: every second while it catches up, and when it has. With or without this
    /// it is logged, too, and how far it lags behind is a [metric](crate::observe).
    #[must_use]
    pub fn with_progress(mut self, tell: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Sets which generation it is, from 1. A projection whose handler has changed is rebuilt as
    /// the next generation, with a checkpoint of its own, while the one before runs on. When it has
    /// caught up, its handler [switches](Handler::switch), and runs of earlier generations end with
    /// [`Stopped::Superseded`].
    #[must_use]
    pub fn with_generation(mut self, generation: NonZeroU32) -> Self {
        self.generation = generation;
        self
    }

    fn with_partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// What it promises.
    #[must_use]
    pub fn guarantee(&self) -> Guarantee {
        D::GUARANTEE
    }

    /// Under which name its checkpoint, and its lease, are kept: its own, `name@2` for the second
    /// generation, `name#0/4` for the first of four partitions.
    ///
    /// # Errors
    /// None for a projection that could be made.
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

    /// The generation that has taken over; 1 where none has.
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
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

impl Partition {
    /// Whether a stream is one of its own. The same on every machine and in every version: FNV-1a.
    #[must_use]
    pub fn has(&self, stream: &annals_core::StreamId) -> bool {
        let hash = stream.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash % u64::from(self.count.get()) == u64::from(self.index)
    }
}
