//! The traits that a store implements, and the extension trait with its conveniences.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{TryFutureExt, TryStreamExt};

use crate::{
    Append, Appended, Capabilities, Error, EventStream, ExpectedVersion, LeaseStore, NewEvent,
    Payload, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId, StreamInfo, Subscribe,
    SubscriberId, Subscription, TransferStore, Version,
    since::{position_before, version_before},
};

/// An event store. The [documentation of this crate](crate) says what every store promises.
/// [`EventStoreExt`] adds conveniences for callers; [`adapter`](crate::adapter) is for those who
/// implement a store.
///
/// ```
/// use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
///
/// async fn pay(store: &dyn EventStore) -> Result<()> {
///     let stream = StreamId::new("order-42")?;
///     let events = store.load_stream(&stream).await?;
///     // … decide, on these events, that the order can be paid …
///     let last = events.last().map_or(ExpectedVersion::NoStream, |event| event.version.into());
///     let paid = NewEvent::json("OrderPaid", &serde_json::json!({ "cents": 4000 }))?;
///     // If another writer has appended since the load, this is a conflict, and nothing is written.
///     store.append_to(&stream, last, [paid]).await?;
///     Ok(())
/// }
/// ```
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// What this store can do, and its limits.
    fn capabilities(&self) -> &Capabilities;

    /// Writes events to one stream, all or none.
    ///
    /// If the caller drops the future, the append happens completely or not at all. Retrying with
    /// the same events and the same expectation is safe: if the first try was written, the store
    /// writes nothing and returns the first answer again, with [`Appended::replayed`] set if the
    /// store can [tell a retry](Capabilities::tells_retries).
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the expectation does not hold;
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) for a tombstoned stream;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there are no events, if an event has the
    /// nil id, or if the stream or an event type begins with `$`;
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) if an event or the append is larger than the
    /// [`Capabilities`] allow. Nothing was written, unless [`Error::outcome_unknown`] is true.
    async fn append(&self, append: Append) -> Result<Appended>;

    /// Writes events to several streams, all or none, each stream under its own expectation. The
    /// answers come in the order of the appends.
    ///
    /// # Errors
    /// As for [`EventStore::append`]; if several expectations do not hold, the error names the
    /// first. [`InvalidInput`](crate::ErrorKind::InvalidInput) if two appends name the same stream;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capabilities::multi_stream_append`].
    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>>;

    /// Reads one stream in version order. A stream that does not exist reads as empty;
    /// [`EventStore::stream_info`] tells the two apart.
    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream;

    /// Reads over all streams in position order.
    ///
    /// # Errors
    /// The first item is [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capabilities::global_order`], and [`BeyondEnd`](crate::ErrorKind::BeyondEnd) if the read is
    /// to begin at a position above every one that the store has given. The position of an event
    /// that was removed since is still a place to begin at.
    fn read_all(&self, options: ReadAll) -> EventStream;

    /// Subscribes: delivers the events that the store already has, then new ones as they are
    /// appended.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if
    /// [`Start::AfterVersion`](crate::Start::AfterVersion) is used with
    /// [`Source::All`](crate::Source::All); [`Unsupported`](crate::ErrorKind::Unsupported) for
    /// `Source::All` or a start at a position without [`Capabilities::global_order`];
    /// [`BeyondEnd`](crate::ErrorKind::BeyondEnd) if the subscription is to begin after a position
    /// above every one that the store has given, or after a version that the stream never had, as
    /// with a checkpoint of another store, or after a restore.
    async fn subscribe(&self, options: Subscribe) -> Result<Subscription>;

    /// Tells whether a stream exists, and which versions it has.
    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo>;

    /// Removes the events of a stream before a version. The stream keeps its version, even if no
    /// event is left. On a stream that does not exist this does nothing.
    ///
    /// # Errors
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) for a tombstoned stream;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::truncate`].
    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()>;

    /// Deletes a stream, and its snapshot. The stream then reads as empty, `NoStream` and `Exact` of
    /// its last version both hold, and the next append continues its numbering. On a stream that
    /// does not exist this does nothing.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the expectation does not hold;
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) for a tombstoned stream;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::delete`].
    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()>;

    /// Deletes a stream, and its snapshot, for ever: the store refuses every later write to it. The
    /// stream need not exist.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the expectation does not hold;
    /// [`StreamClosed`](crate::ErrorKind::StreamClosed) if the stream was tombstoned before;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::tombstone`].
    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()>;
}

/// A snapshot: the state that the events of a stream add up to, as of one version. It saves reading
/// the events before that version.
///
/// ```
/// use annals_core::{Payload, Snapshot};
/// let state = Payload::json(&serde_json::json!({ "balance": 700 }))?;
/// let snapshot = Snapshot::new(12, state);
/// assert_eq!(snapshot.version.get(), 12);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The version of the last event that is part of the state.
    pub version: Version,
    /// The state, as the application encoded it.
    pub data: Payload,
    /// What the application wants to know about the state, such as the version of its schema.
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

    /// The number of bytes of data and metadata together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.metadata.len()
    }
}

/// Keeps the latest snapshot of each stream. A method that a store does not implement refuses with
/// [`Unsupported`](crate::ErrorKind::Unsupported).
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// The latest snapshot of a stream; `None` if there is none, or if its version was deleted since.
    async fn load_snapshot(&self, _stream: &StreamId) -> Result<Option<Snapshot>> {
        Err(Error::unsupported("snapshots"))
    }

    /// Keeps a snapshot, unless the store already keeps one of a later version. A snapshot of a
    /// version that was deleted since, or of a stream that was tombstoned, is not kept either: its
    /// state would not be that of the events that are left. The answer is `Ok` in every case, as if
    /// the deletion had come after the call and had removed the snapshot.
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) if the snapshot is larger than
    /// [`Capabilities::max_event_bytes`]; [`InvalidInput`](crate::ErrorKind::InvalidInput) for a
    /// version above `i64::MAX`, which no event has.
    async fn save_snapshot(&self, _stream: &StreamId, _snapshot: Snapshot) -> Result<()> {
        Err(Error::unsupported("snapshots"))
    }

    /// Removes the snapshot of a stream, if there is one.
    async fn delete_snapshot(&self, _stream: &StreamId) -> Result<()> {
        Err(Error::unsupported("snapshots"))
    }
}

/// Keeps a checkpoint for each subscriber: the position up to which it has handled all events. A
/// method that a store does not implement refuses with
/// [`Unsupported`](crate::ErrorKind::Unsupported). A position above `i64::MAX`, which no event has, is
/// [`InvalidInput`](crate::ErrorKind::InvalidInput).
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The checkpoint of a subscriber; `None` if there is none.
    async fn load_checkpoint(&self, _subscriber: &SubscriberId) -> Result<Option<Position>> {
        Err(Error::unsupported("checkpoints"))
    }

    /// Moves the checkpoint of a subscriber forward to a position. If the store keeps a greater one,
    /// that one stays: this call never moves a checkpoint back. Returns the checkpoint that the
    /// store keeps now.
    async fn save_checkpoint(
        &self,
        _subscriber: &SubscriberId,
        _position: Position,
    ) -> Result<Position> {
        Err(Error::unsupported("checkpoints"))
    }

    /// Compares and swaps: moves the checkpoint from `expected` (`None`: there is none) to a position,
    /// and returns whether it stands there now. It does so also if it stood there before, so a call
    /// whose answer was lost can be repeated. A subscriber that saves its progress by this call
    /// notices when its checkpoint was [reset](CheckpointStore::reset_checkpoint) meanwhile.
    ///
    /// A store that does not implement this compares first and then saves, which is not atomic.
    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        position: Position,
    ) -> Result<bool> {
        let stored = self.load_checkpoint(subscriber).await?;
        if stored == expected && stored < Some(position) {
            self.save_checkpoint(subscriber, position).await?;
        } else if stored == expected {
            self.reset_checkpoint(subscriber, Some(position)).await?;
        }
        Ok(stored == expected || stored == Some(position))
    }

    /// Sets the checkpoint to any position, also to a lower one; `None` removes the checkpoint. A
    /// subscriber that saves its checkpoint by [`swap_checkpoint`](CheckpointStore::swap_checkpoint),
    /// as projections do, notices and goes on from there.
    async fn reset_checkpoint(
        &self,
        _subscriber: &SubscriberId,
        _position: Option<Position>,
    ) -> Result<()> {
        Err(Error::unsupported("checkpoints"))
    }
}

/// All traits of a store together. `annals::connect` returns an `Arc<dyn Store>`.
pub trait Store: TransferStore + SnapshotStore + CheckpointStore + LeaseStore {}

impl<T: TransferStore + SnapshotStore + CheckpointStore + LeaseStore + ?Sized> Store for T {}

/// Conveniences for callers, on every [`EventStore`].
#[async_trait]
pub trait EventStoreExt: EventStore {
    /// [`EventStore::append`] for one stream, given by its id or by a string.
    ///
    /// # Errors
    /// As for [`EventStore::append`]; [`InvalidInput`](crate::ErrorKind::InvalidInput) also if the
    /// string is not a legal stream id.
    async fn append_to<S, E, I>(&self, stream: S, expected: E, events: I) -> Result<Appended>
    where
        S: TryInto<StreamId, Error: Into<Error>> + Send,
        E: Into<ExpectedVersion> + Send,
        I: IntoIterator<Item = NewEvent> + Send,
    {
        let stream = stream.try_into().map_err(Into::into)?;
        // Collect the events before the await, so that the iterator need not live across it.
        let append = Append::new(stream, expected, events);
        self.append(append).await
    }

    /// All events of one stream, in memory at once. For streams that may be long use
    /// [`EventStore::read_stream`].
    ///
    /// # Errors
    /// As for [`EventStore::read_stream`].
    async fn load_stream(&self, stream: &StreamId) -> Result<Vec<RecordedEvent>> {
        self.read_stream(stream, ReadStream::default()).try_collect().await
    }

    /// The position of the last event that a read of all returns, or [`Position::START`] if there
    /// is no event.
    ///
    /// # Errors
    /// As for [`EventStore::read_all`].
    async fn last_position(&self) -> Result<Position> {
        let mut last = self.read_all(ReadAll::default().backwards().with_limit(1));
        last.try_next().map_ok(|event| event.map_or(Position::START, |e| e.position)).await
    }

    /// The position of the last event such that it and every event before it was recorded before
    /// `time`; [`Position::START`] if there is none. So a read or a subscription that begins after
    /// this position has every event that was recorded at `time` or later:
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals_core::{EventStore, EventStoreExt, EventStream, ReadAll, Result};
    ///
    /// async fn since_yesterday(store: &dyn EventStore) -> Result<EventStream> {
    ///     let yesterday = chrono::Utc::now() - Duration::from_secs(24 * 60 * 60);
    ///     let place = store.position_before(yesterday).await?;
    ///     Ok(store.read_all(ReadAll::default().after(place)))
    /// }
    /// ```
    ///
    /// The position is found by halves: some 20 reads of one event in a store of a million, and one
    /// read of the events recorded in the minute before `time`. That relies on events being recorded
    /// nearly in order: an event may have an earlier time than one before it, by less than a minute,
    /// as where the clocks of two writers disagree. Where it has one that is earlier by more, as
    /// after an import of old events into a store that had newer ones, the position may be too
    /// great. A server that reads only from positions which it gave is read backwards instead, from
    /// its last event to `time`.
    ///
    /// # Errors
    /// As for [`EventStore::read_all`].
    async fn position_before(&self, time: DateTime<Utc>) -> Result<Position> {
        position_before(self, time).await
    }

    /// The same in one stream: the version of the last event such that it and every event of the
    /// stream before it was recorded before `time`; 0 if there is none.
    ///
    /// # Errors
    /// As for [`EventStore::read_stream`].
    async fn version_before(&self, stream: &StreamId, time: DateTime<Utc>) -> Result<Version> {
        version_before(self, stream, time).await
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

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        position: Position,
    ) -> Result<bool> {
        (**self).swap_checkpoint(subscriber, expected, position).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        (**self).reset_checkpoint(subscriber, position).await
    }
}
