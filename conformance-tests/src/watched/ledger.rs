//! What the handles of a case have been told so far.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{
    Append, Appended, EventType, ExpectedVersion, Position, RecordedEvent, Snapshot, StreamId,
    StreamInfo, StreamState, Version,
};
use uuid::Uuid;

/// Shared by the handles of a case. Each check panics, and so fails the case, if an answer
/// contradicts an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The id and the position of each event.
    events: HashMap<(StreamId, Version), (Uuid, Position)>,
    /// The event at each position.
    places: BTreeMap<Position, Placed>,
    /// The greatest version of each stream.
    versions: HashMap<StreamId, Version>,
    /// The version of each stream up to which events may have been removed.
    gone: HashMap<StreamId, Version>,
    /// The version of each stream up to which it was deleted.
    deleted: HashMap<StreamId, Version>,
    closed: HashSet<StreamId>,
    /// The ids of all events that were sent.
    sent: HashSet<Uuid>,
    /// The greatest position of an event.
    greatest: Position,
    /// The greatest position up to which a subscription said that it had delivered everything.
    promised: Position,
    removals: Calls,
    appends: Calls,
    /// How many events were noted.
    noted: u64,
}

/// Calls of one kind. A call that was dropped never ends.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    begun: u64,
    ended: u64,
}

/// An event that somebody was told of.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) stream: StreamId,
    pub(super) version: Version,
    pub(super) event_type: EventType,
    position: Position,
    /// The place of the event among those that were noted.
    noted: u64,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, version, position, event_type, .. } = self;
        write!(f, "version {version} of {stream:?} at position {position}, a {event_type:?}")
    }
}

/// A moment: what was noted before it was known then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

impl Moment {
    /// Whatever is known by now.
    pub(super) const NOW: Self = Self(u64::MAX);
}

/// What was known when an append was called.
pub(super) struct Begun {
    greatest: Position,
    promised: Position,
    /// The version of each append's stream.
    versions: Vec<Version>,
    /// Whether none of the events was sent before: then the append is no retry.
    is_first: bool,
}

/// What was known of a stream when a removal or a load of its snapshot was called.
pub(super) struct BeforeCall {
    version: Version,
    deleted: Version,
    is_closed: bool,
    /// The number of appends that had begun, if all of them had ended.
    appends: Option<u64>,
}

/// Whether a read can miss versions because of a removal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undisturbed(Option<u64>);

impl Ledger {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event was read or delivered.
    #[track_caller]
    pub(super) fn saw(&self, event: &RecordedEvent, ordered: bool) {
        let RecordedEvent { stream, version, id, position, .. } = event;
        if stream.is_system() {
            return;
        }
        assert!(*version > Version::NONE, "an event has version 0: {event:?}");
        assert_eq!(*position > Position::START, ordered, "the position of {event:?}");
        self.known().note(stream, *version, *id, *position, &event.event_type);
    }

    pub(super) fn begin_append(&self, appends: &[Append]) -> Begun {
        let mut known = self.known();
        known.appends.begun += 1;
        let versions = appends.iter().map(|append| known.version(&append.stream)).collect();
        let mut is_first = true;
        for event in appends.iter().flat_map(|append| &append.events) {
            is_first &= known.sent.insert(event.id());
        }
        Begun { greatest: known.greatest, promised: known.promised, versions, is_first }
    }

    /// The append was refused.
    pub(super) fn refused_append(&self) {
        self.known().appends.ended += 1;
    }

    #[track_caller]
    pub(super) fn end_append(
        &self,
        begun: &Begun,
        appends: &[Append],
        answers: &[Appended],
        ordered: bool,
    ) {
        self.known().appends.ended += 1;
        assert_eq!(
            appends.len(),
            answers.len(),
            "each of {} appends is due an answer, but {} came",
            appends.len(),
            answers.len()
        );
        for ((append, answer), before) in appends.iter().zip(answers).zip(&begun.versions) {
            let Appended { first_version: first, last_version: last, position, .. } = *answer;
            let count = append.count();
            assert_eq!(last, first.plus(count).minus(1), "{count} events got {answer:?}");
            if let ExpectedVersion::Exact(version) = append.expected
                && version > Version::NONE
            {
                assert_eq!(first, version.plus(1), "{answer:?} does not follow {version}");
            }
            assert_eq!(position > Position::START, ordered, "the position of {answer:?}");
            if begun.is_first {
                assert!(first > *before, "version {before} was given before {answer:?}");
                let Begun { greatest, promised, .. } = begun;
                assert!(
                    !ordered || position >= greatest.plus(count),
                    "position {greatest} was given before {answer:?}"
                );
                assert!(
                    !ordered || position > *promised,
                    "a subscription had everything up to {promised} before {answer:?}"
                );
            }
            if let Some(event) = append.events.last() {
                self.known().note(&append.stream, last, event.id(), position, event.event_type());
            }
        }
    }

    /// Events of another store are about to be imported. That can also leave versions out.
    pub(super) fn begin_import(&self, events: &[RecordedEvent]) {
        let mut known = self.known();
        known.removals.begun += 1;
        known.sent.extend(events.iter().map(|event| event.id));
        for event in events {
            // A stream without readable events may begin late.
            if event.version > known.version(&event.stream).plus(1) {
                known.may_lose(&event.stream, event.version.minus(1));
            }
        }
    }

    pub(super) fn end_import(&self, versions: HashMap<StreamId, Version>) {
        let mut known = self.known();
        known.removals.ended += 1;
        for (stream, version) in versions {
            let greatest = known.versions.entry(stream).or_default();
            *greatest = version.max(*greatest);
        }
    }

    /// The events of a stream up to a version are about to be removed.
    pub(super) fn begin_removal(&self, stream: &StreamId, to: Version) -> BeforeCall {
        let before = self.before(stream);
        let mut known = self.known();
        known.removals.begun += 1;
        // If nothing is being appended, the removal reaches up to the last version.
        let last = if before.appends.is_some() { before.version } else { to };
        known.may_lose(stream, to.min(last));
        before
    }

    pub(super) fn end_removal(&self, stream: &StreamId, to: Version, before: &BeforeCall) {
        let mut known = self.known();
        known.removals.ended += 1;
        if before.appends != Some(known.appends.begun) {
            // An append began meanwhile: its events may be gone too.
            known.may_lose(stream, to);
        }
    }

    /// A stream was deleted, or tombstoned.
    pub(super) fn deleted(&self, stream: &StreamId, before: &BeforeCall, is_closed: bool) {
        let mut known = self.known();
        let deleted = known.deleted.entry(stream.clone()).or_default();
        *deleted = before.version.max(*deleted);
        if is_closed {
            known.closed.insert(stream.clone());
        }
    }

    pub(super) fn before(&self, stream: &StreamId) -> BeforeCall {
        let known = self.known();
        BeforeCall {
            version: known.version(stream),
            deleted: known.deleted.get(stream).copied().unwrap_or_default(),
            is_closed: known.closed.contains(stream),
            appends: (known.appends.begun == known.appends.ended).then_some(known.appends.begun),
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment(self.known().noted)
    }

    /// The greatest position of an event.
    pub(super) fn greatest(&self) -> Position {
        self.known().greatest
    }

    /// The first event after one position, up to another, that was known at a moment, is wanted, and
    /// cannot have been removed.
    pub(super) fn find(
        &self,
        after: Position,
        to: Position,
        moment: Moment,
        wanted: impl Fn(&Placed) -> bool,
    ) -> Option<Placed> {
        if to <= after {
            return None;
        }
        let known = self.known();
        let is_due = |event: &&Placed| {
            event.noted < moment.0 && event.version > known.gone(&event.stream) && wanted(event)
        };
        let between = (Bound::Excluded(after), Bound::Included(to));
        known.places.range(between).map(|(_, event)| event).find(is_due).cloned()
    }

    /// The greatest known version of a stream, and the version up to which events may be removed.
    pub(super) fn versions(&self, stream: &StreamId) -> (Version, Version) {
        let known = self.known();
        (known.version(stream), known.gone(stream))
    }

    /// A subscription has delivered everything up to this position.
    pub(super) fn promised(&self, position: Position) {
        let mut known = self.known();
        known.promised = position.max(known.promised);
    }

    /// To be asked when a read begins.
    pub(super) fn undisturbed(&self) -> Undisturbed {
        let Calls { begun, ended } = self.known().removals;
        Undisturbed((begun == ended).then_some(begun))
    }

    /// Whether nothing was removed since the read began.
    pub(super) fn is_undisturbed(&self, since: Undisturbed) -> bool {
        since.0 == Some(self.known().removals.begun)
    }
}

impl Known {
    fn gone(&self, stream: &StreamId) -> Version {
        self.gone.get(stream).copied().unwrap_or_default()
    }

    fn may_lose(&mut self, stream: &StreamId, to: Version) {
        let gone = self.gone.entry(stream.clone()).or_default();
        *gone = to.max(*gone);
    }

    fn version(&self, stream: &StreamId) -> Version {
        self.versions.get(stream).copied().unwrap_or_default()
    }

    #[track_caller]
    fn note(
        &mut self,
        stream: &StreamId,
        version: Version,
        id: Uuid,
        position: Position,
        event_type: &EventType,
    ) {
        let (was, at) = *self.events.entry((stream.clone(), version)).or_insert((id, position));
        assert!(
            (was, at) == (id, position),
            "version {version} of {stream:?} was the event {was} at position {at}, and now it is \
             the event {id} at position {position}"
        );
        if position > Position::START {
            let noted = self.noted;
            let place = self.places.entry(position).or_insert_with(|| Placed {
                stream: stream.clone(),
                version,
                event_type: event_type.clone(),
                position,
                noted,
            });
            assert!(
                (&place.stream, place.version) == (stream, version),
                "position {position} was given twice: to {place}, and to version {version} of \
                 {stream:?}"
            );
            self.noted += 1;
        }
        self.greatest = position.max(self.greatest);
        match self.versions.get_mut(stream) {
            Some(greatest) => *greatest = version.max(*greatest),
            None => drop(self.versions.insert(stream.clone(), version)),
        }
    }
}

impl BeforeCall {
    #[track_caller]
    pub(super) fn check_info(&self, info: &StreamInfo) {
        let StreamInfo { state, version, first_version, .. } = *info;
        assert!(
            version >= self.version,
            "the stream had version {} before, and now it is said to be {info:?}",
            self.version
        );
        assert!(
            info.deleted_at >= self.deleted && info.deleted_at <= version,
            "the stream was deleted at version {} or later, and is said to be {info:?}",
            self.deleted
        );
        if let Some(first) = first_version {
            assert!(
                state == StreamState::Live && first <= version && first > info.deleted_at,
                "no stream can be {info:?}"
            );
        }
        assert!(
            !self.is_closed || state == StreamState::Tombstoned,
            "the stream was tombstoned, and is said to be {info:?}"
        );
    }

    #[track_caller]
    pub(super) fn check_snapshot(&self, snapshot: &Snapshot) {
        assert!(!self.is_closed, "a closed stream has a snapshot of version {}", snapshot.version);
        assert!(
            self.deleted == Version::NONE || snapshot.version > self.deleted,
            "the stream was deleted at version {}, and has a snapshot of version {}",
            self.deleted,
            snapshot.version
        );
    }
}
