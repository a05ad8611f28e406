//! The traits that a store implements, and the conveniences that come with them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::{TryFutureExt, TryStreamExt};

use crate::{
    Append, Appended, Capabilities, Error, EventStream, ExpectedVersion, LeaseStore, NewEvent,
    Payload, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId, Subscribe,
    SubscriberId, Subscription, TransferStore, Version,
};

/// An event store. The crate's documentation says what every one promises; conveniences are in
/// [`EventStoreExt`], help for those who implement it in [`adapter`](crate::adapter).
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// What this store can do.
    fn capabilities(&self) -> &Capabilities;

    /// Writes events to one stream, all or none.
    ///
    /// Dropping the future leaves the append done whole or not at all. Trying again with the same
    /// events and the same expectation is safe: where it had been written, the first answer comes
    /// again, with [`Appended::replayed`] where the store [tells](Capabilities::tells_retries).
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) where the expectation does not hold;
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) for a tombstoned stream;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for no events at all and for names that
    /// begin with `$`; [`LimitExceeded`](crate::ErrorKind::LimitExceeded). Where
    /// [`Error::outcome_unknown`] is false, nothing was written.
    async fn append(&self, append: Append) -> Result<Appended>;

    /// Writes events to several different streams, all or none, each under its own expectation.
    /// The answers come in the order of the appends.
    ///
    /// # Errors
    /// As for [`EventStore::append`]; the conflict is that of the first stream that has one.
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capabilities::multi_stream_append`].
    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>>;

    /// Reads one stream in version order. A stream that does not exist reads as empty.
    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream;

    /// Reads over all streams in position order.
    ///
    /// # Errors
    /// As the first item: [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capabilities::global_order`].
    fn read_all(&self, options: ReadAll) -> EventStream;

    /// Subscribes: what is there already, then what comes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for
    /// [`Start::AfterVersion`](crate::Start::AfterVersion) with more than one stream;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for more than one stream, or a start by
    /// position, without [`Capabilities::global_order`].
    async fn subscribe(&self, options: Subscribe) -> Result<Subscription>;

    /// Whether a stream exists, and its versions.
    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo>;

    /// Removes the events of a stream before a version. Its version stays, even where no event is
    /// left. A stream that does not exist stays so.
    ///
    /// # Errors
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) for a tombstoned stream;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::truncate`].
    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()>;

    /// Deletes a stream, and its snapshot: it reads as empty, `NoStream` and `Exact` of its last
    /// version both hold, and the next append continues its numbering. A stream that does not
    /// exist stays so.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) where the expectation does not hold;
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) for a tombstoned stream;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::delete`].
    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()>;

    /// Deletes a stream, and its snapshot, for ever: every later write to it is refused. The
    /// stream need not exist.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) where the expectation does not hold;
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) where it was tombstoned before;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::tombstone`].
    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()>;
}

/// Whether a stream exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamState {
    /// Nothing was ever appended.
    Missing,
    /// It exists, even where every event was truncated.
    Live,
    /// It was deleted; an append brings it back.
    Deleted,
    /// It was tombstoned; nothing brings it back.
    Tombstoned,
}

/// What [`EventStore::stream_info`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Whether the stream exists.
    pub state: StreamState,
    /// The version of its last event, deleted or not; 0 where it never had one.
    pub version: Version,
    /// The version of the first event that can still be read; none where there is no such event.
    pub first_version: Option<Version>,
}

impl StreamInfo {
    /// For adapters: what is known of a stream.
    #[must_use]
    pub fn new(state: StreamState, version: Version, first_version: Option<Version>) -> Self {
        Self { state, version, first_version }
    }

    /// Whether something was appended that was not deleted since.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state == StreamState::Live
    }
}

/// The state of a stream as it was at some version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The version of the last event that is part of the state.
    pub version: Version,
    /// The state.
    pub data: Payload,
    /// What the application wants to know about it, such as the schema of the state.
    pub metadata: Payload,
}

impl Snapshot {
    /// A snapshot without metadata.
    pub fn new(version: impl Into<Version>, data: Payload) -> Self {
        Self { version: version.into(), data, metadata: Payload::empty() }
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Payload) -> Self {
        self.metadata = metadata;
        self
    }

    /// The bytes of data and metadata.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.metadata.len()
    }
}

/// Keeps the latest snapshot of each stream. What is not implemented refuses.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// The latest snapshot.
    async fn load_snapshot(&self, _stream: &StreamId) -> Result<Option<Snapshot>> {
        Err(Error::unsupported("snapshots"))
    }

    /// Keeps a snapshot, unless the one that is kept is of a later version.
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) where it is larger than an event may be.
    async fn save_snapshot(&self, _stream: &StreamId, _snapshot: Snapshot) -> Result<()> {
        Err(Error::unsupported("snapshots"))
    }

    /// Forgets the snapshot, where there is one.
    async fn delete_snapshot(&self, _stream: &StreamId) -> Result<()> {
        Err(Error::unsupported("snapshots"))
    }
}

/// Keeps the last position of each subscriber. What is not implemented refuses.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The position that is kept.
    async fn load_checkpoint(&self, _subscriber: &SubscriberId) -> Result<Option<Position>> {
        Err(Error::unsupported("checkpoints"))
    }

    /// Keeps a position, unless the one that is kept is greater: a checkpoint never moves back by
    /// this. Returns what is kept now.
    async fn save_checkpoint(
        &self,
        _subscriber: &SubscriberId,
        _position: Position,
    ) -> Result<Position> {
        Err(Error::unsupported("checkpoints"))
    }

    /// Sets the checkpoint to any position, or forgets it.
    async fn reset_checkpoint(
        &self,
        _subscriber: &SubscriberId,
        _position: Option<Position>,
    ) -> Result<()> {
        Err(Error::unsupported("checkpoints"))
    }
}

/// All that a backend of annals gives: what `annals::connect` returns, as an `Arc<dyn Store>`.
pub trait Store: TransferStore + SnapshotStore + CheckpointStore + LeaseStore {}

impl<T: TransferStore + SnapshotStore + CheckpointStore + LeaseStore + ?Sized> Store for T {}

/// Conveniences on every [`EventStore`].
#[async_trait]
pub trait EventStoreExt: EventStore {
    /// [`EventStore::append`], with anything that can become a stream id.
    ///
    /// # Errors
    /// As for [`EventStore::append`].
    async fn append_to<S, E, I>(&self, stream: S, expected: E, events: I) -> Result<Appended>
    where
        S: TryInto<StreamId, Error: Into<Error>> + Send,
        E: Into<ExpectedVersion> + Send,
        I: IntoIterator<Item = NewEvent> + Send,
    {
        let stream = stream.try_into().map_err(Into::into)?;
        // Made before the await, so that the iterator need not live across it.
        let append = Append::new(stream, expected, events);
        self.append(append).await
    }

    /// All events of one stream. Takes memory for all of them: for streams that may be long use
    /// [`EventStore::read_stream`].
    ///
    /// # Errors
    /// As for [`EventStore::read_stream`].
    async fn load_stream(&self, stream: &StreamId) -> Result<Vec<RecordedEvent>> {
        self.read_stream(stream, ReadStream::default()).try_collect().await
    }

    /// The position of the last event of the store, or [`Position::START`].
    ///
    /// # Errors
    /// As for [`EventStore::read_all`].
    async fn last_position(&self) -> Result<Position> {
        let mut last = self.read_all(ReadAll::default().backwards().with_limit(1));
        last.try_next().map_ok(|event| event.map_or(Position::START, |e| e.position)).await
    }
}

impl<T: EventStore + ?Sized> EventStoreExt for T {}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: EventStore + ?Sized> EventStore for Arc<T> {
    fn capabilities(&self) -> &Capabilities {
        (**self).capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        (**self).append(append).await
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        (**self).append_multi(appends).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        (**self).read_stream(stream, options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        (**self).read_all(options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        (**self).subscribe(options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        (**self).stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        (**self).truncate(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        (**self).delete(stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        (**self).tombstone(stream, expected).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: SnapshotStore + ?Sized> SnapshotStore for Arc<T> {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        (**self).load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        (**self).save_snapshot(stream, snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        (**self).delete_snapshot(stream).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: CheckpointStore + ?Sized> CheckpointStore for Arc<T> {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        (**self).load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        (**self).save_checkpoint(subscriber, position).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        (**self).reset_checkpoint(subscriber, position).await
    }
}
