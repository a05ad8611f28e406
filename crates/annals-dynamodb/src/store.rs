//! The store, and what it does with each call.

use std::{fmt, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, ExpectedVersion, Filter, LeaseName, LeaseRecord, Position,
    ReadAll, ReadStream, Result, Snapshot, StreamId, StreamInfo, SubscriberId, Version,
    adapter::{Adapter, CheckpointSwap, Pages, Tail},
};

use crate::{
    config::DynamoDbOptions,
    head::Head,
    hot::append,
    read::StreamPages,
    read_all::AllPages,
    shared::{CAPABILITIES, Shared},
    subscribe::{AllTail, StreamTail},
};

/// An event store in a DynamoDB table. A clone is another handle to the same store.
#[derive(Clone)]
pub struct DynamoDbStore {
    pub(crate) shared: Arc<Shared>,
}

impl DynamoDbStore {
    /// What a store declares that has an order over all streams. A store without it lacks
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

    /// The options that the store was opened with.
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

/// Imports are appends, because an item has one record time; no index lists the streams.
impl Adapter for DynamoDbStore {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        append(&self.shared, &appends).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        StreamPages::new(self.shared.clone(), stream, options)
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        AllPages::new(self.shared.clone(), options)
    }

    fn follow_stream(&self, stream: StreamId, after: Version, at: Position) -> impl Tail {
        StreamTail::new(self.shared.clone(), stream, after, at)
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        AllTail::new(self.shared.clone(), filter, after)
    }

    async fn last_position(&self) -> Result<Position> {
        self.shared.last_position().await
    }

    async fn greatest_position(&self) -> Result<Position> {
        self.shared.greatest_position().await
    }

    async fn greatest_version(&self, stream: &StreamId) -> Result<Version> {
        Ok(Head::load(&self.shared.table, stream).await?.stream.version)
    }

    async fn version_at(&self, stream: &StreamId, position: Position) -> Result<Version> {
        self.shared.version_at(stream, position).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        self.shared.stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.shared.truncate(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.shared.delete(stream, expected, false).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.shared.delete(stream, expected, true).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        self.shared.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.shared.save_snapshot(stream, &snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.shared.delete_snapshot(stream).await
    }

    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.shared.load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, at: Position) -> Result<Position> {
        self.shared.save_checkpoint(subscriber, at).await
    }

    async fn swap_checkpoint(&self, id: &SubscriberId, swap: CheckpointSwap) -> Result<bool> {
        self.shared.swap_checkpoint(id, swap).await
    }

    async fn reset_checkpoint(&self, id: &SubscriberId, to: Option<Position>) -> Result<()> {
        self.shared.reset_checkpoint(id, to).await
    }

    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.shared.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.shared.swap_lease(name, record).await
    }
}
