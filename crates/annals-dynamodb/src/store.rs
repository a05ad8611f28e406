//! The traits, mapped to the table.

use std::{fmt, slice, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream, Result,
    Snapshot, SnapshotStore, StreamId, StreamInfo, Subscribe, SubscriberId, Subscription,
    TransferStore, Version, adapter,
};
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;

use crate::{
    append::append,
    config::{DynamoDbConfig, DynamoDbOptions},
    error::{BACKEND, context},
    head::Heads,
    item::SLOT,
    locks::Locks,
    log::Log,
    notify::Notifier,
    open,
    read::StreamPages,
    read_all::AllPages,
    subscribe,
    table::Table,
};

/// An event store in a DynamoDB table. A clone is another handle to the same one.
#[derive(Clone)]
pub struct DynamoDbStore {
    shared: Arc<Shared>,
}

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) table: Table,
    pub(crate) options: DynamoDbOptions,
    pub(crate) heads: Heads,
    pub(crate) locks: Locks,
    pub(crate) notifier: Arc<Notifier>,
    /// The order over all streams, if there is one.
    pub(crate) log: Option<Arc<Log>>,
    capabilities: Capabilities,
}

/// What a store declares whose streams are in an order.
const CAPABILITIES: Capabilities = {
    const KIB: usize = 1024;
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    // An item has at most 400 KB, of which some are for what is around the events; a transaction
    // at most 4 MB. Each event of an append has a position of its own in the slot of the log.
    capabilities.max_event_bytes = 380 * KIB;
    capabilities.max_append_events = 1_000;
    capabilities.max_append_bytes = 3 * KIB * KIB;
    capabilities
};
const _: () = assert!(CAPABILITIES.max_append_events < SLOT as usize);

impl DynamoDbStore {
    /// Opens a store, and creates the table where that is due. Safe when several processes do so at
    /// once. Credentials, and what the URL leaves open, are found by the default chain of the SDK.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for options that cannot work; [`ErrorKind::Incompatible`] for a
    /// table that is missing and not to be created, for one with other keys, with somebody else's
    /// items, with another [`DynamoDbOptions::order`] than asked for, or of a newer annals, which
    /// is left as it is; [`ErrorKind::Denied`], [`ErrorKind::Busy`] and
    /// [`ErrorKind::Unavailable`] as they come.
    pub async fn open(config: DynamoDbConfig) -> Result<Self> {
        let client = config.client().await;
        Self::with_client(&client, config.table, config.options).await
    }

    /// Opens a store with the configuration of the application.
    ///
    /// # Errors
    /// As for [`DynamoDbStore::open`].
    pub async fn with_sdk_config(
        sdk: &SdkConfig,
        table: impl Into<String>,
        options: DynamoDbOptions,
    ) -> Result<Self> {
        Self::with_client(&Client::new(sdk), table, options).await
    }

    /// Opens a store with a client of the application. Its retries are not used: requests are tried
    /// again by the store itself, [`DynamoDbOptions::retry_for`] long.
    ///
    /// # Errors
    /// As for [`DynamoDbStore::open`].
    pub async fn with_client(
        client: &Client,
        table: impl Into<String>,
        options: DynamoDbOptions,
    ) -> Result<Self> {
        let opened = async {
            let table = table.into();
            options.check(&table)?;
            let table = Table::new(client, table, &options);
            let stripes = open::open(&table, &options).await?;
            Ok((table, stripes))
        };
        let (table, stripes) = opened.await.map_err(context("open"))?;
        let notifier = Arc::new(Notifier::new(options.poll_interval));
        let log = (stripes > 0).then(|| {
            let (table, notifier) = (table.clone(), notifier.clone());
            Arc::new(Log::new(table, stripes, options.writers, options.close_after, notifier))
        });
        let mut capabilities = CAPABILITIES;
        capabilities.global_order = log.is_some();
        let (heads, locks) = (Heads::new(), Locks::new());
        let shared = Shared { table, options, heads, locks, notifier, log, capabilities };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What a store with an order over all streams declares; without, it has no
    /// [`Capabilities::global_order`].
    #[must_use]
    pub fn declared() -> &'static Capabilities {
        &CAPABILITIES
    }

    /// The name of the table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.shared.table.name
    }

    /// How it was opened.
    #[must_use]
    pub fn options(&self) -> &DynamoDbOptions {
        &self.shared.options
    }
}

impl fmt::Debug for DynamoDbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("DynamoDbStore");
        debug.field("table", &self.table()).field("options", self.options());
        debug.finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for DynamoDbStore {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn append(&self, one: Append) -> Result<Appended> {
        let context = |e: Error| context("append")(e).with_stream(&one.stream);
        let appends = slice::from_ref(&one);
        adapter::check_append(appends, self.capabilities()).map_err(context)?;
        let answers = append(&self.shared, appends).await.map_err(context)?;
        let none = || context(Error::new(ErrorKind::Internal, "an append without an answer"));
        answers.first().copied().ok_or_else(none)
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let context = context("append_multi");
        adapter::check_append(&appends, self.capabilities()).map_err(&context)?;
        append(&self.shared, &appends).await.map_err(context)
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        adapter::read(StreamPages::new(self.shared.clone(), stream.clone(), options))
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        match &self.shared.log {
            Some(log) => adapter::read(AllPages::new(self.shared.clone(), log.clone(), options)),
            None => {
                let error = Error::unsupported("order over all streams");
                adapter::failed_read(context("read_all")(error))
            }
        }
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let context = context("subscribe");
        adapter::check_subscribe(&options, self.capabilities()).map_err(&context)?;
        subscribe::subscribe(self.shared.clone(), options).await.map_err(context)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let info = self.shared.stream_info(stream).await;
        info.map_err(|e| context("stream_info")(e).with_stream(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let context = |e: Error| context("truncate")(e).with_stream(stream);
        adapter::check_writable(stream).map_err(context)?;
        self.shared.truncate(stream, before).await.map_err(context)
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let context = |e: Error| context("delete")(e).with_stream(stream);
        adapter::check_writable(stream).map_err(context)?;
        self.shared.delete(stream, expected, false).await.map_err(context)
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let context = |e: Error| context("tombstone")(e).with_stream(stream);
        adapter::check_writable(stream).map_err(context)?;
        self.shared.delete(stream, expected, true).await.map_err(context)
    }
}

#[async_trait]
impl SnapshotStore for DynamoDbStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let found = self.shared.load_snapshot(stream).await;
        found.map_err(|e| context("load_snapshot")(e).with_stream(stream))
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let context = |e: Error| context("save_snapshot")(e).with_stream(stream);
        adapter::check_snapshot(&snapshot, self.capabilities()).map_err(context)?;
        self.shared.save_snapshot(stream, &snapshot).await.map_err(context)
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let deleted = self.shared.delete_snapshot(stream).await;
        deleted.map_err(|e| context("delete_snapshot")(e).with_stream(stream))
    }
}

#[async_trait]
impl CheckpointStore for DynamoDbStore {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.shared.load_checkpoint(subscriber).await.map_err(context("load_checkpoint"))
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        self.shared.save_checkpoint(subscriber, position).await.map_err(context("save_checkpoint"))
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let reset = self.shared.reset_checkpoint(subscriber, position).await;
        reset.map_err(context("reset_checkpoint"))
    }
}

#[async_trait]
impl LeaseStore for DynamoDbStore {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.shared.load_lease(name).await.map_err(context("load_lease"))
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.shared.swap_lease(name, record).await.map_err(context("swap_lease"))
    }
}

/// By appends: an item has one record time, and nothing says which streams there are.
impl TransferStore for DynamoDbStore {}
