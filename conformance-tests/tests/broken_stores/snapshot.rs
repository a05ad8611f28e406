//! The snapshots of a simulated server. They are correct but for the bug of the handle.

use annals_core::{
    EventStore, Result, Snapshot, SnapshotStore, StreamId, StreamInfo, StreamState, Version,
    adapter::check_snapshot,
};
use async_trait::async_trait;
use tokio::task::yield_now;

use crate::{bug::Bug, store::Handle};

impl Handle {
    /// The stream was deleted up to a version.
    pub(crate) fn forget_snapshot(&self, stream: &StreamId, deleted: Version) {
        let mut snapshots = self.server.snapshots.lock().unwrap();
        snapshots.remove(&self.snapshot_id(stream));
        if deleted > Version::NONE {
            self.server.deleted.lock().unwrap().insert(stream.clone(), deleted);
        }
    }

    /// Whether a snapshot of this version must not be kept.
    fn is_past(&self, info: &StreamInfo, stream: &StreamId, version: Version) -> bool {
        let deleted = self.server.deleted.lock().unwrap().get(stream).copied().unwrap_or_default();
        match self.bug {
            Some(Bug::KeepsSnapshotsOfTheDeleted) => info.state == StreamState::Tombstoned,
            Some(Bug::KeepsSnapshotsOfTheClosed) => {
                info.state != StreamState::Tombstoned && version <= deleted
            }
            Some(Bug::OldSnapshotsRevive) => info.state != StreamState::Live && version <= deleted,
            _ => deleted > Version::NONE && version <= deleted,
        }
    }
}

#[async_trait]
impl SnapshotStore for Handle {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        Ok(self.server.snapshots.lock().unwrap().get(&self.snapshot_id(stream)).cloned())
    }

    async fn save_snapshot(&self, stream: &StreamId, mut snapshot: Snapshot) -> Result<()> {
        check_snapshot(&snapshot, &self.capabilities)
            .map_err(|e| self.context("save_snapshot")(e).with_stream(stream))?;
        let info = EventStore::stream_info(self.store(), stream).await?;
        if self.has(Bug::SavesAskTooEarly) {
            if self.is_past(&info, stream, snapshot.version) {
                return Ok(());
            }
            yield_now().await;
        }
        let mut kept = self.server.snapshots.lock().unwrap();
        if !self.has(Bug::SavesAskTooEarly) && self.is_past(&info, stream, snapshot.version) {
            return Ok(());
        }
        if self.has(Bug::SnapshotsSayTooMuch) {
            snapshot.version = snapshot.version.plus(1);
        }
        let id = self.snapshot_id(stream);
        let is_later = kept.get(&id).is_some_and(|kept| kept.version > snapshot.version);
        if !is_later || self.has(Bug::KeepsOlderSnapshots) {
            kept.insert(id, snapshot);
        }
        Ok(())
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.server.snapshots.lock().unwrap().remove(&self.snapshot_id(stream));
        if self.has(Bug::DeletedSnapshotsForgive) {
            self.server.deleted.lock().unwrap().remove(stream);
        }
        Ok(())
    }
}
