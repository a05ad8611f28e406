//! The decision on an append: written, a retry, or a conflict (contract, rules 2 to 5).

use uuid::Uuid;

use crate::{
    Append, Appended, Error,
    ExpectedVersion::{self, Any, StreamExists},
    NewEvent, Position, Result, StreamId, StreamInfo, StreamState, Version,
};

/// What a store has to know of a stream to decide on an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// Whether the stream exists.
    pub state: StreamState,
    /// The version of its last event, deleted or not.
    pub version: Version,
    /// Its version when it was last deleted: where an append under `NoStream` would have begun.
    pub deleted_at: Version,
}

/// What is to be done with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The expectation holds: write after the head's version. Under `Any` and `StreamExists` this
    /// may be a retry all the same, which the store recognises as it declares.
    Write,
    /// The expectation does not hold. If the ids of the append stand at the versions that follow
    /// this one, it has happened before; else it is a conflict.
    RetryOrConflict(Version),
    /// The expectation does not hold, and cannot have: a conflict.
    Conflict,
    /// The stream was tombstoned.
    Closed,
}

impl StreamHead {
    /// A stream that was never written to.
    pub const MISSING: Self =
        Self { state: StreamState::Missing, version: Version::NONE, deleted_at: Version::NONE };

    /// Decides on an append.
    #[must_use]
    pub fn judge(&self, expected: ExpectedVersion) -> Verdict {
        let exists = self.state == StreamState::Live;
        let (holds, retry_after) = match expected {
            _ if self.state == StreamState::Tombstoned => return Verdict::Closed,
            ExpectedVersion::Any => (true, None),
            ExpectedVersion::StreamExists => (exists, None),
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => {
                (!exists, Some(self.deleted_at))
            }
            ExpectedVersion::Exact(version) => (self.version == version, Some(version)),
        };
        match retry_after {
            _ if holds => Verdict::Write,
            // Had the append happened, the stream would be beyond that version now.
            Some(base) if base < self.version => Verdict::RetryOrConflict(base),
            _ => Verdict::Conflict,
        }
    }

    /// Decides on an append. `None`: it is to be written. A version: if the ids of the append stand
    /// right after that version, it was written before, and [`compared`](Self::compared) says what
    /// becomes of it.
    ///
    /// `retry_after` is asked only under `Any` and `StreamExists`, where a retry may stand anywhere:
    /// the version after which the store would look for it, if it has one.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and
    /// [`ErrorKind::StreamClosed`](crate::ErrorKind::StreamClosed).
    pub fn compare_after(
        &self,
        append: &Append,
        retry_after: impl FnOnce() -> Option<Version>,
    ) -> Result<Option<Version>> {
        let Append { stream, expected, .. } = append;
        match self.judge(*expected) {
            Verdict::Closed => Err(Error::stream_closed(stream)),
            Verdict::Conflict => Err(Error::lost_race(stream, *expected, self.version)),
            Verdict::RetryOrConflict(base) => Ok(Some(base)),
            Verdict::Write if matches!(expected, Any | StreamExists) => Ok(retry_after()),
            // `Exact` and `NoStream` hold: the same ids once more are other events.
            Verdict::Write => Ok(None),
        }
    }

    /// What becomes of an append after its ids were [compared](Self::compare_after): the answer of
    /// the first try, if [`written_after`] found it, or `None` if it is to be written.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    pub fn compared(&self, append: &Append, found: Option<Appended>) -> Result<Option<Appended>> {
        if found.is_none() && self.judge(append.expected) != Verdict::Write {
            return Err(Error::lost_race(&append.stream, append.expected, self.version));
        }
        Ok(found)
    }

    /// The version after which a retry would stand if it were the last that was written to the
    /// stream: for stores that look for a retry under `Any` and `StreamExists` nowhere else.
    /// `last_id` is the id of the stream's last event, if that is left.
    #[must_use]
    pub fn retry_at_end(&self, append: &Append, last_id: Option<Uuid>) -> Option<Version> {
        let is_last = last_id.is_some() && last_id == append.events.last().map(NewEvent::id);
        let base = self.version.get().checked_sub(append.count());
        base.filter(|_| is_last).map(Version::new)
    }

    /// Decides on a deletion or a tombstone, which have no retry to recognise.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and
    /// [`ErrorKind::StreamClosed`](crate::ErrorKind::StreamClosed).
    pub fn check(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        match self.judge(expected) {
            Verdict::Write => Ok(()),
            Verdict::Closed => Err(Error::stream_closed(stream)),
            Verdict::RetryOrConflict(_) | Verdict::Conflict => {
                Err(Error::lost_race(stream, expected, self.version))
            }
        }
    }

    /// Whether the event with this version was deleted since, with its stream. Then a snapshot of the
    /// version is neither kept nor loaded: the state that it holds is not that of the events that
    /// are left (contract, rule 22).
    #[must_use]
    pub fn was_deleted_since(&self, version: Version) -> bool {
        match self.state {
            StreamState::Tombstoned => true,
            _ => self.deleted_at > Version::NONE && version <= self.deleted_at,
        }
    }

    /// The head once a version was written: the stream is live.
    #[must_use]
    pub fn live_at(self, version: Version) -> Self {
        Self { state: StreamState::Live, version, ..self }
    }

    /// What [`stream_info`](crate::EventStore::stream_info) says of it.
    #[must_use]
    pub fn info(&self, first_version: Option<Version>) -> StreamInfo {
        StreamInfo::new(self.state, self.version, first_version).with_deleted_at(self.deleted_at)
    }
}

/// The answer of an append whose ids stand right after the version `base`; `None` if they do not.
/// `found` are the events that stand there: version, id and position each.
///
/// # Errors
/// Those of `found`.
pub fn written_after<E: From<Error>>(
    append: &Append,
    base: Version,
    found: impl IntoIterator<Item = Result<(Version, Uuid, Position), E>>,
) -> Result<Option<Appended>, E> {
    let mut found = found.into_iter();
    let mut last = Position::START;
    for (n, event) in (1..).zip(&append.events) {
        match found.next().transpose()? {
            Some((version, id, position)) if (version, id) == (base.plus(n), event.id()) => {
                last = position;
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(Appended::after(base, append.count(), last, true)?))
}

/// Decides on several appends of one call, each of which was judged by itself: the head of its
/// stream, and the answer of the first try if it is a retry. Gives the answers if all of them are
/// retries, `None` if all are to be written.
///
/// # Errors
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if some were written before and others were
/// not: then they were not one call.
pub fn all_or_none(
    appends: &[Append],
    judged: &[(StreamHead, Option<Appended>)],
) -> Result<Option<Vec<Appended>>> {
    if let Some(replayed) = judged.iter().map(|(_, replayed)| *replayed).collect() {
        return Ok(Some(replayed));
    }
    match appends.iter().zip(judged).find(|(_, (_, replayed))| replayed.is_some()) {
        Some((append, (head, _))) => {
            Err(Error::lost_race(&append.stream, append.expected, head.version))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations() {
        use ExpectedVersion::{Any, Exact, NoStream, StreamExists};
        let exact = |v: u64| Exact(v.into());
        let head = |state, version: u64, deleted_at: u64| StreamHead {
            state,
            version: version.into(),
            deleted_at: deleted_at.into(),
        };
        let retry = |v: u64| Verdict::RetryOrConflict(v.into());
        let live = head(StreamState::Live, 5, 2);
        let deleted = head(StreamState::Deleted, 5, 5);
        let closed = head(StreamState::Tombstoned, 5, 0);
        for (head, expected, verdict) in [
            (StreamHead::MISSING, Any, Verdict::Write),
            (StreamHead::MISSING, NoStream, Verdict::Write),
            (StreamHead::MISSING, exact(0), Verdict::Write),
            (StreamHead::MISSING, StreamExists, Verdict::Conflict),
            (StreamHead::MISSING, exact(1), Verdict::Conflict),
            (live, Any, Verdict::Write),
            (live, StreamExists, Verdict::Write),
            (live, exact(5), Verdict::Write),
            (live, exact(4), retry(4)),
            (live, exact(6), Verdict::Conflict),
            (live, NoStream, retry(2)),
            (live, exact(0), retry(2)),
            (deleted, Any, Verdict::Write),
            (deleted, NoStream, Verdict::Write),
            (deleted, exact(0), Verdict::Write),
            (deleted, exact(5), Verdict::Write),
            (deleted, exact(4), retry(4)),
            (deleted, StreamExists, Verdict::Conflict),
            (closed, Any, Verdict::Closed),
            (closed, exact(5), Verdict::Closed),
        ] {
            assert_eq!(head.judge(expected), verdict, "{expected} on {head:?}");
        }
    }

    #[test]
    fn snapshots_up_to_the_last_deletion_are_of_the_past() {
        let head = |state, version: u64, deleted_at: u64| StreamHead {
            state,
            version: version.into(),
            deleted_at: deleted_at.into(),
        };
        let past = |head: StreamHead| [0, 2, 3, 6].map(|v: u64| head.was_deleted_since(v.into()));
        assert_eq!(past(StreamHead::MISSING), [false; 4]);
        assert_eq!(past(head(StreamState::Live, 5, 0)), [false; 4]);
        assert_eq!(past(head(StreamState::Live, 5, 2)), [true, true, false, false]);
        assert_eq!(past(head(StreamState::Deleted, 3, 3)), [true, true, true, false]);
        assert_eq!(past(head(StreamState::Tombstoned, 0, 0)), [true; 4]);
    }

    fn append(expected: impl Into<ExpectedVersion>, count: usize) -> Append {
        let event = || NewEvent::json("E", &1).unwrap();
        Append::new(StreamId::new("s").unwrap(), expected, (0..count).map(|_| event()))
    }

    #[test]
    fn retries_are_found_by_their_ids() {
        let head =
            StreamHead { version: 5.into(), state: StreamState::Live, ..StreamHead::MISSING };
        let retry = append(Version::new(2), 2);
        assert_eq!(head.compare_after(&retry, || None).unwrap(), Some(2.into()));
        let rows = |ids: [Uuid; 2]| {
            [3, 4]
                .into_iter()
                .zip(ids)
                .map(|(n, id)| Ok::<_, Error>((n.into(), id, (n * 10).into())))
        };
        let ids = [retry.events[0].id(), retry.events[1].id()];
        let found = written_after(&retry, 2.into(), rows(ids)).unwrap().unwrap();
        assert_eq!((found.first_version, found.last_version), (3.into(), 4.into()));
        assert_eq!((found.position, found.replayed), (40.into(), true));
        assert_eq!(head.compared(&retry, Some(found)).unwrap(), Some(found));
        for other in [
            written_after(&retry, 2.into(), rows([ids[1], ids[0]])).unwrap(),
            written_after(&retry, 1.into(), rows(ids)).unwrap(),
            written_after(&retry, 2.into(), rows(ids).take(1)).unwrap(),
        ] {
            assert_eq!(other, None);
            assert!(head.compared(&retry, other).unwrap_err().conflict().is_some());
        }
        // Under `Any` the append is written if it is no retry.
        let any = append(Any, 2);
        let last = any.events[1].id();
        assert_eq!(head.retry_at_end(&any, Some(last)), Some(3.into()));
        assert_eq!(head.retry_at_end(&any, None), None);
        assert_eq!(head.compare_after(&any, || Some(3.into())).unwrap(), Some(3.into()));
        assert_eq!(head.compared(&any, None).unwrap(), None);
        assert_eq!(head.compare_after(&append(head.version, 1), || None).unwrap(), None);
    }

    #[test]
    fn several_appends_are_all_retries_or_none_is() {
        let appends = [append(Any, 1), append(Any, 1)];
        let head =
            StreamHead { version: 1.into(), state: StreamState::Live, ..StreamHead::MISSING };
        let answer = Appended::after(0.into(), 1, 7.into(), true).unwrap();
        let judge = |one, other| all_or_none(&appends, &[(head, one), (head, other)]);
        assert_eq!(judge(None, None).unwrap(), None);
        assert_eq!(judge(Some(answer), Some(answer)).unwrap(), Some(vec![answer, answer]));
        assert!(judge(None, Some(answer)).unwrap_err().conflict().is_some());
        assert!(judge(Some(answer), None).unwrap_err().conflict().is_some());
    }
}
