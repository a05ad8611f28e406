//! The store: maps each method of an [`Adapter`] to the readers and the writer.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Capabilities, ExpectedVersion, Filter, LeaseName, LeaseRecord, NewEvent,
    Position, ReadAll, ReadStream, RecordedEvent, Result, Snapshot, StreamId, StreamInfo,
    StreamState, SubscriberId, Version,
    adapter::{Adapter, CheckpointSwap, Pages, Tail},
};

use crate::{
    engine::Engine,
    queue,
    read::{AllPages, StreamPages},
    subscribe::follow,
};

/// An event store in an SQLite database. A clone is another handle to the same store.
///
/// When the last handle and the last subscription are dropped, the store closes the file. Unless
/// calls were cancelled, the file then has all events, so that it can be copied without its `-wal`
/// file. This blocks the thread for some milliseconds; [`SqliteStore::close`] does not. Appends that
/// were cancelled after they had been queued are still written, in the background.
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) engine: Arc<Engine>,
    pub(crate) capabilities: Capabilities,
}

impl Adapter for SqliteStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let bytes = queue::bytes(appends.iter().flat_map(|a| &a.events).map(NewEvent::size));
        self.engine.write_large(bytes, move |session| session.append(&appends)).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        StreamPages::new(self.engine.readers.clone(), stream, options)
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        AllPages::new(self.engine.readers.clone(), options)
    }

    fn follow_stream(&self, stream: StreamId, after: Version, _at: Position) -> impl Tail {
        let options = ReadStream::default().with_from(after.plus(1));
        follow(&self.engine, self.stream_pages(stream, options))
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        follow(&self.engine, self.all_pages(ReadAll::default().with_filter(filter).after(after)))
    }

    async fn last_position(&self) -> Result<Position> {
        self.engine.read(|reader| reader.last_position()).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let stream = stream.clone();
        self.engine.read(move |reader| reader.stream_info(&stream)).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let stream = stream.clone();
        self.engine.write(move |session| session.truncate(&stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, to) = (stream.clone(), StreamState::Deleted);
        self.engine.write(move |session| session.delete(&stream, expected, to)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, to) = (stream.clone(), StreamState::Tombstoned);
        self.engine.write(move |session| session.delete(&stream, expected, to)).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let stream = stream.clone();
        self.engine.read(move |reader| reader.load_snapshot(&stream)).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let (stream, bytes) = (stream.clone(), snapshot.size());
        let save = self.engine.write_large(bytes, move |s| s.save_snapshot(&stream, &snapshot));
        save.await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let stream = stream.clone();
        self.engine.write(move |session| session.delete_snapshot(&stream)).await
    }

    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let subscriber = subscriber.clone();
        self.engine.read(move |reader| reader.load_checkpoint(&subscriber)).await
    }

    async fn save_checkpoint(&self, id: &SubscriberId, position: Position) -> Result<Position> {
        let id = id.clone();
        self.engine.write(move |session| session.save_checkpoint(&id, position)).await
    }

    async fn swap_checkpoint(&self, id: &SubscriberId, swap: CheckpointSwap) -> Result<bool> {
        let id = id.clone();
        self.engine.write(move |session| session.swap_checkpoint(&id, swap)).await
    }

    async fn reset_checkpoint(&self, id: &SubscriberId, position: Option<Position>) -> Result<()> {
        let id = id.clone();
        self.engine.write(move |session| session.reset_checkpoint(&id, position)).await
    }

    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let name = name.clone();
        self.engine.read(move |reader| reader.load_lease(&name)).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let (name, record) = (name.clone(), record.clone());
        self.engine.write(move |session| session.swap_lease(&name, &record)).await
    }

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let after = after.cloned();
        self.engine.read(move |reader| reader.list_streams(after.as_ref(), limit)).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        let bytes = queue::bytes(events.iter().map(RecordedEvent::size));
        self.engine.write_large(bytes, move |session| session.import(&events)).await
    }
}
