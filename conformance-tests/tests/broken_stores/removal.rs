//! Truncations, deletions and tombstones of a simulated server, and what it forgets when nobody has
//! it open. They are correct but for the bug of the handle.

use std::sync::atomic::Ordering;

use annals_core::{
    EventStore, EventStoreExt, ExpectedVersion, Position, ReadAll, Result, SnapshotStore, StreamId,
    StreamInfo, StreamState, Version,
};
use futures::{FutureExt, TryStreamExt};
use tokio::task::yield_now;

use crate::{bug::Bug, server::Server, store::Handle};

/// How many events one batch of a removal has.
const BATCH: u64 = 500;

impl Handle {
    pub(crate) async fn truncate_stream(&self, stream: &StreamId, before: Version) -> Result<()> {
        let store = self.store();
        if self.has(Bug::TruncationsForgetSnapshots) {
            self.delete_snapshot(stream).await?;
        }
        let version = self.version(stream).await;
        match self.bug {
            Some(Bug::TruncatesTooMuch) => store.truncate(stream, before.plus(1)).await,
            Some(Bug::TruncationHides) => {
                self.server.truncated.lock().unwrap().insert(stream.clone(), before);
                Ok(())
            }
            Some(Bug::TruncationsRemember) => {
                self.server.truncated.lock().unwrap().insert(stream.clone(), before);
                store.truncate(stream, before).await
            }
            Some(Bug::TruncatesOneBatch) => {
                let first = store.stream_info(stream).await?.first_version.unwrap_or_default();
                store.truncate(stream, before.min(first.plus(BATCH))).await
            }
            Some(Bug::TruncatesSigned) if before.get() > i64::MAX.unsigned_abs() => Ok(()),
            Some(Bug::TruncatesToStaleVersion) => {
                yield_now().await;
                store.truncate(stream, before).await?;
                self.go_back(stream, version).await;
                Ok(())
            }
            Some(Bug::TruncationsRevive) => {
                let deleted = store.stream_info(stream).await?.state == StreamState::Deleted;
                if deleted {
                    self.server.revived.lock().unwrap().insert(stream.clone());
                }
                store.truncate(stream, before).await
            }
            _ => store.truncate(stream, before).await,
        }
    }

    /// The stream is at a version again that it had before: what was appended meanwhile will be
    /// written over.
    async fn go_back(&self, stream: &StreamId, version: Version) {
        let now = self.version(stream).await;
        let lost = now.get().saturating_sub(version.get());
        if lost > 0 {
            let mut shifts = self.server.shifts.lock().unwrap();
            shifts.entry(stream.clone()).or_default().push((now, lost));
        }
    }

    /// The version that a reader sees of an event.
    pub(crate) fn shape_version(&self, stream: &StreamId, version: Version) -> Version {
        let shifts = self.server.shifts.lock().unwrap();
        let shifts = shifts.get(stream).map(Vec::as_slice).unwrap_or_default();
        let lost = shifts.iter().filter(|(after, _)| version > *after).map(|(_, lost)| lost);
        version.minus(lost.sum())
    }

    pub(crate) async fn delete_stream(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
    ) -> Result<()> {
        let inner = self.inner_id(stream);
        let events = self.store().load_stream(&inner).await?;
        let snapshot = self.load_snapshot(stream).await?;
        let expected =
            if self.has(Bug::DeletesUnchecked) { ExpectedVersion::Any } else { expected };
        if self.has(Bug::RefusedDeletionsForget) {
            self.delete_snapshot(stream).await?;
        }
        let version = self.version(&inner).await;
        match self.bug {
            Some(Bug::DeletionsCheckTooEarly) => {
                let info = self.store().stream_info(&inner).await?;
                if expected == ExpectedVersion::StreamExists && info.exists() {
                    yield_now().await;
                    self.store().delete(&inner, ExpectedVersion::Any).await?;
                } else {
                    self.store().delete(&inner, expected).await?;
                }
            }
            Some(Bug::DeletesToStaleVersion) => {
                yield_now().await;
                self.store().delete(&inner, expected).await?;
                self.go_back(&inner, version).await;
            }
            _ => self.store().delete(&inner, expected).await?,
        }
        // To delete a stream that does not exist does nothing.
        if version > Version::NONE {
            self.forget_snapshot(stream, version);
        }
        match (self.bug, snapshot) {
            (Some(Bug::NumberingRestarts), _) => {
                *self.server.generations.lock().unwrap().entry(stream.clone()).or_default() += 1;
            }
            (Some(Bug::ReusesPositions), _) => {
                self.server.removed.fetch_add(events.len() as u64, Ordering::SeqCst);
            }
            (Some(Bug::DeletesOneBatchOfAll), _) => {
                let rest = usize::try_from(BATCH).unwrap();
                self.server.ghosts.lock().unwrap().extend(events.into_iter().skip(rest));
            }
            (Some(Bug::RemovedIdsAreProof), _) => {
                let ids = events.iter().skip(1_000).map(|event| event.id);
                self.server.seen_ids.lock().unwrap().extend(ids);
            }
            (Some(Bug::SnapshotsOutliveStreams), Some(snapshot)) => {
                self.server.snapshots.lock().unwrap().insert(stream.clone(), snapshot);
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) async fn close_stream(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
    ) -> Result<()> {
        let snapshot = self.load_snapshot(stream).await?;
        match self.bug {
            Some(Bug::TombstonesRevive) => return self.store().delete(stream, expected).await,
            Some(Bug::ClosedStreamsReopen) => {
                self.store().delete(stream, expected).await?;
                self.server.closed.lock().unwrap().insert(stream.clone());
            }
            _ => self.store().tombstone(stream, expected).await?,
        }
        self.forget_snapshot(stream, Version::new(u64::MAX));
        if let (Some(Bug::TombstonesKeepSnapshots), Some(snapshot)) = (self.bug, snapshot) {
            self.server.snapshots.lock().unwrap().insert(stream.clone(), snapshot);
        }
        Ok(())
    }

    /// What is said of a stream.
    pub(crate) fn shape_info(&self, stream: &StreamId, info: StreamInfo) -> StreamInfo {
        let state = |state| StreamInfo::new(state, info.version, info.first_version);
        match self.bug {
            Some(Bug::ForgetsDeletions) => info.with_deleted_at(Version::NONE),
            Some(Bug::TruncationsRevive)
                if self.server.revived.lock().unwrap().contains(stream) =>
            {
                state(StreamState::Live).with_deleted_at(info.deleted_at)
            }
            Some(Bug::TombstonesForgetTheVersion) if info.state == StreamState::Tombstoned => {
                StreamInfo::new(info.state, Version::NONE, None)
            }
            Some(Bug::ClosedStreamsReopen) if self.is_closed(stream) => {
                state(StreamState::Tombstoned).with_deleted_at(info.deleted_at)
            }
            Some(Bug::TruncatesToStaleVersion | Bug::DeletesToStaleVersion) => {
                let shape = |version| self.shape_version(stream, version);
                let first = info.first_version.map(shape);
                let deleted_at = shape(info.deleted_at);
                StreamInfo::new(info.state, shape(info.version), first).with_deleted_at(deleted_at)
            }
            _ => info,
        }
    }

    pub(crate) fn is_closed(&self, stream: &StreamId) -> bool {
        self.server.closed.lock().unwrap().contains(stream)
    }
}

impl Server {
    /// Called when a handle is opened and no other one is open.
    pub(crate) fn reopened(&self, bug: Option<Bug>) {
        match bug {
            Some(Bug::ForgetsPositionsWhenClosed) => {
                let end = self.store.last_position_given();
                let last = self.store.read_all(ReadAll::default().backwards().with_limit(1));
                let last = last.try_collect::<Vec<_>>().now_or_never().unwrap().unwrap();
                let last = last.first().map_or(Position::START, |event| event.position);
                let given_again = end.get() - last.get();
                self.reused.lock().unwrap().push((end, given_again));
            }
            Some(Bug::ForgetsDeletionsWhenClosed) => self.deleted.lock().unwrap().clear(),
            Some(Bug::ClosedStreamsReopen) => self.closed.lock().unwrap().clear(),
            Some(Bug::ForgetsRetriesWhenClosed) => self.seen_ids.lock().unwrap().clear(),
            _ => {}
        }
    }
}

/// The greatest position that a store in memory has given.
trait LastPositionGiven {
    fn last_position_given(&self) -> Position;
}

impl LastPositionGiven for annals_memory::MemoryStore {
    fn last_position_given(&self) -> Position {
        annals_core::adapter::Adapter::last_position(self).now_or_never().unwrap().unwrap()
    }
}
