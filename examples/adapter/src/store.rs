//! The store: each method of [`Adapter`] is a transaction.

use std::{ops::Bound, path::Path, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, Direction, Error, ErrorKind, ExpectedVersion, Filter,
    LeaseName, LeaseRecord, Position, ReadAll, ReadStream, Recognition, RecordedEvent, Result,
    Snapshot, StreamId, StreamInfo, StreamState, SubscriberId, Version,
    adapter::{Adapter, CheckpointSwap, Live, Pages, Tail, content_kinds, context, payloads},
};
use redb::ReadableTable;
use uuid::Uuid;

use crate::{
    read::EventPages,
    tables::{
        CHECKPOINTS, File, LEASES, NUMBERS, PLACES, SNAPSHOTS, STREAMS, corrupt, first_version,
        head, last_position,
    },
    write::Streams,
};

/// An event store in a `redb` file. A clone is another handle to the same store.
#[derive(Clone)]
pub struct RedbStore {
    file: Arc<File>,
    capabilities: Capabilities,
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens a file, and creates it if it does not exist. All handles of a process to one file share
    /// it; `redb` lets no other process open it meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has opened the file, [`ErrorKind::Incompatible`] if a
    /// newer version of this crate has written it, [`ErrorKind::InvalidInput`] for an empty path.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut capabilities = Capabilities::new("redb");
        capabilities.durable = true;
        capabilities.retry_recognition = Recognition::Guaranteed;
        capabilities.list_streams = true;
        capabilities.exact_import = true;
        let path = std::path::absolute(path)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "not a path").with_source(e))?;
        let file = File::open(path).await.map_err(context(capabilities.backend, "open"))?;
        Ok(Self { file, capabilities })
    }

    fn pages(&self, stream: Option<StreamId>, from: Option<u64>, filter: Filter) -> EventPages {
        let (file, direction) = (self.file.clone(), Direction::Forwards);
        EventPages { file, stream, filter, from, direction, limit: None }
    }
}

impl Adapter for RedbStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.file.write(|transaction| Streams::open(transaction)?.append(appends)).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        let ReadStream { from, direction, limit, .. } = options;
        let pages = self.pages(Some(stream), from.map(Version::get), Filter::default());
        EventPages { direction, limit, ..pages }
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        let ReadAll { filter, from, direction, limit, .. } = options;
        let beside = |position: Position| match direction {
            Direction::Forwards => position.plus(1).get(),
            Direction::Backwards => position.minus(1).get(),
        };
        EventPages { direction, limit, ..self.pages(None, from.map(beside), filter) }
    }

    fn follow_stream(&self, stream: StreamId, after: Version, _at: Position) -> impl Tail {
        let pages = self.pages(Some(stream), Some(after.plus(1).get()), Filter::default());
        Live::new(pages, self.file.signal())
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        Live::new(self.pages(None, Some(after.plus(1).get()), filter), self.file.signal())
    }

    async fn last_position(&self) -> Result<Position> {
        self.file.read(|transaction| last_position(&transaction.open_table(NUMBERS)?)).await
    }

    async fn version_at(&self, stream: &StreamId, position: Position) -> Result<Version> {
        let stream = stream.clone();
        let version = self.file.read(move |transaction| {
            let (places, stream) = (transaction.open_table(PLACES)?, stream.as_str());
            let head = head(&transaction.open_table(STREAMS)?, stream)?;
            let first = first_version(&places, stream)?;
            // By halves: the versions up to `low` stand at or before the position, those from
            // `high` on stand after it.
            let mut low = first.map_or(head.version, |first| first.minus(1)).get();
            let mut high = head.version.get() + 1;
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                let place = places.get((stream, middle))?.map(|place| place.value().0);
                match place.ok_or_else(|| corrupt("a stream lacks a version"))? {
                    at if at <= position.get() => low = middle,
                    _ => high = middle,
                }
            }
            Ok(low.into())
        });
        version.await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let stream = stream.clone();
        let info = self.file.read(move |transaction| {
            let first = first_version(&transaction.open_table(PLACES)?, stream.as_str())?;
            Ok(head(&transaction.open_table(STREAMS)?, stream.as_str())?.info(first))
        });
        info.await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let stream = stream.clone();
        self.file.write(move |change| Streams::open(change)?.truncate(&stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, state) = (stream.clone(), StreamState::Deleted);
        self.file.write(move |change| Streams::remove(change, &stream, expected, state)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, state) = (stream.clone(), StreamState::Tombstoned);
        self.file.write(move |change| Streams::remove(change, &stream, expected, state)).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let snapshot =
            self.file.get(SNAPSHOTS, stream.as_str(), |(version, kinds, data, metadata)| {
                let (data, metadata) = (data.to_vec().into(), metadata.to_vec().into());
                let (data, metadata) = payloads(kinds.into(), data, metadata)
                    .ok_or_else(|| corrupt("a snapshot has no known content kind"))?;
                Ok(Snapshot::new(version, data).with_metadata(metadata))
            });
        snapshot.await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let stream = stream.clone();
        let save = self.file.write(move |transaction| {
            let mut snapshots = transaction.open_table(SNAPSHOTS)?;
            let (Snapshot { version, data, metadata, .. }, name) = (&snapshot, stream.as_str());
            let kept = snapshots.get(name)?.map_or(0, |kept| kept.value().0);
            let head = head(&transaction.open_table(STREAMS)?, name)?;
            if kept <= version.get() && !head.was_deleted_since(*version) {
                let (kinds, bytes) = (content_kinds(data, metadata), metadata.bytes().as_ref());
                snapshots.insert(name, (version.get(), kinds, data.bytes().as_ref(), bytes))?;
            }
            Ok(())
        });
        save.await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let delete = self.file.change(SNAPSHOTS, stream.as_str(), |snapshots, stream| {
            snapshots.remove(stream)?;
            Ok(())
        });
        delete.await
    }

    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.file.get(CHECKPOINTS, subscriber.as_str(), |position| Ok(position.into())).await
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, to: Position) -> Result<Position> {
        let save = self.file.change(CHECKPOINTS, subscriber.as_str(), move |kept, subscriber| {
            let before = kept.get(subscriber)?.map_or(0, |kept| kept.value());
            kept.insert(subscriber, to.get().max(before))?;
            Ok(to.get().max(before).into())
        });
        save.await
    }

    async fn swap_checkpoint(&self, subscriber: &SubscriberId, to: CheckpointSwap) -> Result<bool> {
        let swap = self.file.change(CHECKPOINTS, subscriber.as_str(), move |kept, subscriber| {
            let holds = to.holds(kept.get(subscriber)?.map(|kept| kept.value().into()));
            if holds {
                kept.insert(subscriber, to.to.get())?;
            }
            Ok(holds)
        });
        swap.await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        to: Option<Position>,
    ) -> Result<()> {
        let reset = self.file.change(CHECKPOINTS, subscriber.as_str(), move |kept, subscriber| {
            match to {
                Some(position) => kept.insert(subscriber, position.get())?,
                None => kept.remove(subscriber)?,
            };
            Ok(())
        });
        reset.await
    }

    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let lease = self.file.get(LEASES, name.as_str(), |(revision, token, ttl, holder)| {
            Ok(LeaseRecord::from_stored([revision, token, ttl], Uuid::from_u128(holder)))
        });
        lease.await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let ([revision, token, ttl], holder) = (record.to_stored(), record.holder.as_u128());
        let swap = self.file.change(LEASES, name.as_str(), move |leases, name| {
            let kept = leases.get(name)?.map_or(0, |kept| kept.value().0);
            let is_next = kept.checked_add(1) == Some(revision);
            if is_next {
                leases.insert(name, (revision, token, ttl, holder))?;
            }
            Ok(is_next)
        });
        swap.await
    }

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let after = after.cloned();
        let list = self.file.read(move |transaction| {
            let (streams, places) =
                (transaction.open_table(STREAMS)?, transaction.open_table(PLACES)?);
            let after = after.as_ref().map_or("", StreamId::as_str);
            let range = (Bound::Excluded(after), Bound::Unbounded);
            let names = streams.range::<&str>(range)?.take(limit).map(|entry| {
                let (key, _) = entry?;
                let first = first_version(&places, key.value())?;
                Ok((StreamId::new(key.value())?, head(&streams, key.value())?.info(first)))
            });
            names.collect()
        });
        list.await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.file.write(|transaction| Streams::open(transaction)?.import(events)).await
    }
}
