//! The traits, mapped to the state behind its lock.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    Recognition, RecordedEvent, Result, Snapshot, SnapshotStore, Source, Start, StreamId,
    StreamInfo, StreamState, Subscribe, SubscriberId, Subscription, TransferStore, Version,
    adapter,
};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    read::{AllPages, Live, StreamPages},
    state::State,
};

/// The name of this backend.
const BACKEND: &str = "memory";

/// An event store in memory. A clone is another handle to the same events.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    /// The last position, for those who wait for the next.
    pub(crate) appended: watch::Sender<Position>,
}

impl Shared {
    // Every change is made of steps that cannot panic half-way, so a poisoned lock is sound.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.retry_recognition = Recognition::Guaranteed;
        (capabilities.list_streams, capabilities.exact_import) = (true, true);
        let appended = watch::Sender::new(Position::START);
        Self { shared: Arc::new(Shared { state: RwLock::default(), appended }), capabilities }
    }

    fn write(&self, operation: &'static str, appends: Vec<Append>) -> Result<Vec<Appended>> {
        adapter::check_append(&appends, &self.capabilities)
            .and_then(|()| {
                let mut state = self.shared.write();
                let appended = state.append(appends)?;
                // Sent under the lock, so that positions are announced in their order.
                self.shared.appended.send_replace(state.last_position());
                Ok(appended)
            })
            .map_err(context(operation))
    }

    fn remove(
        &self,
        operation: &'static str,
        stream: &StreamId,
        expected: ExpectedVersion,
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        let mut state = self.shared.write();
        adapter::check_writable(stream)
            .and_then(|()| state.head(stream).check(stream, expected))
            .map_err(context(operation))?;
        change(&mut state);
        Ok(())
    }
}

fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend(BACKEND).with_operation(operation)
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let appended = self.write("append", vec![append])?;
        appended.first().copied().ok_or_else(|| Error::new(ErrorKind::Internal, "no answer"))
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.write("append_multi", appends)
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        adapter::read(StreamPages::new(self.shared.clone(), stream.clone(), options))
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        adapter::read(AllPages::new(self.shared.clone(), options))
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        adapter::check_subscribe(&options, &self.capabilities).map_err(context("subscribe"))?;
        let shared = self.shared.clone();
        let appended = shared.appended.subscribe();
        let state = self.shared.read();
        let after = match options.start {
            Start::Beginning | Start::AfterVersion(_) => Position::START,
            Start::After(position) => position,
            Start::End => state.last_position(),
        };
        Ok(match options.source {
            Source::All(filter) => {
                let options = ReadAll::default().with_filter(filter).after(after);
                adapter::subscribe(Live::new(appended, AllPages::new(shared, options)), after)
            }
            Source::Stream(stream) => {
                let version = match options.start {
                    Start::AfterVersion(version) => version,
                    _ => state.version_at(&stream, after),
                };
                let options = ReadStream::default().with_from(version.plus(1));
                let pages = StreamPages::new(shared, stream, options);
                adapter::subscribe(Live::new(appended, pages), after)
            }
        })
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        Ok(self.shared.read().info(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.remove("truncate", stream, ExpectedVersion::Any, |state| {
            state.truncate(stream, before);
        })
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.remove("delete", stream, expected, |state| state.delete(stream, StreamState::Deleted))
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.remove("tombstone", stream, expected, |state| {
            state.delete(stream, StreamState::Tombstoned);
        })
    }
}

#[async_trait]
impl SnapshotStore for MemoryStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        Ok(self.shared.read().snapshots.get(stream).cloned())
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        adapter::check_snapshot(&snapshot, &self.capabilities).map_err(context("save_snapshot"))?;
        let mut state = self.shared.write();
        if state.snapshots.get(stream).is_none_or(|kept| kept.version <= snapshot.version) {
            state.snapshots.insert(stream.clone(), snapshot);
        }
        Ok(())
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.shared.write().snapshots.remove(stream);
        Ok(())
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        Ok(self.shared.read().checkpoints.get(subscriber).copied())
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let mut state = self.shared.write();
        let kept = state.checkpoints.entry(subscriber.clone()).or_default();
        *kept = position.max(*kept);
        Ok(*kept)
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let mut state = self.shared.write();
        match position {
            Some(position) => state.checkpoints.insert(subscriber.clone(), position),
            None => state.checkpoints.remove(subscriber),
        };
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        Ok(self.shared.read().leases.get(name).cloned())
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let mut state = self.shared.write();
        let kept = state.leases.get(name).map_or(0, |kept| kept.revision);
        if kept.checked_add(1) != Some(record.revision) {
            return Ok(false);
        }
        state.leases.insert(name.clone(), record.clone());
        Ok(true)
    }
}

#[async_trait]
impl TransferStore for MemoryStore {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        Ok(self.shared.read().list(after, limit))
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        adapter::check_import(&events, &self.capabilities)
            .and_then(|()| {
                let mut state = self.shared.write();
                state.import(events)?;
                self.shared.appended.send_replace(state.last_position());
                Ok(())
            })
            .map_err(context("import"))
    }
}
