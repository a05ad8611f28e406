//! What appends, imports and removals write, for stores that can do it in one transaction.

use std::collections::HashMap;

use chrono::{SubsecRound, Utc};

use super::{Plan, StreamHead, Streams, plan_append, plan_import};
use crate::{
    Append, Appended, ExpectedVersion, Position, RecordedEvent, StreamId, StreamState, Version,
};

/// A transaction that changes streams. The adapter writes rows; the methods below decide which.
///
/// Each method leaves the transaction to be rolled back if it fails.
pub trait StreamsMut: Streams {
    /// The greatest position that was ever given.
    fn last_position(&self) -> Result<Position, Self::Error>;

    /// Writes an event at its version and its position, which is greater than every one before.
    fn insert(&mut self, event: RecordedEvent) -> Result<(), Self::Error>;

    /// Writes the head of a stream, which is never missing.
    fn set_head(&mut self, stream: &StreamId, head: StreamHead) -> Result<(), Self::Error>;

    /// Removes the events of a stream before a version; all of them if the version is beyond the last.
    fn remove_before(&mut self, stream: &StreamId, before: Version) -> Result<(), Self::Error>;

    /// Removes the snapshot of a stream.
    fn remove_snapshot(&mut self, stream: &StreamId) -> Result<(), Self::Error>;

    /// Writes all the appends, or recognises that all were written before.
    ///
    /// # Errors
    /// Those of [`plan_append`].
    fn append(&mut self, appends: Vec<Append>) -> Result<Vec<Appended>, Self::Error>
    where
        Self: Sized,
    {
        let heads = match plan_append(self, &appends)? {
            Plan::Replayed(answers) => return Ok(answers),
            Plan::Write(heads) => heads,
        };
        let now = Utc::now().trunc_subsecs(6);
        let mut position = self.last_position()?;
        let mut answers = Vec::with_capacity(appends.len());
        for (append, head) in appends.into_iter().zip(heads) {
            let (base, count) = (head.version, append.count());
            for (n, event) in (1..).zip(append.events) {
                position = position.plus(1);
                self.insert(event.recorded(append.stream.clone(), base.plus(n), position, now))?;
            }
            self.set_head(&append.stream, head.live_at(base.plus(count)))?;
            answers.push(Appended::after(base, count, position, false)?);
        }
        Ok(answers)
    }

    /// Writes events of another store that are not here yet.
    ///
    /// # Errors
    /// Those of [`plan_import`].
    fn import(&mut self, events: Vec<RecordedEvent>) -> Result<(), Self::Error>
    where
        Self: Sized,
    {
        let mut last_versions = HashMap::new();
        let mut position = self.last_position()?;
        for event in plan_import(self, events)? {
            position = position.plus(1);
            last_versions.insert(event.stream.clone(), event.version);
            self.insert(RecordedEvent { position, ..event })?;
        }
        for (stream, version) in last_versions {
            let head = self.head(&stream)?;
            self.set_head(&stream, head.live_at(version))?;
        }
        Ok(())
    }

    /// Removes the events of a stream before a version.
    ///
    /// # Errors
    /// [`ErrorKind::StreamClosed`](crate::ErrorKind::StreamClosed), and those of the transaction.
    fn truncate(&mut self, stream: &StreamId, before: Version) -> Result<(), Self::Error> {
        self.head(stream)?.check(stream, ExpectedVersion::Any)?;
        self.remove_before(stream, before)
    }

    /// Removes all events of a stream, and its snapshot, and leaves the stream deleted or tombstoned.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and
    /// [`ErrorKind::StreamClosed`](crate::ErrorKind::StreamClosed), and those of the transaction.
    fn close(
        &mut self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<(), Self::Error> {
        let head = self.head(stream)?;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        self.remove_before(stream, Version::new(u64::MAX))?;
        self.remove_snapshot(stream)?;
        self.set_head(stream, StreamHead { state, deleted_at: head.version, ..head })
    }
}
