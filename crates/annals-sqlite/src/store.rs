//! The traits, mapped to the writer and the readers.

use std::{fmt, slice, sync::Arc, thread::JoinHandle};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    RecordedEvent, Result, Snapshot, SnapshotStore, StreamId, StreamInfo, StreamState, Subscribe,
    SubscriberId, Subscription, TransferStore, Version, adapter,
};
use async_trait::async_trait;
use rusqlite::OptionalExtension;
use tokio::runtime::Handle;

use crate::{
    config::{Location, SqliteConfig},
    database::Database,
    error::{BACKEND, context, corrupt},
    import,
    notify::Notifier,
    queue::{Answer, Command, Queue},
    read::{AllPages, StreamPages, first_version},
    readers::Readers,
    rows::{self, Head},
    subscribe, writer,
};

/// An event store in an SQLite database. A clone is another handle to the same one; when the last
/// handle, read and subscription is dropped, what was queued is still written, and the file is
/// closed.
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) shared: Arc<Shared>,
}

/// All that is closed with the last handle.
pub(crate) struct Shared {
    pub(crate) database: Arc<Database>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    capabilities: Capabilities,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl SqliteStore {
    /// Opens a store, and creates or migrates its tables where that is due. Safe when several
    /// processes do so at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for options and paths that cannot work;
    /// [`ErrorKind::Incompatible`] for a file that is no SQLite database, for tables of somebody
    /// else, and for a store that a newer annals created, which is left as it is;
    /// [`ErrorKind::Busy`], [`ErrorKind::Denied`] and [`ErrorKind::Unavailable`] as they come.
    pub async fn open(config: SqliteConfig) -> Result<Self> {
        let durable = config.location != Location::Memory;
        let opened = blocking(move || {
            let (database, connection) = Database::open(config)?;
            let database = Arc::new(database);
            let notifier = Notifier::of(&database);
            let writer = writer::start(database.clone(), connection, notifier.clone())?;
            Ok((database, notifier, writer))
        });
        let (database, notifier, (queue, writer)) = opened.await.map_err(context("open"))?;
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.durable = durable;
        (capabilities.list_streams, capabilities.exact_import) = (true, true);
        let readers = Arc::new(Readers::new(database.clone()));
        let writer = Some(writer);
        let shared = Shared { database, readers, notifier, queue, writer, capabilities };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How it was opened.
    #[must_use]
    pub fn config(&self) -> &SqliteConfig {
        &self.shared.database.config
    }

    /// Drops this handle and, where it was the last, waits until what was queued is written and the
    /// file is closed, so that it can be moved or deleted. A read or subscription that is still
    /// there keeps the store open; then this does not wait.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the runtime shuts down meanwhile.
    pub async fn close(self) -> Result<()> {
        let Some(mut shared) = Arc::into_inner(self.shared) else { return Ok(()) };
        let writer = shared.writer.take();
        let (readers, notifier) = (shared.readers.clone(), shared.notifier.clone());
        drop(shared);
        readers.close().await;
        drop(readers);
        let closed = blocking(move || {
            // A thread that panicked has ended as well.
            drop(writer.map(JoinHandle::join));
            if let Some(notifier) = Arc::into_inner(notifier) {
                notifier.close();
            }
            Ok(())
        });
        closed.await.map_err(context("close"))
    }

    async fn change(&self, operation: &'static str, command: Command) -> Result<Answer> {
        self.shared.queue.submit(command).await.map_err(context(operation))
    }

    async fn remove(&self, operation: &'static str, command: Command) -> Result<()> {
        let stream = match &command {
            Command::Truncate { stream, .. } | Command::Delete { stream, .. } => stream.clone(),
            _ => return Err(no_answer()),
        };
        adapter::check_writable(&stream).map_err(context(operation))?;
        let done = self.change(operation, command).await;
        done.map(|_| ()).map_err(|e| e.with_stream(&stream))
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Internal, "the writer answered something else")
}

/// Does what may block, off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::try_current().map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "this needs a Tokio runtime").with_source(e)
    })?;
    runtime
        .spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Unavailable, "the runtime shuts down").with_source(e))?
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("config", self.config()).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let stream = append.stream.clone();
        let checked = adapter::check_append(slice::from_ref(&append), self.capabilities());
        checked.map_err(context("append"))?;
        match self.change("append", Command::Append(append)).await {
            Ok(Answer::Appended(appended)) => Ok(appended),
            Ok(_) => Err(context("append")(no_answer())),
            Err(error) => Err(error.with_stream(&stream)),
        }
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let checked = adapter::check_append(&appends, self.capabilities());
        checked.map_err(context("append_multi"))?;
        match self.change("append_multi", Command::AppendMulti(appends)).await? {
            Answer::AppendedMulti(appended) => Ok(appended),
            _ => Err(context("append_multi")(no_answer())),
        }
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let pages = StreamPages::new(self.shared.readers.clone(), stream.clone(), options);
        adapter::read(pages)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        adapter::read(AllPages::new(self.shared.readers.clone(), options))
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let checked = adapter::check_subscribe(&options, self.capabilities());
        checked.map_err(context("subscribe"))?;
        subscribe::subscribe(self.shared.clone(), options).await.map_err(context("subscribe"))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let name = stream.clone();
        let found = self.shared.readers.run(move |db, reader| {
            let Head { row, head, .. } = Head::load(&reader.connection, &db.sql, &name)?;
            let first = row.map(|row| first_version(&reader.connection, &db.sql, row));
            Ok(head.info(first.transpose()?.flatten()))
        });
        found.await.map_err(|e| context("stream_info")(e).with_stream(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.remove("truncate", Command::Truncate { stream: stream.clone(), before }).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, state) = (stream.clone(), StreamState::Deleted);
        self.remove("delete", Command::Delete { stream, expected, state }).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, state) = (stream.clone(), StreamState::Tombstoned);
        self.remove("tombstone", Command::Delete { stream, expected, state }).await
    }
}

#[async_trait]
impl SnapshotStore for SqliteStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let name = stream.clone();
        let found = self.shared.readers.run(move |db, reader| {
            let mut statement = reader.connection.prepare_cached(&db.sql.load_snapshot)?;
            let mut rows = statement.query([name.as_str()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let (data, metadata) = rows::payloads(row, 1)?;
            let version = Version::from_i64(row.get(0)?);
            Ok(Some(Snapshot::new(version, data).with_metadata(metadata)))
        });
        found.await.map_err(|e| context("load_snapshot")(e).with_stream(stream))
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        adapter::check_snapshot(&snapshot, self.capabilities())
            .map_err(context("save_snapshot"))?;
        let command = Command::SaveSnapshot { stream: stream.clone(), snapshot };
        self.change("save_snapshot", command).await?;
        Ok(())
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let command = Command::DeleteSnapshot { stream: stream.clone() };
        self.change("delete_snapshot", command).await?;
        Ok(())
    }
}

#[async_trait]
impl CheckpointStore for SqliteStore {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let name = subscriber.clone();
        let found = self.shared.readers.run(move |db, reader| {
            let kept: Option<i64> = reader
                .connection
                .prepare_cached(&db.sql.load_checkpoint)?
                .query_row([name.as_str()], |row| row.get(0))
                .optional()?;
            Ok(kept.map(Position::from_i64))
        });
        found.await.map_err(context("load_checkpoint"))
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let command = Command::SaveCheckpoint { subscriber: subscriber.clone(), position };
        match self.change("save_checkpoint", command).await? {
            Answer::Kept(position) => Ok(position),
            _ => Err(context("save_checkpoint")(no_answer())),
        }
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let command = Command::ResetCheckpoint { subscriber: subscriber.clone(), position };
        self.change("reset_checkpoint", command).await?;
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let name = name.clone();
        let found = self.shared.readers.run(move |db, reader| {
            let mut statement = reader.connection.prepare_cached(&db.sql.load_lease)?;
            let mut rows = statement.query([name.as_str()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let holder = rows::uuid(row.get_ref(2)?)
                .ok_or_else(|| corrupt("the illegal holder of a lease"))?;
            let numbers = [row.get(0)?, row.get(1)?, row.get(3)?];
            Ok(Some(LeaseRecord::from_stored(numbers, holder)))
        });
        found.await.map_err(context("load_lease"))
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let command = Command::SwapLease { name: name.clone(), record: record.clone() };
        match self.change("swap_lease", command).await? {
            Answer::Swapped(swapped) => Ok(swapped),
            _ => Err(context("swap_lease")(no_answer())),
        }
    }
}

#[async_trait]
impl TransferStore for SqliteStore {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let after = after.map(|id| id.as_str().to_owned()).unwrap_or_default();
        let found =
            self.shared.readers.run(move |db, reader| import::list(db, reader, &after, limit));
        found.await.map_err(context("list_streams"))
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        adapter::check_import(&events, self.capabilities()).map_err(context("import"))?;
        self.change("import", Command::Import(events)).await.map(|_| ())
    }
}
