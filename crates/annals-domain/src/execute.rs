//! Running commands: load, decide, append, and start again if another writer was faster.

use std::{error::Error as StdError, fmt, num::NonZeroUsize, sync::Arc};

use annals_core::{
    Append, Appended, Category, Error, ErrorKind, NewEvent, Position, Result, Store, StreamId,
    Version,
};
use chrono::Utc;
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    Context, Decider, RetryPolicy, Schema, SnapshotPolicy, cache::Cache, load::Loaded,
    snapshot::Snapshots,
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

/// The result of a command.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Executed<E> {
    /// The stream of the aggregate.
    pub stream: StreamId,
    /// The events that were appended: empty if the aggregate had nothing to do.
    pub events: Vec<E>,
    /// The version of the aggregate after the command.
    pub version: Version,
    /// The position of the last appended event, or `None` if no event was appended.
    pub position: Option<Position>,
    /// The position of the last event that the answer takes into account: that of the last appended
    /// event or, if no event was appended, of the aggregate's last event. A read model that has
    /// [reached](crate::projection::ProjectionHandle::reached) it shows what the answer says, also when
    /// a request is repeated. `None` if the aggregate has no events.
    pub as_of: Option<Position>,
    /// How often another writer was faster, so that the command was decided again.
    pub conflicts: u32,
}

/// Why a command failed.
///
/// ```
/// use annals_domain::ExecuteError;
///
/// fn report<R: std::fmt::Display>(error: &ExecuteError<R>) -> String {
///     match error {
///         ExecuteError::Rejected(reason) => format!("refused: {reason}"),
///         // The command may have been written: execute it again.
///         ExecuteError::Store(error) if error.outcome_unknown() => format!("unclear: {error}"),
///         ExecuteError::Store(error) => format!("failed: {error}"),
///         other => other.to_string(),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The aggregate refused the command. Nothing was written.
    Rejected(R),
    /// The store failed, permanently or for longer than the [policy](RetryPolicy) allows. If
    /// [`Error::outcome_unknown`] is true, the events may have been written all the same: execute
    /// the command again, and let the aggregate decide on the events that are there.
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
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<R: StdError + 'static> StdError for ExecuteError<R> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(rejection) => rejection.source(),
            Self::Store(error) => error.source(),
        }
    }
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

    /// Executes a command: loads the aggregate, lets it decide, and appends its events on condition
    /// that nobody else has appended to the stream since. If somebody has, the handler reads the new
    /// events and decides again. If the answer to an append is lost, the handler sends the same
    /// events with the same ids again, so that the store recognises them.
    ///
    /// If the future is dropped, either all of the events are written or none.
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
        let slot = cache.slot(&stream);
        let mut slot = slot.lock().await;
        let is_fresh = slot.is_none();
        let loaded = match &mut *slot {
            Some(loaded) => loaded,
            empty => empty.insert(self.load_stream(&stream).await?),
        };
        self.decide_and_append(stream, loaded, is_fresh, command, context).await
    }

    /// Decides on a state that was just read (`is_fresh`), or on a cached one that may be old.
    async fn decide_and_append(
        &self,
        stream: StreamId,
        loaded: &mut Loaded<D::State>,
        mut is_fresh: bool,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let mut conflicts = self.retry.conflicts();
        loop {
            let decided = self.decider.decide(command, &loaded.state);
            if decided.as_ref().map_or(true, Vec::is_empty) {
                // There is no append that would conflict, so read whether the state is old, or whether
                // the events that it lacks were truncated.
                let before = loaded.version;
                if !is_fresh {
                    self.catch_up(&stream, loaded).await?;
                    is_fresh = true;
                }
                self.check_nothing_is_missing(&stream, loaded).await?;
                if loaded.version != before {
                    continue;
                }
            }
            let events = decided.map_err(ExecuteError::Rejected)?;
            if events.is_empty() {
                self.locate(&stream, loaded).await?;
                let (version, as_of, conflicts) =
                    (loaded.version, loaded.position, conflicts.count);
                return Ok(Executed { stream, events, version, position: None, as_of, conflicts });
            }
            let append = self.prepare(&stream, loaded.version, &events, context).await?;
            let bytes = size(&append);
            match self.append(append).await {
                Ok(appended) => {
                    self.appended(&stream, loaded, &events, bytes, &appended).await;
                    let (version, position) = (loaded.version, Some(appended.position));
                    let (as_of, conflicts) = (position, conflicts.count);
                    return Ok(Executed { stream, events, version, position, as_of, conflicts });
                }
                Err(error) => {
                    conflicts.pause_after(error).await?;
                    self.catch_up(&stream, loaded).await?;
                    self.check_nothing_is_missing(&stream, loaded).await?;
                    is_fresh = true;
                }
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
        // Each try sends the same event ids, by which the store recognises a retry.
        self.retry.write(|| self.store.append(append.clone())).await
    }

    /// Applies the appended events to the state.
    pub(crate) async fn appended(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
        events: &[D::Event],
        bytes: u64,
        appended: &Appended,
    ) {
        events.iter().for_each(|event| self.decider.evolve(&mut loaded.state, event));
        (loaded.version, loaded.position) = (appended.last_version, Some(appended.position));
        loaded.since.began.get_or_insert_with(Utc::now);
        loaded.since.events += events.len() as u64;
        loaded.since.bytes += bytes;
        self.snapshot_if_due(stream, loaded).await;
    }
}

/// The bytes of data and metadata in an append.
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
