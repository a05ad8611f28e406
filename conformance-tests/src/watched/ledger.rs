//! What the handles of a case have been told so far.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{
    Append, Appended, ExpectedVersion, Position, RecordedEvent, Snapshot, StreamId, StreamInfo,
    StreamState, Version,
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
    places: HashMap<Position, (StreamId, Version)>,
    /// The greatest version of each stream.
    versions: HashMap<StreamId, Version>,
    /// The version of each stream up to which it was deleted.
    deleted: HashMap<StreamId, Version>,
    closed: HashSet<StreamId>,
    /// The ids of all events that were sent.
    sent: HashSet<Uuid>,
    /// The greatest position of an event.
    greatest: Position,
    /// The greatest position up to which a subscription said that it had delivered everything.
    promised: Position,
    removals: Removals,
}

/// The calls that may take events away from reads that are under way.
#[derive(Clone, Copy, Debug, Default)]
struct Removals {
    begun: u64,
    ended: u64,
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
        self.known().note(stream, *version, *id, *position);
    }

    pub(super) fn begin_append(&self, appends: &[Append]) -> Begun {
        let mut known = self.known();
        let versions = appends.iter().map(|append| known.version(&append.stream)).collect();
        let mut is_first = true;
        for event in appends.iter().flat_map(|append| &append.events) {
            is_first &= known.sent.insert(event.id());
        }
        Begun { greatest: known.greatest, promised: known.promised, versions, is_first }
    }

    #[track_caller]
    pub(super) fn end_append(
        &self,
        begun: &Begun,
        appends: &[Append],
        answers: &[Appended],
        ordered: bool,
    ) {
        assert_eq!(appends.len(), answers.len(), "the call has too few or many answers");
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
                self.known().note(&append.stream, last, event.id(), position);
            }
        }
    }

    /// Events of another store are about to be imported. That can also leave versions out.
    pub(super) fn begin_import(&self, events: &[RecordedEvent]) {
        let mut known = self.known();
        known.removals.begun += 1;
        known.sent.extend(events.iter().map(|event| event.id));
    }

    pub(super) fn begin_removal(&self, stream: &StreamId) -> BeforeCall {
        self.known().removals.begun += 1;
        self.before(stream)
    }

    pub(super) fn end_removal(&self) {
        self.known().removals.ended += 1;
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
        }
    }

    /// A subscription has delivered everything up to this position.
    pub(super) fn promised(&self, position: Position) {
        let mut known = self.known();
        known.promised = position.max(known.promised);
    }

    /// To be asked when a read begins.
    pub(super) fn undisturbed(&self) -> Undisturbed {
        let Removals { begun, ended } = self.known().removals;
        Undisturbed((begun == ended).then_some(begun))
    }

    /// Whether nothing was removed since the read began.
    pub(super) fn is_undisturbed(&self, since: Undisturbed) -> bool {
        since.0 == Some(self.known().removals.begun)
    }
}

impl Known {
    fn version(&self, stream: &StreamId) -> Version {
        self.versions.get(stream).copied().unwrap_or_default()
    }

    #[track_caller]
    fn note(&mut self, stream: &StreamId, version: Version, id: Uuid, position: Position) {
        let event = *self.events.entry((stream.clone(), version)).or_insert((id, position));
        assert_eq!(event, (id, position), "version {version} of {stream:?} was another event");
        if position > Position::START {
            let place = self.places.entry(position).or_insert_with(|| (stream.clone(), version));
            assert!(
                (&place.0, place.1) == (stream, version),
                "position {position} has {place:?}, and version {version} of {stream:?}"
            );
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
        if state != StreamState::Tombstoned {
            assert!(
                version >= self.version,
                "the stream had version {} before {info:?}",
                self.version
            );
        }
        if let Some(first) = first_version {
            assert!(state == StreamState::Live && first <= version, "impossible: {info:?}");
        }
        assert!(!self.is_closed || state == StreamState::Tombstoned, "not closed: {info:?}");
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
