//! Streams as a whole: what is known of them, their list, and the removal of events.

use std::sync::Arc;

use annals_core::{
    ExpectedVersion, Position, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::{StreamHead, state_code},
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    append::decode_state,
    database::Database,
    error::{corrupt, driver, internal, is_race},
    sql::query,
};

/// How many events one statement deletes, after they were hidden.
const CLEAN_UP: i64 = 10_000;

/// A stream as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredStream {
    head: StreamHead,
    /// Events up to this version were removed.
    removed_to: Version,
}

impl StoredStream {
    pub(crate) async fn load(database: &Database, stream: &StreamId) -> Result<Self> {
        let statement = || query(&database.sql.head).bind(stream.as_str());
        let rows = database.connections.rows(statement).await.map_err(driver)?;
        let Some(row) = rows.first() else {
            return Ok(Self { head: StreamHead::MISSING, removed_to: Version::NONE });
        };
        Self::decode(row, 0)
    }

    /// Decodes state, version, `removed_to` and `deleted_at`, which begin at the column `first`.
    fn decode(row: &PgRow, first: usize) -> Result<Self> {
        let number = |column| row.try_get(first + column).map(Version::from_i64).map_err(driver);
        let state = decode_state(row.try_get(first).map_err(driver)?)?;
        let head = StreamHead { state, version: number(1)?, deleted_at: number(3)? };
        Ok(Self { head, removed_to: number(2)? })
    }

    pub(crate) fn info(&self) -> StreamInfo {
        let first = self.removed_to.plus(1);
        self.head.info((first <= self.head.version).then_some(first))
    }
}

/// The version that a stream had at a position.
pub(crate) async fn version_at(
    database: &Database,
    stream: &StreamId,
    position: Position,
) -> Result<Version> {
    let text = &database.sql.version_at;
    let statement = || query(text).bind(stream.as_str()).bind(position.to_i64());
    match database.connections.rows(statement).await.map_err(driver)?.first() {
        Some(row) => row.try_get(0).map(Version::from_i64).map_err(driver),
        None => Ok(StoredStream::load(database, stream).await?.removed_to),
    }
}

/// The streams after a stream id, by the bytes of their ids.
pub(crate) async fn list_streams(
    database: &Database,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, StreamInfo)>> {
    // Every stream id is greater than the empty text.
    let after = after.map_or("", StreamId::as_str);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = || query(&database.sql.list_streams).bind(after).bind(limit);
    let rows = database.connections.rows(statement).await.map_err(driver)?;
    let stream = |row: &PgRow| {
        let name: &str = row.try_get(0).map_err(driver)?;
        let stream = StreamId::new(name)
            .map_err(|e| corrupt("a stream has an illegal name").with_source(e))?;
        let stored = StoredStream::decode(row, 1).map_err(|e| e.with_stream(&stream))?;
        Ok((stream, stored.info()))
    };
    rows.iter().map(stream).collect()
}

/// Removes the events of a stream before a version.
pub(crate) async fn truncate(
    database: &Arc<Database>,
    stream: &StreamId,
    before: Version,
) -> Result<()> {
    loop {
        let head = StoredStream::load(database, stream).await?.head;
        head.check(stream, ExpectedVersion::Any)?;
        if head.state == StreamState::Missing {
            return Ok(());
        }
        if hide(database, stream, &head, None, before.minus(1)).await.map_err(driver)? {
            return clean_up(database, stream).await;
        }
    }
}

/// Removes all events of a stream, and leaves it deleted or tombstoned.
pub(crate) async fn close(
    database: &Arc<Database>,
    stream: &StreamId,
    expected: ExpectedVersion,
    state: StreamState,
) -> Result<()> {
    loop {
        let head = StoredStream::load(database, stream).await?.head;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        if hide(database, stream, &head, Some(state), head.version).await.map_err(driver)? {
            return clean_up(database, stream).await;
        }
    }
}

/// Hides the events of a stream up to a version, and sets its state if one is given. Changes
/// nothing and returns false if the stream is no longer as `head` says: then it has to be judged
/// again.
async fn hide(
    database: &Database,
    stream: &StreamId,
    head: &StreamHead,
    state: Option<StreamState>,
    up_to: Version,
) -> sqlx::Result<bool> {
    let code = |state| state_code(state).map(i16::from);
    let statement = || {
        query(&database.sql.remove)
            .bind(database.lock_key)
            .bind(stream.as_str())
            .bind(stream.category_str())
            .bind(code(head.state))
            .bind(head.version.to_i64())
            .bind(state.and_then(code))
            .bind(up_to.to_i64())
    };
    loop {
        match database.connections.row(statement).await {
            Err(error) if is_race(&error) => tokio::task::yield_now().await,
            done => return done?.try_get(0),
        }
    }
}

/// Deletes the events that were hidden, in short transactions, by a task that goes on if the caller
/// is dropped. If it does not come to its end, the next removal from the stream deletes the rest.
async fn clean_up(database: &Arc<Database>, stream: &StreamId) -> Result<()> {
    let (database, stream) = (database.clone(), stream.clone());
    let cleaning = tokio::spawn(async move {
        let statement = || query(&database.sql.clean_up).bind(stream.as_str()).bind(CLEAN_UP);
        loop {
            let row = database.connections.row(statement).await;
            let deleted: i64 = row.and_then(|row| row.try_get(0)).map_err(driver)?;
            if deleted < CLEAN_UP {
                return Ok(());
            }
        }
    });
    cleaning.await.unwrap_or_else(|_| Err(internal("the clean-up was interrupted")))
}
