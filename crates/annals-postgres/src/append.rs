//! Sends appends to the functions `append` and `append_one` of the schema, and reads their answers.
//!
//! The database decides whether an expectation holds, in the statement that writes. If it does not
//! hold, the answer says how the stream was found, and core judges that, as for every store.

use std::sync::Arc;

use annals_core::{
    Append, Appended, ExpectedVersion, NewEvent, Position, Result, StreamState, Version,
    adapter::{self, StreamHead},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    connections::{Connections, PooledConnection},
    error::{Failure, corrupt, internal},
    rows::MAY_BE_RETRIED,
    sql::{Sql, query},
};

/// One append of a statement.
#[derive(Clone, Copy)]
pub(crate) struct AppendRequest<'a> {
    pub(crate) append: &'a Append,
    /// The version up to which the append is known not to be a retry, although its first id stands in
    /// the stream.
    pub(crate) new_after: Option<Version>,
}

impl<'a> AppendRequest<'a> {
    pub(crate) fn new(append: &'a Append) -> Self {
        Self { append, new_after: None }
    }

    fn names_no_version(&self) -> bool {
        matches!(self.append.expected, ExpectedVersion::Any | ExpectedVersion::StreamExists)
    }

    /// The number by which the schema's functions know the expectation.
    fn expectation(&self) -> i64 {
        match (self.append.expected, self.new_after) {
            (ExpectedVersion::Any, None) => -1,
            (ExpectedVersion::StreamExists, None) => -2,
            (ExpectedVersion::Any, Some(version)) => -10 - 2 * version.to_i64(),
            (ExpectedVersion::StreamExists, Some(version)) => -11 - 2 * version.to_i64(),
            (ExpectedVersion::NoStream, _) => 0,
            (ExpectedVersion::Exact(version), _) => version.to_i64(),
        }
    }

    fn first_id(&self) -> Uuid {
        self.append.events.first().map(NewEvent::id).unwrap_or_default()
    }

    fn flags(&self, number: usize, event: &NewEvent) -> i16 {
        let first = number == 0 && self.names_no_version();
        let kinds = adapter::content_kinds(event.data(), event.metadata());
        i16::from(kinds) | if first { MAY_BE_RETRIED } else { 0 }
    }
}

/// What a statement did with an append.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AppendOutcome {
    Written(Appended),
    /// Nothing was written. The stream was found like this.
    NotWritten {
        head: StreamHead,
        /// The version after which the append stands if it is a retry. The database looks for its
        /// first id only if the append names no version.
        retry_after: Option<Version>,
    },
}

impl AppendOutcome {
    fn not_written(head: StreamHead, seen_at: Option<i64>) -> Self {
        let seen_at = seen_at.filter(|_| head.state == StreamState::Live);
        let retry_after = seen_at.map(|version| Version::from_i64(version).minus(1));
        Self::NotWritten { head, retry_after }
    }
}

/// Sends appends in one statement, and so in one transaction. Each is judged by itself, or all
/// together if `all_or_none`. They come in rounds, each of which ends before the index in `rounds`
/// and has no stream twice.
pub(crate) async fn send(
    connection: &mut PooledConnection,
    sql: &Sql,
    lock_key: i32,
    requests: &[AppendRequest<'_>],
    rounds: &[i32],
    all_or_none: bool,
) -> Result<Vec<AppendOutcome>, Failure> {
    if let [request] = requests
        && let [event] = request.append.events.as_slice()
    {
        let stream = &request.append.stream;
        let query = query(&sql.append_one)
            .bind(lock_key)
            .bind(stream.as_str())
            .bind(stream.category_str())
            .bind(request.expectation())
            .bind(event.id())
            .bind(event.event_type().as_str())
            .bind(request.flags(0, event))
            .bind(&**event.data().bytes())
            .bind(&**event.metadata().bytes());
        let row = connection.run_one(query).await?;
        return Ok(vec![decode_one(&row)?]);
    }
    let streams = || requests.iter().map(|request| &request.append.stream);
    let events = || {
        requests.iter().enumerate().flat_map(|(index, request)| {
            let events = request.append.events.iter().enumerate();
            events.map(move |(n, event)| (index, request, n, event))
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
        .bind(requests.iter().map(AppendRequest::expectation).collect::<Vec<_>>())
        .bind(requests.iter().map(AppendRequest::first_id).collect::<Vec<_>>())
        .bind(events().map(|(index, ..)| owner(index + 1)).collect::<Vec<_>>())
        .bind(events().map(|(_, _, n, _)| number(n + 1)).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| event.id()).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| event.event_type().as_str()).collect::<Vec<_>>())
        .bind(events().map(|(_, request, n, event)| request.flags(n, event)).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| &**event.data().bytes()).collect::<Vec<_>>())
        .bind(events().map(|(.., event)| &**event.metadata().bytes()).collect::<Vec<_>>());
    let row = connection.run_one(query).await?;
    decode(&row, requests)
}

fn decode_one(row: &PgRow) -> Result<AppendOutcome, Failure> {
    let version = Version::from_i64(row.try_get(2)?);
    if row.try_get(0)? {
        let position = Position::from_i64(row.try_get(5)?);
        return Ok(AppendOutcome::Written(Appended::after(version, 1, position, false)?));
    }
    let head = head(row.try_get(1)?, version, row.try_get(3)?)?;
    Ok(AppendOutcome::not_written(head, row.try_get(4)?))
}

fn decode(row: &PgRow, requests: &[AppendRequest<'_>]) -> Result<Vec<AppendOutcome>, Failure> {
    let written: Vec<bool> = row.try_get(0)?;
    let states: Vec<Option<i16>> = row.try_get(1)?;
    let versions: Vec<i64> = row.try_get(2)?;
    let deletions: Vec<Option<i64>> = row.try_get(3)?;
    let seen_at: Vec<Option<i64>> = row.try_get(4)?;
    let positions: Option<Vec<i64>> = row.try_get(5)?;
    let mut positions = positions.into_iter().flatten();
    let mut outcomes = Vec::with_capacity(requests.len());
    let found = written.into_iter().zip(states).zip(versions).zip(deletions).zip(seen_at);
    for (request, found) in requests.iter().zip(found) {
        let ((((written, state), version), deletion), seen_at) = found;
        let version = Version::from_i64(version);
        outcomes.push(if written {
            let last = positions.nth(request.append.events.len().saturating_sub(1));
            let last = last.ok_or_else(|| internal("fewer positions than events"))?;
            let (count, last) = (request.append.count(), Position::from_i64(last));
            AppendOutcome::Written(Appended::after(version, count, last, false)?)
        } else {
            AppendOutcome::not_written(head(state, version, deletion)?, seen_at)
        });
    }
    if outcomes.len() != requests.len() || positions.next().is_some() {
        return Err(internal("not as many answers as appends").into());
    }
    Ok(outcomes)
}

/// The head of a stream, from the columns of the schema's functions.
pub(crate) fn head(
    state: Option<i16>,
    version: Version,
    deleted_at: Option<i64>,
) -> Result<StreamHead> {
    let Some(state) = state else { return Ok(StreamHead::MISSING) };
    let state = decode_state(state)?;
    let deleted_at = Version::from_i64(deleted_at.unwrap_or(0));
    Ok(StreamHead { state, version, deleted_at })
}

pub(crate) fn decode_state(code: i16) -> Result<StreamState> {
    adapter::state_of_code(code.into()).ok_or_else(|| corrupt("unknown state of a stream"))
}

/// The answer that an append got when it was written before: if its ids stand right after the
/// version `base`.
pub(crate) async fn find_replayed(
    connections: &Arc<Connections>,
    sql: &Sql,
    append: &Append,
    base: Version,
) -> Result<Option<Appended>, Failure> {
    let count = Version::new(append.count()).to_i64();
    let statement =
        || query(&sql.ids_after).bind(append.stream.as_str()).bind(base.to_i64()).bind(count);
    let rows = connections.rows(statement).await?;
    let found = rows.iter().map(|row| {
        let (version, position) = (row.try_get(0)?, row.try_get(2)?);
        let id: Uuid = row.try_get(1)?;
        Ok((Version::from_i64(version), id, Position::from_i64(position)))
    });
    adapter::written_after(append, base, found)
}

/// Which of these appends cannot have been written before: another id than their first one stands
/// right after their version, or none. One question for many appends: if many are refused at once, as
/// when writers race for a stream, the appends that wait behind them should not wait for each.
pub(crate) async fn not_replayed(
    connections: &Arc<Connections>,
    sql: &Sql,
    appends: &[(&Append, Version)],
) -> sqlx::Result<Vec<bool>> {
    let names = || appends.iter().map(|(append, _)| append.stream.as_str());
    let firsts = || appends.iter().map(|(_, base)| base.plus(1).to_i64());
    let statement = || {
        query(&sql.ids_between)
            .bind(names().collect::<Vec<_>>())
            .bind(firsts().collect::<Vec<_>>())
            .bind(firsts().collect::<Vec<_>>())
    };
    let rows = connections.rows(statement).await?;
    let mut not_replayed = vec![true; appends.len()];
    for row in rows {
        let (number, id): (i64, Uuid) = (row.try_get(0)?, row.try_get(2)?);
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let (Some(found), Some((append, _))) = (not_replayed.get_mut(index), appends.get(index))
        {
            *found = append.events.first().map(NewEvent::id) != Some(id);
        }
    }
    Ok(not_replayed)
}
