//! Everything that is written besides events.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use annals_core::{
    Error, ErrorKind, ExpectedVersion, LeaseName, LeaseRecord, Position, Result, Snapshot,
    StreamId, StreamInfo, StreamState, SubscriberId, Version, adapter::StreamHead,
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    append::kinds,
    error::{corrupt, driver, has_lost_connection, internal, is_race},
    rows,
    sql::query,
    store::Shared,
};

/// How many events are deleted at a time, after they were hidden.
const CLEAN_UP: i64 = 10_000;

/// A stream as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) head: StreamHead,
    /// Events up to here were removed.
    pub(crate) removed_to: Version,
}

impl Head {
    pub(crate) async fn load(shared: &Shared, stream: &StreamId) -> Result<Self> {
        let statement = || query(&shared.sql.head).bind(stream.as_str());
        let rows = shared.connections.rows(statement).await.map_err(driver)?;
        let Some(row) = rows.first() else {
            return Ok(Self { head: StreamHead::MISSING, removed_to: Version::NONE });
        };
        Self::decode(row, 0)
    }

    /// Of state, version, `removed_to` and `deleted_at`, in the columns from one on.
    fn decode(row: &PgRow, first: usize) -> Result<Self> {
        let number = |column| row.try_get(first + column).map(Version::from_i64).map_err(driver);
        let state = rows::state(row.try_get(first).map_err(driver)?);
        let state = state.ok_or_else(|| corrupt("unknown state of a stream"))?;
        let head = StreamHead { state, version: number(1)?, deleted_at: number(3)? };
        Ok(Self { head, removed_to: number(2)? })
    }

    pub(crate) fn info(&self) -> StreamInfo {
        let first = self.removed_to.plus(1);
        self.head.info((first <= self.head.version).then_some(first))
    }
}

/// The streams after an id, in the order of the bytes of their ids.
pub(crate) async fn list_streams(
    shared: &Shared,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, StreamInfo)>> {
    // No id is empty.
    let after = after.map_or("", StreamId::as_str);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = || query(&shared.sql.list_streams).bind(after).bind(limit);
    let rows = shared.connections.rows(statement).await.map_err(driver)?;
    let stream = |row: &PgRow| {
        let name: &str = row.try_get(0).map_err(driver)?;
        let stream = StreamId::new(name)
            .map_err(|e| corrupt("a stream has an illegal name").with_source(e))?;
        let head = Head::decode(row, 1).map_err(|e| e.with_stream(&stream))?;
        Ok((stream, head.info()))
    };
    rows.iter().map(stream).collect()
}

/// What becomes of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Removal {
    Before(Version),
    All(StreamState),
}

/// Removes events: hides them, in the state in which the stream was judged, and then deletes them.
pub(crate) async fn remove(
    shared: &Arc<Shared>,
    stream: &StreamId,
    expected: ExpectedVersion,
    removal: Removal,
) -> Result<()> {
    loop {
        let head = Head::load(shared, stream).await?.head;
        head.check(stream, expected)?;
        let is_missing = head.state == StreamState::Missing;
        let (state, up_to) = match removal {
            Removal::Before(_) | Removal::All(StreamState::Deleted) if is_missing => return Ok(()),
            Removal::Before(version) => (None, version.minus(1)),
            Removal::All(state) => (Some(state), head.version),
        };
        if hide(shared, stream, &head, state, up_to).await.map_err(driver)? {
            break;
        }
        // Somebody else has changed the stream since.
    }
    let cleaning = tokio::spawn(clean_up(shared.clone(), stream.clone()));
    cleaning.await.unwrap_or_else(|_| Err(internal("the clean-up was interrupted")))
}

/// Says false where the stream is not as it was any more.
async fn hide(
    shared: &Shared,
    stream: &StreamId,
    head: &StreamHead,
    state: Option<StreamState>,
    up_to: Version,
) -> sqlx::Result<bool> {
    let statement = || {
        query(&shared.sql.remove)
            .bind(shared.lock_key)
            .bind(stream.as_str())
            .bind(stream.category_str())
            .bind(stored(head.state))
            .bind(head.version.to_i64())
            .bind(state.and_then(stored))
            .bind(up_to.to_i64())
    };
    loop {
        match shared.connections.row(statement).await {
            Err(error) if is_race(&error) => tokio::task::yield_now().await,
            done => return done?.try_get(0),
        }
    }
}

/// How the state of a stream is stored; not at all where it was never written to.
fn stored(state: StreamState) -> Option<i16> {
    match state {
        StreamState::Live => Some(0),
        StreamState::Deleted => Some(1),
        StreamState::Tombstoned => Some(2),
        _ => None,
    }
}

/// Deletes what was hidden, in short transactions. Where this ends in the middle, the next removal
/// of the stream deletes the rest.
async fn clean_up(shared: Arc<Shared>, stream: StreamId) -> Result<()> {
    let statement = || query(&shared.sql.clean_up).bind(stream.as_str()).bind(CLEAN_UP);
    loop {
        let row = shared.connections.row(statement).await;
        let deleted: i64 = row.and_then(|row| row.try_get(0)).map_err(driver)?;
        if deleted < CLEAN_UP {
            return Ok(());
        }
    }
}

pub(crate) async fn load_snapshot(shared: &Shared, stream: &StreamId) -> Result<Option<Snapshot>> {
    let statement = || query(&shared.sql.load_snapshot).bind(stream.as_str());
    let rows = shared.connections.rows(statement).await.map_err(driver)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (data, metadata) = rows::payloads(row, 1)?;
    let version = row.try_get(0).map(Version::from_i64).map_err(driver)?;
    Ok(Some(Snapshot::new(version, data).with_metadata(metadata)))
}

pub(crate) async fn save_snapshot(
    shared: &Shared,
    stream: &StreamId,
    snapshot: &Snapshot,
) -> Result<()> {
    let Snapshot { version, data, metadata, .. } = snapshot;
    let statement = || {
        query(&shared.sql.save_snapshot)
            .bind(stream.as_str())
            .bind(version.to_i64())
            .bind(kinds(data, metadata))
            .bind(&**data.bytes())
            .bind(&**metadata.bytes())
    };
    shared.connections.rows(statement).await.map(drop).map_err(driver)
}

pub(crate) async fn delete_snapshot(shared: &Shared, stream: &StreamId) -> Result<()> {
    let statement = || query(&shared.sql.delete_snapshot).bind(stream.as_str());
    shared.connections.rows(statement).await.map(drop).map_err(driver)
}

pub(crate) async fn load_checkpoint(
    shared: &Shared,
    subscriber: &SubscriberId,
) -> Result<Option<Position>> {
    let statement = || query(&shared.sql.load_checkpoint).bind(subscriber.as_str());
    let rows = shared.connections.rows(statement).await.map_err(driver)?;
    rows.first().map(|row| row.try_get(0).map(Position::from_i64)).transpose().map_err(driver)
}

pub(crate) async fn save_checkpoint(
    shared: &Shared,
    subscriber: &SubscriberId,
    position: Position,
) -> Result<Position> {
    let text = &shared.sql.save_checkpoint;
    let statement = || query(text).bind(subscriber.as_str()).bind(position.to_i64());
    let row = shared.connections.row(statement).await;
    row.and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(driver)
}

pub(crate) async fn reset_checkpoint(
    shared: &Shared,
    subscriber: &SubscriberId,
    position: Option<Position>,
) -> Result<()> {
    let sql = &shared.sql;
    let statement = || match position {
        Some(position) => {
            query(&sql.set_checkpoint).bind(subscriber.as_str()).bind(position.to_i64())
        }
        None => query(&sql.delete_checkpoint).bind(subscriber.as_str()),
    };
    shared.connections.rows(statement).await.map(drop).map_err(driver)
}

pub(crate) async fn load_lease(shared: &Shared, name: &LeaseName) -> Result<Option<LeaseRecord>> {
    let statement = || query(&shared.sql.load_lease).bind(name.as_str());
    let rows = shared.connections.rows(statement).await.map_err(driver)?;
    let record = |row: &PgRow| {
        let numbers = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
        Ok(LeaseRecord::from_stored(numbers, row.try_get(3)?))
    };
    rows.first().map(record).transpose().map_err(driver)
}

pub(crate) async fn swap_lease(
    shared: &Shared,
    name: &LeaseName,
    record: &LeaseRecord,
) -> Result<bool> {
    let sql = &shared.sql;
    let text = if record.revision == 1 { &sql.begin_lease } else { &sql.swap_lease };
    let [revision, token, ttl] = record.to_stored();
    let tries = AtomicUsize::new(0);
    let statement = || {
        tries.fetch_add(1, Relaxed);
        query(text).bind(name.as_str()).bind(revision).bind(token).bind(ttl).bind(record.holder)
    };
    let swapped = shared.connections.rows(statement).await;
    match (swapped, tries.into_inner()) {
        (Ok(rows), _) if !rows.is_empty() => Ok(true),
        (Ok(_), 1) => Ok(false),
        // What is there instead may be what a first try wrote, whose answer was lost.
        (Ok(_), _) => {
            let message = "the connection was lost, and another record is there by now";
            Err(Error::new(ErrorKind::Unavailable, message).with_outcome_unknown())
        }
        (Err(error), tries) => {
            let was_refused = error.as_database_error().is_some() && !has_lost_connection(&error);
            let nothing_written = tries == 0 || (tries == 1 && was_refused);
            let error = driver(error);
            Err(if nothing_written { error } else { error.with_outcome_unknown() })
        }
    }
}
