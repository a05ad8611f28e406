//! The statements that call the functions `append` and `append_one` of the schema, and their answers.
//!
//! The database decides whether an expectation holds, in the statement that writes. If it does not
//! hold, the answer says how the stream was found, and core judges that, as for every store.

use annals_core::{
    Append, Appended, Error, ErrorKind, ExpectedVersion, NewEvent, Position, Result, StreamState,
    Version,
    adapter::{self, StreamHead},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::{Failure, corrupt, internal},
    rows::MAY_BE_RETRIED,
    sql::{Sql, Statement, query},
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
        /// The answer that the append got when it was written before: its ids stand at just the
        /// versions that they would have got.
        replayed: Option<Appended>,
    },
}

impl AppendOutcome {
    /// The outcome from the columns of the schema's functions: the version of the append's first id,
    /// and the position of its last event, if it was written before.
    fn not_written(
        append: &Append,
        head: StreamHead,
        seen_at: Option<i64>,
        replay: Option<i64>,
    ) -> Result<Self> {
        let seen_at = seen_at.filter(|_| head.state == StreamState::Live);
        let retry_after = seen_at.map(|version| Version::from_i64(version).minus(1));
        let base = head.compare_after(append, || retry_after).unwrap_or_default();
        let replayed = match (base, replay) {
            (Some(base), Some(last)) => {
                Some(Appended::after(base, append.count(), Position::from_i64(last), true)?)
            }
            _ => None,
        };
        Ok(Self::NotWritten { head, retry_after, replayed })
    }
}

/// How often an append is sent again because another one with the same ids came in between.
pub(crate) const MOST_ROUNDS: usize = 10;

/// The error after [`MOST_ROUNDS`].
pub(crate) fn in_the_way() -> Error {
    let message = "appends with the same event ids got in the way again and again; try again";
    Error::new(ErrorKind::Busy, message)
}

/// What is left to do when a statement has answered.
pub(crate) enum Next<'a> {
    /// All is written, or was written before.
    Answer(Vec<Appended>),
    /// Nothing is written, and these appends have to be sent again.
    SendAgain(Vec<AppendRequest<'a>>),
}

/// Judges what a statement did with the appends of one call. Appends that were not written are
/// retries, or conflicts, or are sent again.
pub(crate) fn judge(appends: &[Append], outcomes: Vec<AppendOutcome>) -> Result<Next<'_>> {
    let (mut written, mut again, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    for (append, outcome) in appends.iter().zip(outcomes) {
        let (head, retry_after, replayed) = match outcome {
            AppendOutcome::Written(appended) => {
                written.push(appended);
                continue;
            }
            AppendOutcome::NotWritten { head, retry_after, replayed } => {
                (head, retry_after, replayed)
            }
        };
        let base = head.compare_after(append, || retry_after)?;
        let replayed = match base {
            Some(_) => head.compared(append, replayed)?,
            None => None,
        };
        again.push(AppendRequest { append, new_after: base.map(|_| head.version) });
        judged.push((head, replayed));
    }
    if again.is_empty() {
        return Ok(Next::Answer(written));
    }
    if !written.is_empty() {
        return Err(internal("a part of an append was written"));
    }
    // Otherwise these are no retries, and their expectations held.
    Ok(match adapter::all_or_none(appends, &judged)? {
        Some(replayed) => Next::Answer(replayed),
        None => Next::SendAgain(again),
    })
}

/// The statement for appends, which writes them in one transaction. Each is judged by itself, or all
/// together if `all_or_none`. They come in rounds, each of which ends before the index in `rounds`
/// and has no stream twice.
pub(crate) fn statement<'a>(
    sql: &Sql,
    lock_key: i32,
    requests: &'a [AppendRequest<'_>],
    rounds: &'a [i32],
    all_or_none: bool,
) -> Statement<'a> {
    if let [request] = requests
        && let [event] = request.append.events.as_slice()
    {
        let stream = &request.append.stream;
        return query(&sql.append_one)
            .bind(lock_key)
            .bind(stream.as_str())
            .bind(stream.category_str())
            .bind(request.expectation())
            .bind(event.id())
            .bind(event.event_type().as_str())
            .bind(request.flags(0, event))
            .bind(&**event.data().bytes())
            .bind(&**event.metadata().bytes());
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
    query(&sql.append)
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
        .bind(events().map(|(.., event)| &**event.metadata().bytes()).collect::<Vec<_>>())
}

/// What the answer to the statement of appends says about each.
pub(crate) fn outcomes(
    row: &PgRow,
    requests: &[AppendRequest<'_>],
) -> Result<Vec<AppendOutcome>, Failure> {
    match requests {
        [request] if request.append.events.len() == 1 => Ok(vec![decode_one(row, request.append)?]),
        requests => decode(row, requests),
    }
}

fn decode_one(row: &PgRow, append: &Append) -> Result<AppendOutcome, Failure> {
    let version = Version::from_i64(row.try_get(2)?);
    if row.try_get(0)? {
        let position = Position::from_i64(row.try_get(6)?);
        return Ok(AppendOutcome::Written(Appended::after(version, 1, position, false)?));
    }
    let head = head(row.try_get(1)?, version, row.try_get(3)?)?;
    Ok(AppendOutcome::not_written(append, head, row.try_get(4)?, row.try_get(5)?)?)
}

fn decode(row: &PgRow, requests: &[AppendRequest<'_>]) -> Result<Vec<AppendOutcome>, Failure> {
    let written: Vec<bool> = row.try_get(0)?;
    let states: Vec<Option<i16>> = row.try_get(1)?;
    let versions: Vec<i64> = row.try_get(2)?;
    let deletions: Vec<Option<i64>> = row.try_get(3)?;
    let seen_at: Vec<Option<i64>> = row.try_get(4)?;
    let replays: Vec<Option<i64>> = row.try_get(5)?;
    let positions: Option<Vec<i64>> = row.try_get(6)?;
    let mut positions = positions.into_iter().flatten();
    let mut outcomes = Vec::with_capacity(requests.len());
    let found = written.into_iter().zip(states).zip(versions).zip(deletions);
    let found = found.zip(seen_at.into_iter().zip(replays));
    for (request, found) in requests.iter().zip(found) {
        let ((((written, state), version), deletion), (seen_at, replay)) = found;
        let version = Version::from_i64(version);
        outcomes.push(if written {
            let last = positions.nth(request.append.events.len().saturating_sub(1));
            let last = last.ok_or_else(|| internal("fewer positions than events"))?;
            let (count, last) = (request.append.count(), Position::from_i64(last));
            AppendOutcome::Written(Appended::after(version, count, last, false)?)
        } else {
            let head = head(state, version, deletion)?;
            AppendOutcome::not_written(request.append, head, seen_at, replay)?
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
