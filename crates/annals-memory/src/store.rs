//! The store: maps each method of an [`Adapter`] to the state behind its lock.

use annals_core::{
    Append, Appended, Capabilities, ExpectedVersion, Filter, Position, ReadAll, ReadStream,
    Recognition, RecordedEvent, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::{
        Adapter, Cursor, Live, Pages, RecordChange, RecordKey, StreamHead, StreamsMut, Tail,
    },
};
use bytes::Bytes;

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
        let mut state = self.state.write();
        let appended = state.append(appends);
        state.wake();
        appended
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        let cursor = Cursor::of_stream(&options);
        StreamPages { state: self.state.clone(), stream, cursor }
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        let cursor = Cursor::of_all(&options);
        AllPages { state: self.state.clone(), filter: options.filter, cursor }
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

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        Ok(self.state.read().info(stream))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.state.write().truncate(stream, before)
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.state.write().close(stream, expected, StreamState::Deleted)
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.state.write().close(stream, expected, StreamState::Tombstoned)
    }

    async fn load_record(&self, key: RecordKey) -> Result<Option<Bytes>> {
        Ok(self.state.read().record(&key))
    }

    async fn change_record<T: Send + 'static>(
        &self,
        key: RecordKey,
        change: impl Fn(Option<Bytes>, StreamHead) -> Result<(RecordChange, T)> + Send + 'static,
    ) -> Result<T> {
        self.state.write().change_record(key, change)
    }

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        Ok(self.state.read().list_streams(after, limit))
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        let mut state = self.state.write();
        let imported = state.import(events);
        state.wake();
        imported
    }
}
