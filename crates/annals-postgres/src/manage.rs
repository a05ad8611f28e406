//! Streams as a whole: their rows, and the removal of events in two steps.

use std::sync::Arc;

use annals_core::{
    Position, Result, StreamId, StreamState, Version,
    adapter::{StreamHead, state_code},
};
use annals_postgres_shared::streams::{self, StoredStream, Streams};
use sqlx::{Row, postgres::PgRow};

use crate::{
    append::decode_state,
    database::Database,
    error::{driver, internal},
    sql::query,
};

/// How many events one statement deletes, after they were hidden.
const CLEAN_UP: i64 = 10_000;

impl Streams for Database {
    fn head(&self) -> &Arc<str> {
        &self.sql.head
    }

    fn list(&self) -> &Arc<str> {
        &self.sql.list_streams
    }

    fn version_at(&self) -> &Arc<str> {
        &self.sql.version_at
    }

    /// The columns are state, version, `removed_to` and `deleted_at`.
    fn decode(row: &PgRow, at: usize) -> Result<StoredStream> {
        let number = |column| row.try_get(at + column).map(Version::from_i64).map_err(driver);
        let state = decode_state(row.try_get(at).map_err(driver)?)?;
        let head = StreamHead { state, version: number(1)?, deleted_at: number(3)? };
        let first = number(2)?.plus(1);
        Ok(StoredStream { head, first: (first <= head.version).then_some(first) })
    }

    async fn hide(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        state: Option<StreamState>,
        up_to: Version,
    ) -> sqlx::Result<bool> {
        let code = |state| state_code(state).map(i16::from);
        let statement = || {
            query(&self.sql.remove)
                .bind(self.lock_key)
                .bind(stream.as_str())
                .bind(stream.category_str())
                .bind(code(head.state))
                .bind(head.version.to_i64())
                .bind(state.and_then(code))
                .bind(up_to.to_i64())
        };
        self.connections.row(statement).await?.try_get(0)
    }

    /// In short transactions, by a task that goes on if the caller is dropped. If it does not come to
    /// its end, the next removal from the stream deletes the rest.
    async fn clean_up(self: &Arc<Self>, stream: &StreamId) -> Result<()> {
        let (database, stream) = (self.clone(), stream.clone());
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
}

/// The version that a stream had at a position.
pub(crate) async fn version_at(
    database: &Database,
    stream: &StreamId,
    position: Position,
) -> Result<Version> {
    if let Some(version) = streams::version_at(database, stream, position).await? {
        return Ok(version);
    }
    // All events up to there were removed, if there were any.
    let StoredStream { head, first } = streams::load(database, stream).await?;
    Ok(first.map_or(head.version, |first| first.minus(1)))
}
