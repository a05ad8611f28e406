//! The events, and every change to them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use annals_core::{
    Error, Position, RecordedEvent, Result, StreamId, StreamInfo, Version,
    adapter::{RecordChange, RecordKey, StreamHead, Streams, StreamsMut},
};
use bytes::Bytes;
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
    /// Snapshots, checkpoints and leases.
    records: HashMap<RecordKey, Bytes>,
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

impl StreamsMut for State {
    fn last_position(&self) -> Result<Position> {
        Ok(State::last_position(self))
    }

    fn insert(&mut self, event: RecordedEvent) -> Result<()> {
        let stream = self.streams.entry(event.stream.clone()).or_default();
        stream.positions.push_back(event.position);
        stream.versions.insert(event.id, event.version);
        self.log.push(Some(event));
        Ok(())
    }

    fn set_head(&mut self, id: &StreamId, head: StreamHead) -> Result<()> {
        self.streams.entry(id.clone()).or_default().head = head;
        Ok(())
    }

    fn remove_before(&mut self, id: &StreamId, before: Version) -> Result<()> {
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        while stream.first_version() < before {
            let Some(position) = stream.positions.pop_front() else { break };
            let index = usize::try_from(position.get() - 1).unwrap_or(usize::MAX);
            let Some(removed) = self.log.get_mut(index).and_then(Option::take) else { continue };
            // A later event may have the same id.
            if stream.versions.get(&removed.id) == Some(&removed.version) {
                stream.versions.remove(&removed.id);
            }
        }
        Ok(())
    }

    fn remove_snapshot(&mut self, id: &StreamId) -> Result<()> {
        self.records.remove(&RecordKey::Snapshot(id.clone()));
        Ok(())
    }
}

impl State {
    /// Wakes the subscribers if events were added.
    pub(crate) fn wake(&self) {
        let last = self.last_position();
        self.appended.send_if_modified(|known| std::mem::replace(known, last) != last);
    }
}

/// What is kept beside streams.
impl State {
    pub(crate) fn record(&self, key: &RecordKey) -> Option<Bytes> {
        self.records.get(key).cloned()
    }

    pub(crate) fn change_record<T>(
        &mut self,
        key: RecordKey,
        change: impl Fn(Option<Bytes>, StreamHead) -> Result<(RecordChange, T)>,
    ) -> Result<T> {
        let head = match &key {
            RecordKey::Snapshot(stream) => self.head(stream),
            _ => StreamHead::MISSING,
        };
        let (change, answer) = change(self.record(&key), head)?;
        match change {
            RecordChange::Keep => None,
            RecordChange::Put(bytes) => self.records.insert(key, bytes),
            RecordChange::Remove => self.records.remove(&key),
        };
        Ok(answer)
    }
}

impl Streams for State {
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
