//! Appends as the function `append` of the schema takes and answers them.
//!
//! The database decides whether an expectation holds, in the statement that writes. Where it does
//! not, what it found is judged here, as for every store.

use std::sync::Arc;

use annals_core::{
    Append, Appended, ContentKind, Error, ExpectedVersion, NewEvent, Payload, Position, Result,
    StreamState, Version,
    adapter::{StreamHead, Verdict},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    connections::Connections,
    error::{Failure, corrupt, internal},
    rows,
    sql::{Sql, one_row, query},
};

const DATA_IS_JSON: i16 = 1;
const METADATA_IS_JSON: i16 = 2;
/// The first event of an append that names no version.
const MAY_BE_RETRIED: i16 = 4;
/// The bits that a stored event may have.
pub(crate) const KNOWN_FLAGS: i16 = DATA_IS_JSON | METADATA_IS_JSON | MAY_BE_RETRIED;

/// How the content kinds of data and metadata are stored.
pub(crate) fn kinds(data: &Payload, metadata: &Payload) -> i16 {
    let bit = |payload: &Payload, bit| if payload.kind() == ContentKind::Json { bit } else { 0 };
    bit(data, DATA_IS_JSON) | bit(metadata, METADATA_IS_JSON)
}

/// The reverse of [`kinds`].
pub(crate) fn kind_of(flags: i16) -> (ContentKind, ContentKind) {
    let kind = |bit| if flags & bit == 0 { ContentKind::Binary } else { ContentKind::Json };
    (kind(DATA_IS_JSON), kind(METADATA_IS_JSON))
}

/// One append of a call.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) append: &'a Append,
    /// Whether its first id stands in the stream and is known to be no retry.
    pub(crate) is_new: bool,
}

impl Asked<'_> {
    fn names_no_version(&self) -> bool {
        matches!(self.append.expected, ExpectedVersion::Any | ExpectedVersion::StreamExists)
    }

    fn expectation(&self) -> i64 {
        match self.append.expected {
            ExpectedVersion::Any if self.is_new => -3,
            ExpectedVersion::Any => -1,
            ExpectedVersion::StreamExists if self.is_new => -4,
            ExpectedVersion::StreamExists => -2,
            ExpectedVersion::NoStream => 0,
            ExpectedVersion::Exact(version) => version.to_i64(),
        }
    }

    fn first_id(&self) -> Uuid {
        self.append.events.first().map(NewEvent::id).unwrap_or_default()
    }

    fn flags(&self, number: usize, event: &NewEvent) -> i16 {
        let first = number == 0 && self.names_no_version();
        kinds(event.data(), event.metadata()) | if first { MAY_BE_RETRIED } else { 0 }
    }
}

/// How an append was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Its events stand after this version.
    Written(Appended),
    /// Its stream was found like this.
    Found {
        head: StreamHead,
        /// Where its first id stands, for an append that names no version.
        seen_at: Option<Version>,
    },
}

/// Sends appends, which share a transaction: each is judged by itself, or all together. They are in
/// rounds, of which each has no stream twice and ends at one of `rounds`.
pub(crate) async fn send(
    connection: &mut PgConnection,
    sql: &Sql,
    lock_key: i32,
    asked: &[Asked<'_>],
    rounds: &[i32],
    all_or_none: bool,
) -> Result<Vec<Answer>, Failure> {
    if let [one] = asked
        && let [event] = one.append.events.as_slice()
    {
        let stream = &one.append.stream;
        let query = query(&sql.append_one)
            .bind(lock_key)
            .bind(stream.as_str())
            .bind(stream.category_str())
            .bind(one.expectation())
            .bind(event.id())
            .bind(event.event_type().as_str())
            .bind(one.flags(0, event))
            .bind(&**event.data().bytes())
            .bind(&**event.metadata().bytes());
        let row = one_row(query, connection).await?;
        return Ok(vec![decode_one(&row)?]);
    }
    let streams = || asked.iter().map(|one| &one.append.stream);
    let events = || {
        asked.iter().enumerate().flat_map(|(index, one)| {
            one.append.events.iter().enumerate().map(move |(n, event)| (index, one, n, event))
        })
    };
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let owner = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let query = query(&sql.append)
        .bind(lock_key)
        .bind(all_or_none)
        .bind(rounds)
        .bind(streams().map(|stream| stream.as_str()).collect::<Vec<_>>())
        .bind(streams().map(|stream| stream.category_str()).collect::<Vec<_>>())
        .bind(asked.iter().map(Asked::expectation).collect::<Vec<_>>())
        .bind(asked.iter().map(Asked::first_id).collect::<Vec<_>>())
        .bind(events().map(|(index, ..)| owner(index + 1)).collect::<Vec<_>>())
        .bind(events().map(|(_, _, n, _)| number(n + 1)).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| event.id()).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| event.event_type().as_str()).collect::<Vec<_>>())
        .bind(events().map(|(_, one, n, event)| one.flags(n, event)).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| &**event.data().bytes()).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| &**event.metadata().bytes()).collect::<Vec<_>>());
    let row = one_row(query, connection).await?;
    decode(&row, asked)
}

fn decode_one(row: &PgRow) -> Result<Answer, Failure> {
    let version = Version::from_i64(row.try_get(2)?);
    if row.try_get(0)? {
        let position = Position::from_i64(row.try_get(5)?);
        return Ok(Answer::Written(Appended::after(version, 1, position, false)?));
    }
    let head = head(row.try_get(1)?, version, row.try_get(3)?)?;
    let seen_at: Option<i64> = row.try_get(4)?;
    Ok(Answer::Found { head, seen_at: seen_at.map(Version::from_i64) })
}

fn decode(row: &PgRow, asked: &[Asked<'_>]) -> Result<Vec<Answer>, Failure> {
    let written: Vec<bool> = row.try_get(0)?;
    let states: Vec<Option<i16>> = row.try_get(1)?;
    let versions: Vec<i64> = row.try_get(2)?;
    let deletions: Vec<Option<i64>> = row.try_get(3)?;
    let seen_at: Vec<Option<i64>> = row.try_get(4)?;
    let positions: Option<Vec<i64>> = row.try_get(5)?;
    let mut positions = positions.into_iter().flatten();
    let mut answers = Vec::with_capacity(asked.len());
    let found = written.into_iter().zip(states).zip(versions).zip(deletions).zip(seen_at);
    for (one, ((((written, state), version), deletion), seen_at)) in asked.iter().zip(found) {
        let version = Version::from_i64(version);
        answers.push(if written {
            let last = positions.nth(one.append.events.len().saturating_sub(1));
            let last = last.ok_or_else(|| internal("fewer positions than events"))?;
            let (count, last) = (one.append.count(), Position::from_i64(last));
            Answer::Written(Appended::after(version, count, last, false)?)
        } else {
            let head = head(state, version, deletion)?;
            Answer::Found { head, seen_at: seen_at.map(Version::from_i64) }
        });
    }
    if answers.len() != asked.len() || positions.next().is_some() {
        return Err(internal("not as many answers as appends").into());
    }
    Ok(answers)
}

pub(crate) fn head(
    state: Option<i16>,
    version: Version,
    deleted_at: Option<i64>,
) -> Result<StreamHead> {
    let Some(state) = state else { return Ok(StreamHead::MISSING) };
    let state = rows::state(state).ok_or_else(|| corrupt("unknown state of a stream"))?;
    let deleted_at = Version::from_i64(deleted_at.unwrap_or(0));
    Ok(StreamHead { state, version, deleted_at })
}

/// What has to be looked at before an append that was not written can be answered.
pub(crate) enum Next {
    /// Nothing.
    Refuse(Error),
    /// Whether its ids stand after this version: then it was written before. If they do not, it is
    /// a conflict, or, for one that names no version, to be sent again as new.
    LookAfter(Version),
    /// Its expectation holds: only others kept it from being written.
    Holds,
}

impl Asked<'_> {
    /// Judges what was found.
    pub(crate) fn next(&self, head: &StreamHead, seen_at: Option<Version>) -> Next {
        let Append { stream, expected, .. } = self.append;
        match head.judge(*expected) {
            Verdict::Closed => Next::Refuse(Error::stream_closed(stream)),
            Verdict::Conflict => Next::Refuse(Error::lost_race(stream, *expected, head.version)),
            Verdict::RetryOrConflict(base) => Next::LookAfter(base),
            Verdict::Write => match seen_at {
                Some(version) if head.state == StreamState::Live => {
                    Next::LookAfter(version.minus(1))
                }
                _ => Next::Holds,
            },
        }
    }

    /// The answer of the append, if its ids stand right after that version.
    pub(crate) async fn written_after(
        &self,
        connections: &Arc<Connections>,
        sql: &Sql,
        base: Version,
    ) -> sqlx::Result<Option<Appended>> {
        let count = self.append.count();
        let statement = || {
            query(&sql.ids_after)
                .bind(self.append.stream.as_str())
                .bind(base.to_i64())
                .bind(Version::new(count).to_i64())
        };
        let rows = connections.rows(statement).await?;
        if rows.len() != self.append.events.len() {
            return Ok(None);
        }
        let mut last = Position::START;
        for ((version, event), row) in (base.get() + 1..).zip(&self.append.events).zip(rows) {
            let (found, id): (i64, Uuid) = (row.try_get(0)?, row.try_get(1)?);
            if Version::from_i64(found).get() != version || id != event.id() {
                return Ok(None);
            }
            last = Position::from_i64(row.try_get(2)?);
        }
        Ok(Appended::after(base, count, last, true).ok())
    }
}
