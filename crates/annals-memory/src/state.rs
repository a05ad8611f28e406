//! The events, and every change to them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use annals_core::{
    Append, Appended, Error, ExpectedVersion, LeaseName, LeaseRecord, Position, RecordedEvent,
    Result, Snapshot, StreamId, StreamInfo, StreamState, SubscriberId, Version,
    adapter::{self, CheckpointSwap, Plan, StreamHead},
};
use chrono::{DateTime, SubsecRound, Utc};
use tokio::sync::watch;
use uuid::Uuid;

/// The state behind its lock. A clone is another handle to the same state.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedState(Arc<RwLock<State>>);

// No change can panic half-way, so the state behind a poisoned lock is whole.
impl SharedState {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that a store holds.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The event at each position, beginning with position 1. A removed event leaves `None`.
    log: Vec<Option<RecordedEvent>>,
    streams: HashMap<StreamId, Stream>,
    pub(crate) snapshots: HashMap<StreamId, Snapshot>,
    pub(crate) checkpoints: HashMap<SubscriberId, Position>,
    pub(crate) leases: HashMap<LeaseName, LeaseRecord>,
    /// The last position. A new one wakes the subscribers.
    appended: watch::Sender<Position>,
}

#[derive(Debug)]
struct Stream {
    head: StreamHead,
    /// The positions of the events that are left. The last belongs to the version `head.version`.
    positions: VecDeque<Position>,
    /// The version of each event id; the last one, if two events have the same id.
    versions: HashMap<Uuid, Version>,
}

impl Default for Stream {
    fn default() -> Self {
        let (positions, versions) = (VecDeque::new(), HashMap::new());
        Self { head: StreamHead::MISSING, positions, versions }
    }
}

impl Stream {
    /// The version of the first event that is left. If none is left, that of the next event.
    fn first_version(&self) -> Version {
        self.head.version.plus(1).minus(self.positions.len() as u64)
    }

    fn position(&self, version: Version) -> Option<Position> {
        let index = version.get().checked_sub(self.first_version().get())?;
        self.positions.get(usize::try_from(index).ok()?).copied()
    }
}

/// Changes to streams.
impl State {
    /// Writes all the appends, or none.
    pub(crate) fn append(&mut self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        if let Plan::Replayed(answers) = adapter::plan_append(self, &appends)? {
            return Ok(answers);
        }
        let now = Utc::now().trunc_subsecs(6);
        let written = appends.into_iter().map(|append| self.write(append, now)).collect();
        self.appended.send_replace(self.last_position());
        written
    }

    fn write(&mut self, append: Append, now: DateTime<Utc>) -> Result<Appended> {
        let (base, count) = (self.head(&append.stream).version, append.count());
        for (n, event) in (1..).zip(append.events) {
            self.record(event.recorded(append.stream.clone(), base.plus(n), Position::START, now));
        }
        Appended::after(base, count, self.last_position(), false)
    }

    /// Adds an event at the next position.
    fn record(&mut self, mut event: RecordedEvent) {
        event.position = self.last_position().plus(1);
        let stream = self.streams.entry(event.stream.clone()).or_default();
        stream.positions.push_back(event.position);
        stream.versions.insert(event.id, event.version);
        stream.head.version = event.version;
        stream.head.state = StreamState::Live;
        self.log.push(Some(event));
    }

    /// Writes events of another store, or none.
    pub(crate) fn import(&mut self, events: Vec<RecordedEvent>) -> Result<()> {
        let new = adapter::plan_import(self, events)?;
        new.into_iter().for_each(|event| self.record(event));
        self.appended.send_replace(self.last_position());
        Ok(())
    }

    pub(crate) fn truncate(&mut self, id: &StreamId, before: Version) -> Result<()> {
        self.head(id).check(id, ExpectedVersion::Any)?;
        self.remove_before(id, before);
        Ok(())
    }

    /// Removes all events of a stream, and its snapshot, and leaves the stream deleted or
    /// tombstoned.
    pub(crate) fn delete(
        &mut self,
        id: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<()> {
        let head = self.head(id);
        head.check(id, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        self.remove_before(id, Version::new(u64::MAX));
        let stream = self.streams.entry(id.clone()).or_default();
        stream.head.state = state;
        stream.head.deleted_at = head.version;
        self.snapshots.remove(id);
        Ok(())
    }

    /// Removes the events of a stream before a version; all of them if the version is beyond the
    /// last.
    fn remove_before(&mut self, id: &StreamId, before: Version) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        while stream.first_version() < before {
            let Some(position) = stream.positions.pop_front() else { return };
            let index = usize::try_from(position.get() - 1).unwrap_or(usize::MAX);
            let Some(removed) = self.log.get_mut(index).and_then(Option::take) else { continue };
            // A later event may have the same id.
            if stream.versions.get(&removed.id) == Some(&removed.version) {
                stream.versions.remove(&removed.id);
            }
        }
    }
}

/// Changes to what is kept beside streams.
impl State {
    pub(crate) fn save_snapshot(&mut self, id: &StreamId, snapshot: Snapshot) {
        let is_past = self.head(id).was_deleted_since(snapshot.version);
        if !is_past && self.snapshots.get(id).is_none_or(|kept| kept.version <= snapshot.version) {
            self.snapshots.insert(id.clone(), snapshot);
        }
    }

    pub(crate) fn save_checkpoint(
        &mut self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Position {
        let kept = self.checkpoints.entry(subscriber.clone()).or_default();
        *kept = position.max(*kept);
        *kept
    }

    pub(crate) fn swap_checkpoint(
        &mut self,
        subscriber: &SubscriberId,
        swap: CheckpointSwap,
    ) -> bool {
        let holds = swap.holds(self.checkpoints.get(subscriber).copied());
        if holds {
            self.checkpoints.insert(subscriber.clone(), swap.to);
        }
        holds
    }

    pub(crate) fn reset_checkpoint(
        &mut self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) {
        match position {
            Some(position) => self.checkpoints.insert(subscriber.clone(), position),
            None => self.checkpoints.remove(subscriber),
        };
    }

    pub(crate) fn swap_lease(&mut self, name: &LeaseName, record: &LeaseRecord) -> bool {
        let kept = self.leases.get(name).map_or(0, |kept| kept.revision);
        let is_next = kept.checked_add(1) == Some(record.revision);
        if is_next {
            self.leases.insert(name.clone(), record.clone());
        }
        is_next
    }
}

impl adapter::Streams for State {
    type Error = Error;

    fn head(&self, id: &StreamId) -> Result<StreamHead> {
        Ok(State::head(self, id))
    }

    fn place(&self, id: &StreamId, version: Version) -> Result<Option<(Uuid, Position)>> {
        Ok(self.event(id, version).map(|event| (event.id, event.position)))
    }

    fn version_of(&self, id: &StreamId, event: Uuid) -> Result<Option<Version>> {
        Ok(self.streams.get(id).and_then(|stream| stream.versions.get(&event)).copied())
    }

    fn first_version(&self, id: &StreamId) -> Result<Option<Version>> {
        Ok(self.info(id).first_version)
    }
}

/// Questions about streams.
impl State {
    /// Is woken by every new position.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Position> {
        self.appended.subscribe()
    }

    pub(crate) fn head(&self, id: &StreamId) -> StreamHead {
        self.streams.get(id).map_or(StreamHead::MISSING, |stream| stream.head)
    }

    pub(crate) fn info(&self, id: &StreamId) -> StreamInfo {
        let stream = self.streams.get(id).filter(|stream| !stream.positions.is_empty());
        self.head(id).info(stream.map(Stream::first_version))
    }

    /// The last position that any event ever had.
    pub(crate) fn last_position(&self) -> Position {
        Position::new(self.log.len() as u64)
    }

    /// The version of the last event of a stream at or before a position.
    pub(crate) fn version_at(&self, id: &StreamId, position: Position) -> Version {
        let Some(stream) = self.streams.get(id) else { return Version::NONE };
        let before = stream.positions.partition_point(|&p| p <= position) as u64;
        stream.first_version().plus(before).minus(1)
    }

    /// The event at a position, unless it was removed.
    pub(crate) fn event_at(&self, position: Position) -> Option<&RecordedEvent> {
        self.log.get(usize::try_from(position.get().checked_sub(1)?).ok()?)?.as_ref()
    }

    /// The event of a stream that has a version, unless it was removed.
    pub(crate) fn event(&self, id: &StreamId, version: Version) -> Option<&RecordedEvent> {
        self.event_at(self.streams.get(id)?.position(version)?)
    }

    /// At most `limit` streams whose ids are greater than `after`, in the order of their ids.
    pub(crate) fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Vec<(StreamId, StreamInfo)> {
        let mut ids: Vec<_> = self.streams.keys().filter(|&id| Some(id) > after).collect();
        ids.sort_unstable();
        ids.into_iter().take(limit).map(|id| (id.clone(), self.info(id))).collect()
    }
}
