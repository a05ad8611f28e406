//! Streams as a whole: what is known of them, their list, and the removal of events.

use std::sync::Arc;

use annals_core::{
    ExpectedVersion, Position, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::{StreamHead, state_code},
};
use annals_postgres_shared::error::is_race;
use sqlx::{Row, postgres::PgRow};

use crate::{
    batch::head,
    database::Database,
    error::{corrupt, driver},
    sql::query,
};

/// A stream as it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredStream {
    head: StreamHead,
    first: Option<Version>,
}

impl StoredStream {
    pub(crate) async fn load(database: &Database, stream: &StreamId) -> Result<Self> {
        let statement = || query(&database.sql.head).bind(stream.as_str());
        let rows = database.connections.rows(statement).await.map_err(driver)?;
        match rows.first() {
            Some(row) => Self::decode(row, 0),
            None => Ok(Self { head: StreamHead::MISSING, first: None }),
        }
    }

    /// Decodes state, version, version at deletion and first version, which begin at the column `at`.
    fn decode(row: &PgRow, at: usize) -> Result<Self> {
        let number = |column| row.try_get::<Option<i64>, _>(at + column).map_err(driver);
        let (version, deleted_at) = (number(1)?.unwrap_or(0), number(2)?.unwrap_or(0));
        let head = head(row.try_get(at).map_err(driver)?, version, deleted_at)?;
        Ok(Self { head, first: number(3)?.map(Version::from_i64) })
    }

    pub(crate) fn info(&self) -> StreamInfo {
        self.head.info(self.first)
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
        None => Ok(Version::NONE),
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
        if remove(database, stream, &head, None, before.minus(1)).await.map_err(driver)? {
            return Ok(());
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
    database.check_stream(stream)?;
    loop {
        let head = StoredStream::load(database, stream).await?.head;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        if remove(database, stream, &head, Some(state), head.version).await.map_err(driver)? {
            return Ok(());
        }
    }
}

/// Removes the events of a stream up to a version, and sets its state if one is given. Changes
/// nothing and returns false if the stream is no longer as `head` says: then it has to be judged
/// again.
async fn remove(
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
