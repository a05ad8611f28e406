//! The store, and the methods of [`Adapter`] mapped to the files that do the work.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Capabilities, Error, ExpectedVersion, Filter, LeaseName, LeaseRecord,
    Position, ReadAll, ReadStream, Result, Snapshot, Start, StreamId, StreamInfo, SubscriberId,
    Version,
    adapter::{Adapter, CheckpointSwap, Pages, Tail},
};

use crate::{
    append,
    config::EventStoreDbOptions,
    follow_all, follow_stream, manage,
    message::RemovalKind,
    read, reader, records,
    server::{CAPABILITIES, Server},
    subscribe,
};

/// An event store on EventStoreDB or KurrentDB. A clone is another handle to the same store. It
/// works in the Tokio runtime in which it was opened.
#[derive(Clone, Debug)]
pub struct EventStoreDbStore {
    pub(crate) server: Arc<Server>,
}

impl EventStoreDbStore {
    /// What every store of this crate can do.
    #[must_use]
    pub fn declared() -> &'static Capabilities {
        &CAPABILITIES
    }

    /// The options that the store was opened with.
    #[must_use]
    pub fn options(&self) -> &EventStoreDbOptions {
        &self.server.options
    }
}

impl Adapter for EventStoreDbStore {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let several = |_| Error::unsupported("multi-stream append");
        let [append] = <[Append; 1]>::try_from(appends).map_err(several)?;
        Ok(vec![append::append(&self.server, append).await?])
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        read::StreamPages::new(self.server.clone(), stream, &options)
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        read::AllPages::new(self.server.clone(), options)
    }

    fn follow_stream(&self, stream: StreamId, after: Version, at: Position) -> impl Tail {
        follow_stream::follow_stream(&self.server, stream, after, at)
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        follow_all::follow_all(&self.server, filter, after)
    }

    async fn last_position(&self) -> Result<Position> {
        reader::last_position(&self.server).await
    }

    async fn greatest_position(&self) -> Result<Position> {
        reader::greatest_position(&self.server).await
    }

    async fn greatest_version(&self, stream: &StreamId) -> Result<Version> {
        manage::greatest_version(&self.server, stream).await
    }

    async fn version_at(&self, stream: &StreamId, position: Position) -> Result<Version> {
        subscribe::version_at(&self.server, stream, position).await
    }

    async fn start_in(&self, stream: &StreamId, start: Start) -> Result<(Version, Position)> {
        subscribe::start_in(&self.server, stream, start).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        manage::stream_info(&self.server, stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        manage::truncate(&self.server, stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        manage::remove(&self.server, stream, expected, RemovalKind::Deletion).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        manage::remove(&self.server, stream, expected, RemovalKind::Tombstone).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        records::load_snapshot(&self.server, stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        records::save_snapshot(&self.server, stream, &snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        records::delete_snapshot(&self.server, stream).await
    }

    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        records::load_checkpoint(&self.server, subscriber).await
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, at: Position) -> Result<Position> {
        records::save_checkpoint(&self.server, subscriber, at).await
    }

    async fn swap_checkpoint(&self, id: &SubscriberId, swap: CheckpointSwap) -> Result<bool> {
        records::swap_checkpoint(&self.server, id, swap).await
    }

    async fn reset_checkpoint(&self, id: &SubscriberId, to: Option<Position>) -> Result<()> {
        records::reset_checkpoint(&self.server, id, to).await
    }

    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        records::load_lease(&self.server, name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        records::swap_lease(&self.server, name, record).await
    }
}
