//! What an adapter implements.

use std::fmt;

use bytes::Bytes;

use super::{Pages, RecordChange, RecordKey, StreamHead, Tail, import_by_appends, place, record};
use crate::{
    Append, Appended, Capabilities, Error, ExpectedVersion, Filter, LeaseName, LeaseRecord,
    Position, ReadAll, ReadStream, RecordedEvent, Result, Snapshot, Start, StreamId, StreamInfo,
    SubscriberId, Version,
};

/// A database as an event store. A clone is another handle to the same store. A type that implements
/// this trait also has [`EventStore`](crate::EventStore) and the other traits of a store. Their
/// documentation says what each method promises.
///
/// The blanket implementations check a call before they pass it on. A method that belongs to a
/// capability that is not [declared](Adapter::capabilities) is never called. Errors need neither
/// backend nor operation nor stream: these are added.
pub trait Adapter: Clone + fmt::Debug + Send + Sync + 'static {
    /// What this store can do.
    fn capabilities(&self) -> &Capabilities;

    /// The error for a read of all streams, and for a subscription to more than one, without
    /// [`Capabilities::global_order`]. A store that can have the order if it is told more says so here.
    fn without_order(&self) -> Error {
        Error::unsupported("order over all streams")
    }

    /// Writes one append, or several to different streams, all or none. The answers come in the
    /// order of the appends. There is always at least one append, each with at least one event, and
    /// only one without [`Capabilities::multi_stream_append`].
    fn append(&self, appends: Vec<Append>) -> impl Future<Output = Result<Vec<Appended>>> + Send;

    /// The pages of [`read_stream`](crate::EventStore::read_stream).
    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages;

    /// The pages of [`read_all`](crate::EventStore::read_all).
    fn all_pages(&self, options: ReadAll) -> impl Pages;

    /// The pages of a subscription to one stream: its events after a version. `at` is the position
    /// that [`start_in`](Adapter::start_in) gave with that version.
    fn follow_stream(&self, stream: StreamId, after: Version, at: Position) -> impl Tail;

    /// The pages of a subscription to all events that a filter lets through, after a position.
    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail;

    /// A position such that each event whose append returned before this call has no greater one,
    /// and each event that is appended after this call has a greater one.
    fn last_position(&self) -> impl Future<Output = Result<Position>> + Send;

    /// The greatest position that the store has ever given, also to events that were removed since.
    /// Reads and subscriptions that are to begin beyond it are refused. It may be greater than that
    /// if no later event can get a position in between.
    fn greatest_position(&self) -> impl Future<Output = Result<Position>> + Send {
        self.last_position()
    }

    /// The greatest version that a stream has ever had. A subscription to the stream that is to begin
    /// beyond it is refused.
    fn greatest_version(&self, stream: &StreamId) -> impl Future<Output = Result<Version>> + Send {
        async move { Ok(self.stream_info(stream).await?.version) }
    }

    /// The version of the last event of a stream that stands at or before a position, removed or
    /// not. By default a search by halves, of which each step reads one event.
    fn version_at(
        &self,
        stream: &StreamId,
        position: Position,
    ) -> impl Future<Output = Result<Version>> + Send {
        place::version_at(self, stream, position)
    }

    /// After which version a subscription to one stream begins, and after which position: no
    /// message of the subscription says less than that position.
    fn start_in(
        &self,
        stream: &StreamId,
        start: Start,
    ) -> impl Future<Output = Result<(Version, Position)>> + Send {
        async move {
            let position = match start {
                // A time has become a version before this call.
                Start::Beginning | Start::At(_) => return Ok((Version::NONE, Position::START)),
                Start::AfterVersion(version) => return Ok((version, Position::START)),
                Start::After(position) => position,
                // An event that is appended between the two calls is beyond both answers.
                Start::End => self.last_position().await?,
            };
            Ok((self.version_at(stream, position).await?, position))
        }
    }

    /// See [`stream_info`](crate::EventStore::stream_info).
    fn stream_info(&self, stream: &StreamId) -> impl Future<Output = Result<StreamInfo>> + Send;

    /// See [`truncate`](crate::EventStore::truncate).
    fn truncate(
        &self,
        _stream: &StreamId,
        _before: Version,
    ) -> impl Future<Output = Result<()>> + Send {
        unsupported("truncation")
    }

    /// See [`delete`](crate::EventStore::delete).
    fn delete(
        &self,
        _stream: &StreamId,
        _expected: ExpectedVersion,
    ) -> impl Future<Output = Result<()>> + Send {
        unsupported("deletion")
    }

    /// See [`tombstone`](crate::EventStore::tombstone).
    fn tombstone(
        &self,
        _stream: &StreamId,
        _expected: ExpectedVersion,
    ) -> impl Future<Output = Result<()>> + Send {
        unsupported("tombstones")
    }

    /// Reads a record. The default methods for snapshots, checkpoints and leases are made of this and
    /// of [`change_record`](Adapter::change_record), for a database that can change a record in a
    /// transaction; an adapter implements these two, or the methods below.
    fn load_record(&self, _key: RecordKey) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        unsupported("records")
    }

    /// Changes a record in one transaction: calls `change` with the record and, for a snapshot, with
    /// the head of its stream, does what it answers, and passes the rest of the answer on. `change` may
    /// be called again if another transaction comes in between.
    ///
    /// Deleting or tombstoning a stream removes the snapshot of the stream; this is left to the adapter.
    fn change_record<T: Send + 'static>(
        &self,
        _key: RecordKey,
        _change: impl Fn(Option<Bytes>, StreamHead) -> Result<(RecordChange, T)> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        unsupported("records")
    }

    /// See [`load_snapshot`](crate::SnapshotStore::load_snapshot).
    fn load_snapshot(
        &self,
        stream: &StreamId,
    ) -> impl Future<Output = Result<Option<Snapshot>>> + Send {
        record::load_snapshot(self, stream)
    }

    /// See [`save_snapshot`](crate::SnapshotStore::save_snapshot).
    fn save_snapshot(
        &self,
        stream: &StreamId,
        snapshot: Snapshot,
    ) -> impl Future<Output = Result<()>> + Send {
        record::save_snapshot(self, stream, snapshot)
    }

    /// See [`delete_snapshot`](crate::SnapshotStore::delete_snapshot).
    fn delete_snapshot(&self, stream: &StreamId) -> impl Future<Output = Result<()>> + Send {
        record::delete_snapshot(self, stream)
    }

    /// See [`load_checkpoint`](crate::CheckpointStore::load_checkpoint).
    fn load_checkpoint(
        &self,
        subscriber: &SubscriberId,
    ) -> impl Future<Output = Result<Option<Position>>> + Send {
        record::load_checkpoint(self, subscriber)
    }

    /// See [`save_checkpoint`](crate::CheckpointStore::save_checkpoint).
    fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> impl Future<Output = Result<Position>> + Send {
        record::save_checkpoint(self, subscriber, position)
    }

    /// See [`swap_checkpoint`](crate::CheckpointStore::swap_checkpoint).
    fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        swap: CheckpointSwap,
    ) -> impl Future<Output = Result<bool>> + Send {
        record::swap_checkpoint(self, subscriber, swap)
    }

    /// See [`reset_checkpoint`](crate::CheckpointStore::reset_checkpoint).
    fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> impl Future<Output = Result<()>> + Send {
        record::reset_checkpoint(self, subscriber, position)
    }

    /// See [`load_lease`](crate::LeaseStore::load_lease).
    fn load_lease(
        &self,
        name: &LeaseName,
    ) -> impl Future<Output = Result<Option<LeaseRecord>>> + Send {
        record::load_lease(self, name)
    }

    /// See [`swap_lease`](crate::LeaseStore::swap_lease).
    fn swap_lease(
        &self,
        name: &LeaseName,
        record: &LeaseRecord,
    ) -> impl Future<Output = Result<bool>> + Send {
        record::swap_lease(self, name, record)
    }

    /// See [`list_streams`](crate::TransferStore::list_streams).
    fn list_streams(
        &self,
        _after: Option<&StreamId>,
        _limit: usize,
    ) -> impl Future<Output = Result<Vec<(StreamId, StreamInfo)>>> + Send {
        unsupported("list of streams")
    }

    /// See [`import`](crate::TransferStore::import). By default it goes by appends, as it has to
    /// without [`Capabilities::exact_import`].
    fn import(&self, events: Vec<RecordedEvent>) -> impl Future<Output = Result<()>> + Send
    where
        Self: Sized,
    {
        import_by_appends(self, events)
    }
}

/// What [`Adapter::swap_checkpoint`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointSwap {
    /// Where the checkpoint stands; `None` if there is none.
    pub from: Option<Position>,
    /// Where it is moved.
    pub to: Position,
}

impl CheckpointSwap {
    pub(super) fn new(from: Option<Position>, to: Position) -> Self {
        Self { from, to }
    }

    /// Whether the checkpoint that is stored allows the swap: it stands at `from`, or has been moved
    /// before.
    #[must_use]
    pub fn holds(&self, stored: Option<Position>) -> bool {
        stored == self.from || stored == Some(self.to)
    }
}

/// The answer of a method that an adapter does not implement.
async fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(what))
}
