//! The writer's connection: its transactions, and what it remembers between them.

use std::num::NonZeroUsize;

use annals_core::{Error, EventType, Payload, Position, StreamId, StreamState, Version, adapter};
use chrono::{DateTime, SubsecRound, Utc};
use lru::LruCache;
use rusqlite::{Connection, Statement, params};
use uuid::Uuid;

use crate::{
    busy::BusyRetry,
    database::Database,
    error::{Failure, corrupt, driver, leaves_commit_unknown},
    rows::{StoredStream, last_position},
};

/// How many streams a session remembers: a few MiB at most, and more than most applications write
/// to at the same time.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// A connection of the writer, for as long as it can be used.
pub(crate) struct Session<'c> {
    pub(crate) database: &'c Database,
    pub(crate) connection: &'c Connection,
    // The statements that every transaction needs. They are prepared once, since looking them up
    // in the connection's cache takes a tenth of the time of an append.
    begin: Statement<'c>,
    commit: Statement<'c>,
    data_version: Statement<'c>,
    insert_event: Statement<'c>,
    /// The streams that were written to last, as of `seen`.
    streams: LruCache<StreamId, StoredStream>,
    /// The greatest position that any event ever had, as of `seen`.
    pub(crate) last: Position,
    /// The data version of the database for which `streams` and `last` are right; `None` if they
    /// are not.
    seen: Option<i64>,
    /// When the events of this transaction are recorded.
    pub(crate) now: DateTime<Utc>,
    /// Whether this transaction has written events.
    pub(crate) has_appended: bool,
}

/// Why a transaction failed.
pub(crate) struct Aborted {
    pub(crate) error: Error,
    /// Whether the connection can still be used.
    pub(crate) usable: bool,
}

/// Transactions.
impl<'c> Session<'c> {
    pub(crate) fn new(
        database: &'c Database,
        connection: &'c Connection,
        now: DateTime<Utc>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            database,
            connection,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            data_version: connection.prepare("PRAGMA data_version")?,
            insert_event: connection.prepare(&database.sql.insert_event)?,
            streams: LruCache::new(REMEMBERED),
            last: Position::START,
            seen: None,
            now,
            has_appended: false,
        })
    }

    /// Makes changes in one transaction. If it fails, nothing was written, unless the error says
    /// that the outcome is unknown.
    pub(crate) fn transact(
        &mut self,
        busy: &mut BusyRetry,
        changes: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> Result<(), Aborted> {
        let database = self.database;
        let _turn = database.write_turn();
        self.has_appended = false;
        let done = match busy.retry(|| Ok(self.begin.execute([])?)) {
            Ok(_) => self.change_and_commit(changes),
            Err(failure) => Err(failure.into()),
        };
        done.map_err(|error| self.roll_back(error))
    }

    fn change_and_commit(
        &mut self,
        changes: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        self.refresh()?;
        changes(self).map_err(driver)?;
        self.database.check_files()?;
        match self.commit.execute([]) {
            Ok(_) => Ok(()),
            Err(error) if leaves_commit_unknown(&error) => {
                Err(driver(error).with_outcome_unknown())
            }
            Err(error) => Err(driver(error)),
        }
    }

    /// Forgets what the session remembers if another connection has committed since. This is asked
    /// while the write lock is held, so the answer stays right until the transaction ends.
    fn refresh(&mut self) -> Result<(), Error> {
        let version = self.data_version.query_row([], |row| row.get(0)).map_err(driver)?;
        if self.seen != Some(version) {
            self.streams.clear();
            self.last = last_position(self.connection, &self.database.sql)?;
            self.seen = Some(version);
        }
        // A clock can go backwards, but the times that this handle records do not.
        self.now = self.now.max(Utc::now().trunc_subsecs(6));
        Ok(())
    }

    /// Ends a transaction that failed, and forgets what the session learnt in it.
    fn roll_back(&mut self, error: Error) -> Aborted {
        self.seen = None;
        // After some errors SQLite has already rolled back by itself.
        let usable =
            self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        Aborted { error, usable }
    }
}

/// Streams and events, inside a transaction.
impl Session<'_> {
    /// A stream as it is stored now.
    pub(crate) fn stream(&mut self, stream: &StreamId) -> Result<StoredStream, Failure> {
        if let Some(stored) = self.streams.get(stream) {
            return Ok(*stored);
        }
        StoredStream::load(self.connection, &self.database.sql, stream)
    }

    /// Remembers a stream as it is stored now.
    pub(crate) fn remember(&mut self, stream: &StreamId, stored: StoredStream) {
        self.streams.put(stream.clone(), stored);
    }

    /// Forgets a stream, because it is about to change.
    pub(crate) fn forget(&mut self, stream: &StreamId) {
        self.streams.pop(stream);
    }

    /// The row of a stream that is about to get an event. Creates the row of a new stream, and makes
    /// a deleted stream live again.
    pub(crate) fn live_row(
        &self,
        stream: &StreamId,
        stored: &StoredStream,
    ) -> Result<i64, Failure> {
        match (stored.row, stored.head.state) {
            (Some(row), StreamState::Live) => Ok(row),
            (Some(row), StreamState::Deleted) => {
                let revive = &self.database.sql.revive_stream;
                self.connection.prepare_cached(revive)?.execute([row])?;
                Ok(row)
            }
            (None, _) => self.insert_stream(stream),
            (Some(_), _) => Err(corrupt("a tombstoned stream is about to get an event").into()),
        }
    }

    /// Inserts the row of a stream that has none.
    pub(crate) fn insert_stream(&self, stream: &StreamId) -> Result<i64, Failure> {
        self.connection
            .prepare_cached(&self.database.sql.insert_stream)?
            .execute(params![stream.as_str(), stream.category_str()])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Inserts an event at the next position. The payloads are data and metadata.
    pub(crate) fn insert_event(
        &mut self,
        row: i64,
        version: Version,
        recorded_at: DateTime<Utc>,
        (id, event_type): (Uuid, &EventType),
        (data, metadata): (&Payload, &Payload),
    ) -> rusqlite::Result<()> {
        self.last = self.last.plus(1);
        self.insert_event.execute(params![
            self.last.to_i64(),
            row,
            version.to_i64(),
            id.as_bytes().as_slice(),
            event_type.as_str(),
            recorded_at.timestamp_micros(),
            adapter::content_kinds(data, metadata),
            &**data.bytes(),
            &**metadata.bytes(),
        ])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use annals_core::adapter::StreamHead;

    use super::*;
    use crate::config::SqliteConfig;

    #[test]
    fn remembers_a_bounded_number_of_streams_and_keeps_those_in_use() {
        let (database, connection) = Database::open(SqliteConfig::in_memory()).unwrap();
        let connection = connection.unwrap();
        let mut session = Session::new(&database, &connection, DateTime::UNIX_EPOCH).unwrap();
        let name = |n: usize| StreamId::new(format!("s-{n}")).unwrap();
        let stored =
            |row| StoredStream { row: Some(row), head: StreamHead::MISSING, last_id: None };
        let most = REMEMBERED.get();
        for n in 0..3 * most {
            session.remember(&name(0), stored(0));
            session.remember(&name(n), stored(n as i64));
            assert!(session.streams.len() <= most);
        }
        assert_eq!(session.stream(&name(0)).unwrap().row, Some(0));
        assert!(session.stream(&name(1)).unwrap().row.is_none());
        session.forget(&name(0));
        assert!(session.stream(&name(0)).unwrap().row.is_none());
        session.refresh().unwrap();
        assert!(session.stream(&name(3 * most - 1)).unwrap().row.is_none());
    }
}
