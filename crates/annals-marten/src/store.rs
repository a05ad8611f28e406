//! The store, and its methods mapped to the files that do the work.

use std::{fmt, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, ExpectedVersion, Filter, LeaseName, LeaseRecord, Position,
    ReadAll, ReadStream, RecordedEvent, Result, Snapshot, StreamId, StreamInfo, StreamState,
    SubscriberId, Version,
    adapter::{Adapter, CheckpointSwap, Pages, Tail},
};
use annals_postgres_shared::subscribe;

use crate::{
    append,
    config::MartenOptions,
    database::Database,
    import,
    manage::{self, StoredStream},
    read::StreamPages,
    read_all::AllPages,
};

/// The event tables of Marten as an event store. A clone is another handle to the same store. It works
/// in the Tokio runtime in which it was opened.
#[derive(Clone)]
pub struct MartenStore {
    pub(crate) database: Arc<Database>,
    pub(crate) options: Arc<MartenOptions>,
    pub(crate) capabilities: Arc<Capabilities>,
}

impl fmt::Debug for MartenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MartenStore").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Adapter for MartenStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        append::append(&self.database, appends).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        StreamPages::new(self.database.clone(), stream, options)
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        AllPages::new(self.database.clone(), options)
    }

    fn follow_stream(&self, stream: StreamId, after: Version, _at: Position) -> impl Tail {
        let pages = StreamPages::live(self.database.clone(), stream, after);
        subscribe::tail(&self.database.connections, &self.database.notifier, pages)
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        let pages = AllPages::live(self.database.clone(), filter, after);
        subscribe::tail(&self.database.connections, &self.database.notifier, pages)
    }

    async fn last_position(&self) -> Result<Position> {
        self.database.horizon.reach().await
    }

    async fn greatest_position(&self) -> Result<Position> {
        self.database.greatest_position().await
    }

    async fn version_at(&self, stream: &StreamId, position: Position) -> Result<Version> {
        manage::version_at(&self.database, stream, position).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        StoredStream::load(&self.database, stream).await.map(|stored| stored.info())
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        manage::truncate(&self.database, stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        manage::close(&self.database, stream, expected, StreamState::Deleted).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        manage::close(&self.database, stream, expected, StreamState::Tombstoned).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        self.database.records.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.database.records.save_snapshot(stream, &snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.database.records.delete_snapshot(stream).await
    }

    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.database.records.load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, to: Position) -> Result<Position> {
        self.database.records.save_checkpoint(subscriber, to).await
    }

    async fn swap_checkpoint(&self, id: &SubscriberId, swap: CheckpointSwap) -> Result<bool> {
        self.database.records.swap_checkpoint(id, swap).await
    }

    async fn reset_checkpoint(&self, id: &SubscriberId, to: Option<Position>) -> Result<()> {
        self.database.records.reset_checkpoint(id, to).await
    }

    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.database.records.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.database.records.swap_lease(name, record).await
    }

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        manage::list_streams(&self.database, after, limit).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        import::import(&self.database, events).await
    }
}
