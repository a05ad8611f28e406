//! The handler of the commands to one kind of aggregate, and what can be set of it.

use std::{fmt, num::NonZeroUsize, sync::Arc};

use annals_core::{Category, Error, ErrorKind, Result, Store, StreamId};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Decider, RetryPolicy, Schema, SnapshotPolicy, cache::Cache, load::Loaded, snapshot::Snapshots,
};

/// Runs the commands of one kind of aggregate on a store. Share a handler between tasks by an
/// [`Arc`].
///
/// ```
/// # use annals_domain::{CommandHandler, Context, Decider};
/// # use std::{convert::Infallible, sync::Arc};
/// # #[derive(serde::Serialize, serde::Deserialize)] enum Counted { #[serde(rename = "counted")] By(u64) }
/// # struct Counter;
/// # impl Decider for Counter {
/// #     const CATEGORY: &'static str = "counter";
/// #     type State = u64; type Command = u64; type Event = Counted; type Rejection = Infallible;
/// #     fn initial(&self) -> u64 { 0 }
/// #     fn decide(&self, by: &u64, _: &u64) -> Result<Vec<Counted>, Infallible> { Ok(vec![Counted::By(*by)]) }
/// #     fn evolve(&self, state: &mut u64, Counted::By(by): &Counted) { *state += by; }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(annals_memory::MemoryStore::new());
/// let counters = CommandHandler::new(store, Counter)?;
/// let done = counters.execute("visits", &5, &Context::new()).await?;
/// assert_eq!(done.version.get(), 1);
/// assert_eq!(counters.load("visits").await?.state, 5);
/// # Ok(()) }
/// ```
pub struct CommandHandler<D: Decider> {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) decider: D,
    pub(crate) schema: Schema<D::Event>,
    pub(crate) retry: RetryPolicy,
    pub(crate) snapshots: Option<Snapshots<D::State>>,
    pub(crate) cache: Option<Cache<Loaded<D::State>>>,
}

impl<D: Decider> CommandHandler<D> {
    /// A handler with the default [`Schema`] and [`RetryPolicy`], without snapshots and cache.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) if [`Decider::CATEGORY`] is
    /// not a valid [`Category`], or if [`Decider::Event`] is not an enum that a [`Schema`] can
    /// store.
    pub fn new(store: Arc<dyn Store>, decider: D) -> Result<Self> {
        Category::new(D::CATEGORY)?;
        Ok(Self {
            store,
            decider,
            schema: Schema::new()?,
            retry: RetryPolicy::default(),
            snapshots: None,
            cache: None,
        })
    }

    /// Sets how events are stored, and how old forms of them are read.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema<D::Event>) -> Self {
        self.schema = schema.for_store(&self.store);
        self
    }

    /// Sets how often failed calls and conflicts are retried.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Takes snapshots by this policy, and loads aggregates from them.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](annals_core::ErrorKind::Unsupported) if the store has no snapshots.
    pub fn with_snapshots(mut self, policy: SnapshotPolicy) -> Result<Self>
    where
        D::State: Serialize + DeserializeOwned,
    {
        if !self.store.capabilities().snapshots {
            return Err(Error::unsupported("snapshots"));
        }
        self.snapshots = Some(Snapshots::new(policy));
        Ok(self)
    }

    /// Caches the state of the aggregates that were used last, up to this many. A command to a cached
    /// aggregate does not load it: if another writer has appended meanwhile, the append conflicts and
    /// the new events are read. If the command leads to no event, the handler checks the stream for
    /// new events before it answers. Commands to one cached aggregate run one after the other.
    ///
    /// If somebody else deletes the stream of a cached aggregate, the handler does not notice before
    /// the next event is appended to it: call [`forget`](Self::forget) after such a deletion.
    #[must_use]
    pub fn with_cache(mut self, aggregates: NonZeroUsize) -> Self {
        self.cache = Some(Cache::new(aggregates));
        self
    }

    /// The store that this handler runs on.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The schema by which this handler stores events.
    #[must_use]
    pub fn schema(&self) -> &Schema<D::Event> {
        &self.schema
    }

    /// The stream of an aggregate: `account-7` for the id `7` in the category `account`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for an id that is empty, or
    /// that cannot be part of a stream id.
    pub fn stream(&self, id: &str) -> Result<StreamId> {
        if id.is_empty() {
            let message =
                format!("the id of an aggregate of the category {:?} is empty", D::CATEGORY);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        StreamId::new(format!("{}-{id}", D::CATEGORY))
    }

    /// Removes an aggregate from the cache.
    ///
    /// # Errors
    /// Those of [`CommandHandler::stream`].
    pub fn forget(&self, id: &str) -> Result<()> {
        if let Some(cache) = &self.cache {
            cache.forget(&self.stream(id)?);
        }
        Ok(())
    }
}

impl<D: Decider> fmt::Debug for CommandHandler<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandHandler")
            .field("category", &D::CATEGORY)
            .field("store", &self.store)
            .field("schema", &self.schema)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
