//! The traits, mapped to what does the work.

use std::{fmt, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    Recognition, Removal, Result, Snapshot, SnapshotStore, StreamId, StreamInfo, Subscribe,
    SubscriberId, Subscription, TransferStore, Version, adapter,
};
use async_trait::async_trait;
use futures::TryStreamExt;
use kurrentdb::{Client, Credentials, ReadStreamOptions};

use crate::{
    append,
    config::{EventStoreDbConfig, EventStoreDbOptions},
    connection::{Connection, client},
    doorbell::Doorbells,
    error::{BACKEND, context},
    keep, manage,
    names::{self, Names},
    read, subscribe,
};

/// An event store on EventStoreDB or KurrentDB. A clone is another handle to the same one. It works
/// in the Tokio runtime in which it was opened.
#[derive(Clone)]
pub struct EventStoreDbStore {
    shared: Arc<Shared>,
}

/// All that ends with the last handle, read and subscription.
pub(crate) struct Shared {
    pub(crate) connection: Connection,
    pub(crate) bells: Arc<Doorbells>,
    pub(crate) names: Names,
    pub(crate) options: EventStoreDbOptions,
}

/// What every store of this crate can do.
pub(crate) static CAPABILITIES: Capabilities = {
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    capabilities.multi_stream_append = false;
    capabilities.retry_recognition = Recognition::BestEffort;
    capabilities.tells_retries = false;
    capabilities.removal = Removal::AfterCleanUp;
    // The server takes 1 MiB for a whole append, unless told otherwise, and counts the types.
    capabilities.max_event_bytes = 1_000_000;
    capabilities.max_append_bytes = 1_000_000;
    capabilities
};

impl EventStoreDbStore {
    /// What every store of this crate can do.
    #[must_use]
    pub fn declared() -> &'static Capabilities {
        &CAPABILITIES
    }

    /// Opens a store with a client of its own. There is nothing to create: it only looks whether
    /// the server answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for options that cannot
    /// work; [`ErrorKind::Denied`](annals_core::ErrorKind::Denied) for wrong credentials;
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) where no server can be
    /// reached.
    pub async fn open(config: EventStoreDbConfig) -> Result<Self> {
        let EventStoreDbConfig { settings, credentials, options } = config;
        let made = options.check().and_then(|()| client(&settings));
        Self::open_with(made.map_err(context("open"))?, credentials, options).await
    }

    /// Opens a store with the settings and credentials of a client that the application has. That
    /// client is the one that it begins with; where it gives up, the store makes another.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn with_client(client: Client, options: EventStoreDbOptions) -> Result<Self> {
        options.check().map_err(context("open"))?;
        let credentials = client.settings().default_authenticated_user().clone();
        Self::open_with(client, credentials, options).await
    }

    async fn open_with(
        client: Client,
        credentials: Option<Credentials>,
        options: EventStoreDbOptions,
    ) -> Result<Self> {
        let bells = Arc::new(Doorbells::new(client.settings(), credentials.as_ref()));
        let EventStoreDbOptions { deadline, retry_for, .. } = options;
        let connection = Connection::new(client, credentials, deadline, retry_for);
        let names = Names::new(options.namespace.as_deref());
        let shared = Shared { connection, bells, names, options };
        shared.look().await.map_err(context("open"))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What it is like.
    #[must_use]
    pub fn options(&self) -> &EventStoreDbOptions {
        &self.shared.options
    }

    /// The version of the server that the client talks to, as in `24.10.0`; none where the server
    /// does not tell.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) where it cannot be reached.
    pub async fn server_version(&self) -> Result<Option<String>> {
        let asked = self.shared.connection.once(|client| async move { client.server_info().await });
        let info =
            asked.await.map_err(|failure| context("server_version")(failure.into_error()))?;
        let version = info.version();
        let (major, minor, patch) = (version.major(), version.minor(), version.patch());
        Ok((major > 0).then(|| format!("{major}.{minor}.{patch}")))
    }

    async fn remove(
        &self,
        operation: &'static str,
        stream: &StreamId,
        expected: ExpectedVersion,
        removal: manage::Removal,
    ) -> Result<()> {
        check_writable(stream).map_err(context(operation))?;
        let removed = manage::remove(&self.shared, stream, expected, removal).await;
        removed.map_err(|e| context(operation)(e).with_stream(stream))
    }
}

impl Shared {
    /// Whether the server answers, and to these credentials.
    async fn look(&self) -> Result<()> {
        let options = ReadStreamOptions::default().max_count(1);
        let options = self.connection.identify_briefly(options);
        let name = format!("{}annals.open", self.names.prefix());
        let looked = self
            .connection
            .once(|client| async move { client.read_stream(name, &options).await?.next().await });
        match looked.await {
            Err(failure) if !failure.is_not_found() && !failure.is_deleted() => {
                Err(failure.into_error())
            }
            _ => Ok(()),
        }
    }
}

fn check_writable(stream: &StreamId) -> Result<()> {
    adapter::check_writable(stream)?;
    names::check(stream)
}

/// Adds where the errors of a read came from.
fn located(events: EventStream, operation: &'static str, stream: Option<StreamId>) -> EventStream {
    Box::pin(events.map_err(move |error| {
        let error = context(operation)(error);
        match &stream {
            Some(stream) => error.with_stream(stream),
            None => error,
        }
    }))
}

impl fmt::Debug for EventStoreDbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStoreDbStore")
            .field("connection", &self.shared.connection)
            .field("options", self.options())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for EventStoreDbStore {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let stream = append.stream.clone();
        let appended = append::append(&self.shared, append).await;
        appended.map_err(|e| context("append")(e).with_stream(&stream))
    }

    async fn append_multi(&self, mut appends: Vec<Append>) -> Result<Vec<Appended>> {
        if let [_, _, ..] = appends[..] {
            return Err(context("append_multi")(Error::unsupported("multi-stream append")));
        }
        match appends.pop() {
            Some(append) => {
                let appended = append::append(&self.shared, append).await;
                appended.map(|appended| vec![appended]).map_err(context("append_multi"))
            }
            None => adapter::check_append(&[], self.capabilities())
                .map(|()| Vec::new())
                .map_err(context("append_multi")),
        }
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let events = read::read_stream(self.shared.clone(), stream, &options);
        located(events, "read_stream", Some(stream.clone()))
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        located(read::read_all(self.shared.clone(), options), "read_all", None)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let checked = adapter::check_subscribe(&options, self.capabilities());
        checked.map_err(context("subscribe"))?;
        subscribe::subscribe(self.shared.clone(), options).await.map_err(context("subscribe"))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let info = manage::stream_info(&self.shared, stream).await;
        info.map_err(|e| context("stream_info")(e).with_stream(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        check_writable(stream).map_err(context("truncate"))?;
        let truncated = manage::truncate(&self.shared, stream, before).await;
        truncated.map_err(|e| context("truncate")(e).with_stream(stream))
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.remove("delete", stream, expected, manage::Removal::Deletion).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.remove("tombstone", stream, expected, manage::Removal::Tombstone).await
    }
}

#[async_trait]
impl SnapshotStore for EventStoreDbStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let found = keep::load_snapshot(&self.shared, stream).await;
        found.map_err(|e| context("load_snapshot")(e).with_stream(stream))
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let checked = adapter::check_snapshot(&snapshot, self.capabilities());
        checked.map_err(context("save_snapshot"))?;
        let saved = keep::save_snapshot(&self.shared, stream, &snapshot).await;
        saved.map_err(|e| context("save_snapshot")(e).with_stream(stream))
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let deleted = keep::forget_snapshot(&self.shared, stream, None).await;
        deleted.map_err(|e| context("delete_snapshot")(e).with_stream(stream))
    }
}

#[async_trait]
impl CheckpointStore for EventStoreDbStore {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let found = keep::load_checkpoint(&self.shared, subscriber).await;
        found.map_err(context("load_checkpoint"))
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let kept = keep::save_checkpoint(&self.shared, subscriber, position).await;
        kept.map_err(context("save_checkpoint"))
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let reset = keep::reset_checkpoint(&self.shared, subscriber, position).await;
        reset.map_err(context("reset_checkpoint"))
    }
}

#[async_trait]
impl LeaseStore for EventStoreDbStore {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        keep::load_lease(&self.shared, name).await.map_err(context("load_lease"))
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        keep::swap_lease(&self.shared, name, record).await.map_err(context("swap_lease"))
    }
}

/// By appends: the protocol has no record times to set, and no list of streams.
impl TransferStore for EventStoreDbStore {}
