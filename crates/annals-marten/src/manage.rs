//! Streams as a whole: their rows, and the removal of events.

use std::sync::Arc;

use annals_core::{
    Position, Result, StreamId, StreamState, Version,
    adapter::{StreamHead, state_code},
};
use annals_postgres_shared::streams::{self, StoredStream, Streams};
use sqlx::{Row, postgres::PgRow};

use crate::{batch::head, database::Database, error::driver, sql::query};

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

    /// The columns are state, version, version at deletion and first version.
    fn decode(row: &PgRow, at: usize) -> Result<StoredStream> {
        let number = |column| row.try_get::<Option<i64>, _>(at + column).map_err(driver);
        let (version, deleted_at) = (number(1)?.unwrap_or(0), number(2)?.unwrap_or(0));
        let head = head(row.try_get(at).map_err(driver)?, version, deleted_at)?;
        Ok(StoredStream { head, first: number(3)?.map(Version::from_i64) })
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
                .bind(code(head.state))
                .bind(head.version.to_i64())
                .bind(state.and_then(code))
                .bind(up_to.to_i64())
        };
        self.connections.row(statement).await?.try_get(0)
    }

    /// Nothing is left to do: Marten keeps archived events.
    async fn clean_up(self: &Arc<Self>, _stream: &StreamId) -> Result<()> {
        Ok(())
    }
}

/// The version that a stream had at a position.
pub(crate) async fn version_at(
    database: &Database,
    stream: &StreamId,
    position: Position,
) -> Result<Version> {
    Ok(streams::version_at(database, stream, position).await?.unwrap_or(Version::NONE))
}
