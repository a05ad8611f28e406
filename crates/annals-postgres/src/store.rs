//! The traits, mapped to what does the work.

use std::{fmt, slice, sync::Arc, time::Duration};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    Recognition, RecordedEvent, Result, Snapshot, SnapshotStore, StreamId, StreamInfo, StreamState,
    Subscribe, SubscriberId, Subscription, TransferStore, Version, adapter,
};
use async_trait::async_trait;
use sqlx::{
    ConnectOptions, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    config::{PostgresConfig, PostgresOptions},
    connections::Connections,
    error::{BACKEND, POOLER, context, driver, internal},
    horizon::Horizon,
    import,
    manage::{self, Head, Removal},
    migrate,
    notify::Notifier,
    pooler,
    read::{AllPages, PageSize, StreamPages},
    sql::{Sql, query},
    subscribe,
    writer::Writers,
};

/// An event store in a PostgreSQL database. A clone is another handle to the same one. It works in
/// the Tokio runtime in which it was opened.
#[derive(Clone)]
pub struct PostgresStore {
    pub(crate) shared: Arc<Shared>,
}

/// All that ends with the last handle, read and subscription.
pub(crate) struct Shared {
    pub(crate) connections: Arc<Connections>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) horizon: Horizon,
    pub(crate) page_size: PageSize,
    pub(crate) sql: Arc<Sql>,
    pub(crate) lock_key: i32,
    writers: Arc<Writers>,
    options: PostgresOptions,
}

/// What every store of this crate can do.
static CAPABILITIES: Capabilities = {
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    capabilities.retry_recognition = Recognition::Guaranteed;
    (capabilities.list_streams, capabilities.exact_import) = (true, true);
    capabilities
};

impl PostgresStore {
    /// What every store of this crate can do.
    #[must_use]
    pub fn declared() -> &'static Capabilities {
        &CAPABILITIES
    }

    /// Opens a store with connections of its own, and creates or migrates its schema where that is
    /// due. Safe when several processes do so at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for options that cannot work; [`ErrorKind::Denied`] for wrong
    /// credentials, and where the role may not create what is missing;
    /// [`ErrorKind::Incompatible`] for a database that does not exist, for tables of somebody else,
    /// and for a schema that a newer annals created, which is left as it is;
    /// [`ErrorKind::Unavailable`] where the server cannot be reached.
    pub async fn open(config: PostgresConfig) -> Result<Self> {
        // sqlx panics where other crates of the program bring a second provider and none is set;
        // one that the program has set stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        config.check().map_err(context("open"))?;
        // By itself, since the pool would wait for a server that is not there.
        let probe = connect(&config.connect, config.acquire_timeout).await;
        let probe = probe.map_err(context("open"))?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(config.acquire_timeout)
            .after_connect(|connection, _| Box::pin(migrate::set_up(connection)))
            .connect_lazy_with(config.connect);
        let keep = usize::try_from(config.connections).unwrap_or(usize::MAX);
        Self::open_on(pool, probe, keep, config.options).await.map_err(context("open"))
    }

    /// Opens a store on a pool that the application has. For itself the store keeps at most half of
    /// the pool's connections, or two of three. Subscriptions end when the pool is closed.
    ///
    /// # Errors
    /// As for [`open`](Self::open); [`ErrorKind::InvalidInput`] for a pool of fewer than
    /// [`PostgresConfig::MIN_CONNECTIONS`].
    pub async fn with_pool(pool: PgPool, options: PostgresOptions) -> Result<Self> {
        let check = || {
            options.check()?;
            let (most, least) =
                (pool.options().get_max_connections(), PostgresConfig::MIN_CONNECTIONS);
            if most < least {
                let message = format!(
                    "the pool has at most {most} connections; a store needs {least}: one listens, \
                     and one must be left beside a writer"
                );
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            Ok(usize::try_from(most / 2).unwrap_or(usize::MAX))
        };
        let keep = check().map_err(context("open"))?;
        let patience = pool.options().get_acquire_timeout();
        let probe = connect(&pool.connect_options(), patience).await.map_err(context("open"))?;
        Self::open_on(pool, probe, keep, options).await.map_err(context("open"))
    }

    /// `probe` is another connection to the same server.
    async fn open_on(
        pool: PgPool,
        probe: PgConnection,
        keep: usize,
        options: PostgresOptions,
    ) -> Result<Self> {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        // One listens; and a writer must never keep a reader from coming through.
        let writers = options.writers.min(most.saturating_sub(2).max(1));
        // The one that listens is not kept here.
        let keep = keep.saturating_sub(1).max(1);
        let connections = Connections::new(pool, keep, options.request_timeout);
        let sql = Arc::new(Sql::new(&options.schema));
        let mut connection = connections.pool.acquire().await.map_err(driver)?;
        // A transaction that is dropped while it begins stays open (sqlx 0.9.0).
        connection.close_on_drop();
        if pooler::check(&mut connection, probe).await? {
            // What one session listens to would come to any other, which could not read it.
            return Err(Error::new(ErrorKind::Incompatible, POOLER));
        }
        migrate::run(&mut connection, &options.schema, options.migrate).await?;
        drop(connection);
        let row = connections.row(|| query(&sql.store)).await;
        let lock_key = row.and_then(|row| row.try_get(0)).map_err(driver)?;
        let notifier = Notifier::new(connections.clone(), &options.schema, options.poll_interval);
        let writers =
            Writers::new(connections.clone(), notifier.clone(), sql.clone(), lock_key, writers);
        let horizon = Horizon::new(connections.clone(), sql.clone(), lock_key);
        let page_size = PageSize::default();
        let shared =
            Shared { connections, notifier, horizon, page_size, sql, lock_key, writers, options };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What it is like.
    #[must_use]
    pub fn options(&self) -> &PostgresOptions {
        &self.shared.options
    }

    /// The connections that it uses. Of those that it made itself it may keep all, so that others
    /// wait for one in vain: an application that needs some too hands over a pool of its own.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.shared.connections.pool
    }

    async fn remove(
        &self,
        operation: &'static str,
        stream: &StreamId,
        expected: ExpectedVersion,
        removal: Removal,
    ) -> Result<()> {
        adapter::check_writable(stream).map_err(context(operation))?;
        let removed = manage::remove(&self.shared, stream, expected, removal).await;
        removed.map_err(|e| context(operation)(e).with_stream(stream))
    }
}

async fn connect(options: &PgConnectOptions, patience: Duration) -> Result<PgConnection> {
    let connected = tokio::time::timeout(patience, options.connect()).await.map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the server does not answer").with_source(e)
    })?;
    connected.map_err(driver)
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("options", self.options()).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let stream = append.stream.clone();
        let checked = adapter::check_append(slice::from_ref(&append), self.capabilities());
        checked.map_err(context("append"))?;
        let appended = self.shared.writers.append(vec![append]).await;
        appended
            .and_then(|mut appended| appended.pop().ok_or_else(|| internal("no answer")))
            .map_err(|e| context("append")(e).with_stream(&stream))
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let checked = adapter::check_append(&appends, self.capabilities());
        checked.map_err(context("append_multi"))?;
        self.shared.writers.append(appends).await.map_err(context("append_multi"))
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        adapter::read(StreamPages::new(self.shared.clone(), stream.clone(), options))
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        adapter::read(AllPages::new(self.shared.clone(), options))
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let checked = adapter::check_subscribe(&options, self.capabilities());
        checked.map_err(context("subscribe"))?;
        subscribe::subscribe(self.shared.clone(), options).await.map_err(context("subscribe"))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let head = Head::load(&self.shared, stream).await;
        head.map(|head| head.info()).map_err(|e| context("stream_info")(e).with_stream(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.remove("truncate", stream, ExpectedVersion::Any, Removal::Before(before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.remove("delete", stream, expected, Removal::All(StreamState::Deleted)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.remove("tombstone", stream, expected, Removal::All(StreamState::Tombstoned)).await
    }
}

#[async_trait]
impl SnapshotStore for PostgresStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let found = manage::load_snapshot(&self.shared, stream).await;
        found.map_err(|e| context("load_snapshot")(e).with_stream(stream))
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let checked = adapter::check_snapshot(&snapshot, self.capabilities());
        checked.map_err(context("save_snapshot"))?;
        let saved = manage::save_snapshot(&self.shared, stream, &snapshot).await;
        saved.map_err(|e| context("save_snapshot")(e).with_stream(stream))
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let deleted = manage::delete_snapshot(&self.shared, stream).await;
        deleted.map_err(|e| context("delete_snapshot")(e).with_stream(stream))
    }
}

#[async_trait]
impl CheckpointStore for PostgresStore {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let found = manage::load_checkpoint(&self.shared, subscriber).await;
        found.map_err(context("load_checkpoint"))
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let kept = manage::save_checkpoint(&self.shared, subscriber, position).await;
        kept.map_err(context("save_checkpoint"))
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let reset = manage::reset_checkpoint(&self.shared, subscriber, position).await;
        reset.map_err(context("reset_checkpoint"))
    }
}

#[async_trait]
impl LeaseStore for PostgresStore {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        manage::load_lease(&self.shared, name).await.map_err(context("load_lease"))
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        manage::swap_lease(&self.shared, name, record).await.map_err(context("swap_lease"))
    }
}

#[async_trait]
impl TransferStore for PostgresStore {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let found = manage::list_streams(&self.shared, after, limit).await;
        found.map_err(context("list_streams"))
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        adapter::check_import(&events, self.capabilities()).map_err(context("import"))?;
        import::import(&self.shared, events).await.map_err(context("import"))
    }
}
