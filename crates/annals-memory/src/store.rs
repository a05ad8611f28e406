//! The store: maps each method of an [`Adapter`] to the state behind its lock.

use annals_core::{
    Append, Appended, Capabilities, ExpectedVersion, Filter, LeaseName, LeaseRecord, Position,
    ReadAll, ReadStream, Recognition, RecordedEvent, Result, Snapshot, StreamId, StreamInfo,
    StreamState, SubscriberId, Version,
    adapter::{Adapter, CheckpointSwap, Live, Pages, Tail},
};

use crate::{
    pages::{AllPages, StreamPages},
    state::SharedState,
};

/// An event store in memory. A clone is another handle to the same events.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: SharedState,
    capabilities: Capabilities,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let mut capabilities = Capabilities::new("memory");
        capabilities.retry_recognition = Recognition::Guaranteed;
        capabilities.list_streams = true;
        capabilities.exact_import = true;
        Self { state: SharedState::default(), capabilities }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Adapter for MemoryStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.state.write().append(appends)
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        StreamPages { state: self.state.clone(), stream, options }
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        AllPages { state: self.state.clone(), options }
    }

    fn follow_stream(&self, stream: StreamId, after: Version, _at: Position) -> impl Tail {
        let options = ReadStream::default().with_from(after.plus(1));
        Live::new(self.stream_pages(stream, options), self.state.read().subscribe())
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        let options = ReadAll::default().with_filter(filter).after(after);
        Live::new(self.all_pages(options), self.state.read().subscribe())
    }

    async fn last_position(&self) -> Result<Position> {
        Ok(self.state.read().last_position())
    }

    async fn version_at(&self, stream: &StreamId, position: Position) -> Result<Version> {
        Ok(self.state.read().version_at(stream, position))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        Ok(self.state.read().info(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.state.write().truncate(stream, before)
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.state.write().delete(stream, expected, StreamState::Deleted)
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.state.write().delete(stream, expected, StreamState::Tombstoned)
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        Ok(self.state.read().snapshots.get(stream).cloned())
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.state.write().save_snapshot(stream, snapshot);
        Ok(())
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.state.write().snapshots.remove(stream);
        Ok(())
    }

    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        Ok(self.state.read().checkpoints.get(subscriber).copied())
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        Ok(self.state.write().save_checkpoint(subscriber, position))
    }

    async fn swap_checkpoint(&self, id: &SubscriberId, swap: CheckpointSwap) -> Result<bool> {
        Ok(self.state.write().swap_checkpoint(id, swap))
    }

    async fn reset_checkpoint(&self, id: &SubscriberId, to: Option<Position>) -> Result<()> {
        self.state.write().reset_checkpoint(id, to);
        Ok(())
    }

    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        Ok(self.state.read().leases.get(name).cloned())
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        Ok(self.state.write().swap_lease(name, record))
    }

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        Ok(self.state.read().list_streams(after, limit))
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.state.write().import(events)
    }
}
