//! What is to be written of an append or an import, for stores that can ask and write in one
//! transaction.

use std::collections::HashSet;

use uuid::Uuid;

use super::{ImportVerdict, StreamHead, all_or_none, import_conflict, written_after};
use crate::{
    Append, Appended, Error, NewEvent, Position, RecordedEvent, Result, StreamId, Version,
};

/// What a transaction knows of its streams. No other writer may change the answers before the
/// transaction ends.
pub trait Streams {
    /// The error of a failed transaction.
    type Error: From<Error>;

    /// The head of a stream; [`StreamHead::MISSING`] if it was never written to.
    fn head(&self, stream: &StreamId) -> Result<StreamHead, Self::Error>;

    /// The id and the position of the event with a version, unless it was removed.
    fn place(
        &self,
        stream: &StreamId,
        version: Version,
    ) -> Result<Option<(Uuid, Position)>, Self::Error>;

    /// The version of the last event of a stream that has this id, unless it was removed. A store
    /// with [guaranteed recognition](crate::Recognition::Guaranteed) knows all ids of a stream.
    fn version_of(&self, stream: &StreamId, id: Uuid) -> Result<Option<Version>, Self::Error>;

    /// The first version that can be read.
    fn first_version(&self, stream: &StreamId) -> Result<Option<Version>, Self::Error>;
}

/// What [`plan_append`] has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Everything was written before: these are the answers.
    Replayed(Vec<Appended>),
    /// Everything is to be written, each append after the version of its head.
    Write(Vec<StreamHead>),
}

/// Decides on the appends of one call, each to another stream, before the first is written.
///
/// # Errors
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and
/// [`ErrorKind::StreamClosed`](crate::ErrorKind::StreamClosed), and those of the transaction.
pub fn plan_append<S: Streams>(streams: &S, appends: &[Append]) -> Result<Plan, S::Error> {
    let mut judged = Vec::with_capacity(appends.len());
    for append in appends {
        let stream = &append.stream;
        let head = streams.head(stream)?;
        // Under `Any` and `StreamExists` a retry is recognised wherever its first event stands.
        let first = append.events.first().map_or(Uuid::nil(), NewEvent::id);
        let known = streams.version_of(stream, first)?;
        let replayed = match head.compare_after(append, || Some(known?.minus(1)))? {
            None => None,
            Some(base) => {
                let found = (1..).map_while(|n| {
                    let version = base.plus(n);
                    let place = streams.place(stream, version).transpose()?;
                    Some(place.map(|(id, position)| (version, id, position)))
                });
                head.compared(append, written_after(append, base, found)?)?
            }
        };
        judged.push((head, replayed));
    }
    Ok(match all_or_none(appends, &judged)? {
        Some(replayed) => Plan::Replayed(replayed),
        None => Plan::Write(judged.into_iter().map(|(head, _)| head).collect()),
    })
}

/// The events of an import that are to be written; the others stand at their versions already.
///
/// # Errors
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and
/// [`ErrorKind::StreamClosed`](crate::ErrorKind::StreamClosed), and those of the transaction.
pub fn plan_import<S: Streams>(
    streams: &S,
    events: Vec<RecordedEvent>,
) -> Result<Vec<RecordedEvent>, S::Error> {
    let mut new = Vec::with_capacity(events.len());
    // The versions of a stream increase by 1, so all events after a new one are new as well.
    let mut streams_of_new = HashSet::new();
    for event in events {
        let stream = &event.stream;
        if !streams_of_new.contains(stream) {
            let head = streams.head(stream)?;
            let is_empty = streams.first_version(stream)?.is_none();
            match head.judge_import(&event, is_empty)? {
                ImportVerdict::Write => {
                    streams_of_new.insert(stream.clone());
                }
                ImportVerdict::Compare => match streams.place(stream, event.version)? {
                    Some((id, _)) if id == event.id => continue,
                    _ => return Err(import_conflict(&event, head.version).into()),
                },
            }
        }
        new.push(event);
    }
    Ok(new)
}
