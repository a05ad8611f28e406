//! Commands on a store: load, decide, append; and again where another writer was faster.

use std::{error::Error as StdError, fmt, num::NonZeroUsize, sync::Arc};

use annals_core::{
    Append, Appended, Category, Error, NewEvent, Position, Result, Store, StreamId, Version,
};
use chrono::Utc;
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    Context, Decider, RetryPolicy, Schema, SnapshotPolicy, cache::Cache, load::Loaded, observe,
    snapshot::Snapshots,
};

/// Runs the commands of one kind of aggregate on a store. Share it behind an [`Arc`].
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
    pub(crate) cache: Option<Cache<D::State>>,
}

/// What a command has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Executed<E> {
    /// The stream of the aggregate.
    pub stream: StreamId,
    /// What happened: nothing, where there was nothing to do.
    pub events: Vec<E>,
    /// The version of the aggregate now.
    pub version: Version,
    /// The position of the last of the events; none where nothing happened.
    pub position: Option<Position>,
    /// The races that were lost before.
    pub conflicts: u32,
}

/// Why a command has done nothing, or may have.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The aggregate does not do it. Nothing was written.
    Rejected(R),
    /// The store failed, for good or for longer than the [policy](RetryPolicy) allows.
    /// [`Error::outcome_unknown`] tells whether it may have been written all the same: then the
    /// command is to be executed again, and the aggregate decides whether it was.
    Store(Error),
}

impl<R> From<Error> for ExecuteError<R> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<R: fmt::Display> fmt::Display for ExecuteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => write!(f, "rejected: {rejection}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<R: StdError + 'static> StdError for ExecuteError<R> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Store(error) => error.source(),
        }
    }
}

impl<D: Decider> CommandHandler<D> {
    /// With defaults: events as they are named, 100 lost races, no snapshots, no cache.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for a category that is no
    /// [`Category`], and for events that are no enum as [`Schema`] needs it.
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

    /// Sets how events are stored, and which old ones are read.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema<D::Event>) -> Self {
        self.schema = schema;
        self
    }

    /// Sets what is tried again, and how often.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Takes snapshots, and loads from them.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](annals_core::ErrorKind::Unsupported) where the store keeps none.
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

    /// Keeps the state of this many aggregates, those used last, and does not load them again while
    /// nobody else has written: the append finds that out, or where there is nothing to append, a
    /// look at the stream. Commands to one aggregate then run one after the other.
    ///
    /// A deletion by somebody else goes unnoticed until the next event after it: whoever deletes
    /// streams that others have cached tells them to [`forget`](Self::forget).
    #[must_use]
    pub fn with_cache(mut self, aggregates: NonZeroUsize) -> Self {
        self.cache = Some(Cache::new(aggregates));
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How events are stored.
    #[must_use]
    pub fn schema(&self) -> &Schema<D::Event> {
        &self.schema
    }

    /// The stream of an aggregate.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for an id that cannot be
    /// part of a stream id.
    pub fn stream(&self, id: &str) -> Result<StreamId> {
        StreamId::new(format!("{}-{id}", D::CATEGORY))
    }

    /// Takes an aggregate out of the cache.
    ///
    /// # Errors
    /// As for [`CommandHandler::stream`].
    pub fn forget(&self, id: &str) -> Result<()> {
        if let Some(cache) = &self.cache {
            cache.forget(&self.stream(id)?);
        }
        Ok(())
    }

    /// Executes a command. What it decides is appended only where nobody else has written since it
    /// was decided on; else it is decided again, on what is new. An append whose answer is lost is
    /// made again with the same event ids, by which the store knows it.
    ///
    /// Dropping the future leaves the command done whole or not at all.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute(
        &self,
        id: &str,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let stream = self.stream(id)?;
        let span = tracing::debug_span!(
            "execute",
            otel.name = %format_args!("execute {}", D::CATEGORY),
            annals.stream = %stream,
            annals.correlation_id = context.correlation_id,
        );
        self.execute_on(stream, command, context).instrument(span).await
    }

    async fn execute_on(
        &self,
        stream: StreamId,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let Some(cache) = &self.cache else {
            let mut loaded = self.load_stream(&stream).await?;
            return self.decide_and_append(stream, &mut loaded, true, command, context).await;
        };
        let place = cache.place(&stream);
        let mut place = place.lock().await;
        let is_fresh = place.is_none();
        let loaded = match &mut *place {
            Some(loaded) => loaded,
            empty => empty.insert(self.load_stream(&stream).await?),
        };
        self.decide_and_append(stream, loaded, is_fresh, command, context).await
    }

    /// On a state that includes all there is (`is_fresh`), or may be older.
    async fn decide_and_append(
        &self,
        stream: StreamId,
        loaded: &mut Loaded<D::State>,
        mut is_fresh: bool,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let mut conflicts = 0;
        loop {
            let decided = self.decider.decide(command, &loaded.state);
            if !is_fresh && decided.as_ref().map_or(true, Vec::is_empty) {
                // Nothing will be appended, which would find out.
                let before = loaded.version;
                self.catch_up(&stream, loaded, false).await?;
                is_fresh = true;
                if loaded.version != before {
                    continue;
                }
            }
            let events = decided.map_err(ExecuteError::Rejected)?;
            if events.is_empty() {
                let version = loaded.version;
                return Ok(Executed { stream, events, version, position: None, conflicts });
            }
            let append = self.prepare(&stream, loaded.version, &events, context).await?;
            let bytes = size(&append);
            match self.append(append).await {
                Ok(appended) => {
                    self.appended(&stream, loaded, &events, bytes, &appended).await;
                    let (version, position) = (loaded.version, Some(appended.position));
                    return Ok(Executed { stream, events, version, position, conflicts });
                }
                Err(error)
                    if error.conflict().is_some() && conflicts < self.retry.max_conflicts =>
                {
                    tracing::debug!(%stream, conflicts, "another writer was faster");
                    metrics::counter!(observe::COMMAND_CONFLICTS).increment(1);
                    self.retry.after_conflict(conflicts).await;
                    conflicts += 1;
                    self.catch_up(&stream, loaded, false).await?;
                    is_fresh = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) async fn prepare(
        &self,
        stream: &StreamId,
        version: Version,
        events: &[D::Event],
        context: &Context,
    ) -> Result<Append> {
        let mut new: Vec<NewEvent> = Vec::with_capacity(events.len());
        for event in events {
            new.push(self.schema.encode(stream, event, context).await?);
        }
        Ok(Append::new(stream.clone(), version, new))
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        // The clone has the same event ids.
        self.retry.run(|| self.store.append(append.clone())).await
    }

    /// Takes over what was appended.
    pub(crate) async fn appended(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
        events: &[D::Event],
        bytes: u64,
        appended: &Appended,
    ) {
        events.iter().for_each(|event| self.decider.evolve(&mut loaded.state, event));
        loaded.version = appended.last_version;
        loaded.since.began.get_or_insert_with(Utc::now);
        loaded.since.events += events.len() as u64;
        loaded.since.bytes += bytes;
        self.snapshot_if_due(stream, loaded).await;
    }
}

/// The bytes of data and metadata.
pub(crate) fn size(append: &Append) -> u64 {
    append.events.iter().map(NewEvent::size).sum::<usize>() as u64
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
