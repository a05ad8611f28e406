//! The events, and every change to them.

use std::collections::{HashMap, HashSet, VecDeque};

use annals_core::{
    Append, Appended, Error,
    ExpectedVersion::{Any, StreamExists},
    LeaseName, LeaseRecord, NewEvent, Position, RecordedEvent, Result, Snapshot, StreamId,
    StreamInfo, StreamState, SubscriberId, Version,
    adapter::{self, ImportVerdict, StreamHead, Verdict},
};
use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every event by position, the first at 1. Removed ones leave an empty place.
    log: Vec<Option<RecordedEvent>>,
    streams: HashMap<StreamId, Stream>,
    pub(crate) snapshots: HashMap<StreamId, Snapshot>,
    pub(crate) checkpoints: HashMap<SubscriberId, Position>,
    pub(crate) leases: HashMap<LeaseName, LeaseRecord>,
}

#[derive(Debug)]
struct Stream {
    head: StreamHead,
    /// The positions of the events that are left; the last is that of `head.version`.
    positions: VecDeque<Position>,
    /// Where each id stands, the last time where it stands twice.
    ids: HashMap<Uuid, Version>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { head: StreamHead::MISSING, positions: VecDeque::new(), ids: HashMap::new() }
    }
}

impl Stream {
    /// The version of the first event that is left, or would be.
    fn first_version(&self) -> Version {
        self.head.version.plus(1).minus(self.positions.len() as u64)
    }

    fn position(&self, version: Version) -> Option<Position> {
        let index = version.get().checked_sub(self.first_version().get())?;
        self.positions.get(usize::try_from(index).ok()?).copied()
    }
}

impl State {
    /// Writes all the appends, or none. Judges all of them before it writes the first.
    pub(crate) fn append(&mut self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let mut replays = Vec::new();
        for append in &appends {
            replays.push(self.judge(append)?);
        }
        if let Some(replayed) = replays.iter().copied().collect() {
            return Ok(replayed);
        }
        if let Some((append, _)) = appends.iter().zip(&replays).find(|(_, replay)| replay.is_some())
        {
            // Written before, but not together with the others: not this append.
            let actual = self.head(&append.stream).version;
            return Err(Error::lost_race(&append.stream, append.expected, actual));
        }
        let now = Utc::now().trunc_subsecs(6);
        appends.into_iter().map(|append| self.write(append, now)).collect()
    }

    /// Whether to write an append, or what it answered when it was written before.
    fn judge(&self, append: &Append) -> Result<Option<Appended>> {
        let head = self.head(&append.stream);
        let conflict = || Err(Error::lost_race(&append.stream, append.expected, head.version));
        match head.judge(append.expected) {
            Verdict::Closed => Err(Error::stream_closed(&append.stream)),
            Verdict::Conflict => conflict(),
            Verdict::RetryOrConflict(base) => self
                .written_after(append, base)?
                .map_or_else(conflict, |appended| Ok(Some(appended))),
            // `Exact` and `NoStream` hold: the same ids again are other events. Under `Any` and
            // `StreamExists` they are a retry, wherever they stand.
            Verdict::Write if matches!(append.expected, Any | StreamExists) => {
                let first = append.events.first().map(NewEvent::id);
                let stream = self.streams.get(&append.stream);
                match stream.zip(first).and_then(|(stream, first)| stream.ids.get(&first)) {
                    Some(version) => self.written_after(append, version.minus(1)),
                    None => Ok(None),
                }
            }
            Verdict::Write => Ok(None),
        }
    }

    /// The answer of the append, if its ids stand right after that version.
    fn written_after(&self, append: &Append, base: Version) -> Result<Option<Appended>> {
        let mut last = Position::START;
        for (version, event) in (base.get() + 1..).zip(&append.events) {
            match self.event(&append.stream, version.into()) {
                Some(found) if found.id == event.id() => last = found.position,
                _ => return Ok(None),
            }
        }
        Appended::after(base, append.count(), last, true).map(Some)
    }

    fn write(&mut self, append: Append, now: DateTime<Utc>) -> Result<Appended> {
        let count = append.count();
        let stream = self.streams.entry(append.stream.clone()).or_default();
        let base = stream.head.version;
        for (version, event) in (base.get() + 1..).zip(append.events) {
            let position = Position::new(self.log.len() as u64 + 1);
            stream.positions.push_back(position);
            stream.ids.insert(event.id(), version.into());
            let event = event.recorded(append.stream.clone(), version.into(), position, now);
            self.log.push(Some(event));
        }
        stream.head.version = base.plus(count);
        stream.head.state = StreamState::Live;
        Appended::after(base, count, self.last_position(), false)
    }

    /// Writes events of another store, or nothing.
    pub(crate) fn import(&mut self, events: Vec<RecordedEvent>) -> Result<()> {
        let mut new = Vec::with_capacity(events.len());
        // The streams to which events before have been found to be written.
        let mut written = HashSet::new();
        for event in events {
            if written.contains(&event.stream) {
                new.push(event);
                continue;
            }
            let is_empty = self.info(&event.stream).first_version.is_none();
            let head = self.head(&event.stream);
            match head.judge_import(&event, is_empty)? {
                ImportVerdict::Write => {
                    written.insert(event.stream.clone());
                    new.push(event);
                }
                ImportVerdict::Compare => match self.event(&event.stream, event.version) {
                    Some(found) if found.id == event.id => {}
                    _ => return Err(adapter::import_conflict(&event, head.version)),
                },
            }
        }
        for mut event in new {
            event.position = Position::new(self.log.len() as u64 + 1);
            let stream = self.streams.entry(event.stream.clone()).or_default();
            stream.positions.push_back(event.position);
            stream.ids.insert(event.id, event.version);
            stream.head.version = event.version;
            stream.head.state = StreamState::Live;
            self.log.push(Some(event));
        }
        Ok(())
    }

    /// The streams after an id, in the order of their ids.
    pub(crate) fn list(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Vec<(StreamId, StreamInfo)> {
        let after = after.map_or("", StreamId::as_str);
        let mut ids: Vec<_> = self.streams.keys().filter(|id| id.as_str() > after).collect();
        ids.sort_unstable_by_key(|id| id.as_str());
        ids.into_iter().take(limit).map(|id| (id.clone(), self.info(id))).collect()
    }

    /// Removes what stands before a version; all of it where that is beyond the last.
    pub(crate) fn truncate(&mut self, id: &StreamId, before: Version) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        while stream.first_version() < before {
            let Some(position) = stream.positions.pop_front() else { return };
            let index = usize::try_from(position.get() - 1).unwrap_or(usize::MAX);
            if let Some(removed) = self.log.get_mut(index).and_then(Option::take) {
                let version = removed.version;
                if stream.ids.get(&removed.id) == Some(&version) {
                    stream.ids.remove(&removed.id);
                }
            }
        }
    }

    /// Removes everything: for the time being, or for ever.
    pub(crate) fn delete(&mut self, id: &StreamId, state: StreamState) {
        if self.head(id).state == StreamState::Missing && state == StreamState::Deleted {
            return;
        }
        self.streams.entry(id.clone()).or_default();
        self.truncate(id, Version::new(u64::MAX));
        if let Some(stream) = self.streams.get_mut(id) {
            stream.head.state = state;
            stream.head.deleted_at = stream.head.version;
        }
        self.snapshots.remove(id);
    }

    pub(crate) fn head(&self, id: &StreamId) -> StreamHead {
        self.streams.get(id).map_or(StreamHead::MISSING, |stream| stream.head)
    }

    pub(crate) fn info(&self, id: &StreamId) -> StreamInfo {
        let stream = self.streams.get(id).filter(|stream| !stream.positions.is_empty());
        self.head(id).info(stream.map(Stream::first_version))
    }

    pub(crate) fn last_position(&self) -> Position {
        Position::new(self.log.len() as u64)
    }

    /// The event at a position, if it was not removed.
    pub(crate) fn at(&self, position: u64) -> Option<&RecordedEvent> {
        self.log.get(usize::try_from(position.checked_sub(1)?).ok()?)?.as_ref()
    }

    /// The version of the last event of a stream at or before a position.
    pub(crate) fn version_at(&self, id: &StreamId, position: Position) -> Version {
        let Some(stream) = self.streams.get(id) else { return Version::NONE };
        let before = stream.positions.partition_point(|&p| p <= position) as u64;
        stream.first_version().plus(before).minus(1)
    }

    pub(crate) fn event(&self, id: &StreamId, version: Version) -> Option<&RecordedEvent> {
        self.at(self.streams.get(id)?.position(version)?.get())
    }
}
