//! The writer's connection, its transactions, and what it knows of the database between two of
//! them.

use annals_core::{Error, EventType, Payload, Position, Result, StreamId, Version};
use chrono::{DateTime, SubsecRound, Utc};
use rusqlite::{Connection, Statement, params};
use uuid::Uuid;

use crate::{
    busy::Patience,
    database::Database,
    error::{Failure, driver, leaves_commit_unknown},
    heads::Heads,
    queue::{Answer, Job},
    read,
    rows::{self, Head},
};

/// All that lives as long as one connection of the writer.
pub(crate) struct Session<'c> {
    pub(crate) database: &'c Database,
    pub(crate) connection: &'c Connection,
    /// The statements of every transaction, prepared once: to look them up costs a tenth of an
    /// append.
    begin: Statement<'c>,
    commit: Statement<'c>,
    data_version: Statement<'c>,
    insert_event: Statement<'c>,
    pub(crate) heads: Heads,
    /// The last position that was given, as of `seen`.
    pub(crate) last: Position,
    /// The data version for which `heads` and `last` hold; none where they do not.
    seen: Option<i64>,
    /// When the events of this transaction are recorded.
    pub(crate) now: DateTime<Utc>,
    /// Whether this transaction has written events.
    pub(crate) has_appended: bool,
}

/// Why a transaction came to nothing.
pub(crate) struct Aborted {
    pub(crate) error: Error,
    /// Whether the connection can still be used.
    pub(crate) usable: bool,
}

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
            heads: Heads::default(),
            last: Position::START,
            seen: None,
            now,
            has_appended: false,
        })
    }

    /// Makes all the changes in one transaction: the answers, each of which may be a refusal, once
    /// it is committed. Where SQLite fails, nothing of it was written.
    pub(crate) fn transact(
        &mut self,
        jobs: &[Job],
        patience: &mut Patience,
    ) -> Result<Vec<Result<Answer>>, Aborted> {
        let _turn = self.database.write_turn();
        self.has_appended = false;
        let done = match patience.retry(|| Ok(self.begin.execute([])?)) {
            Ok(_) => self.change(jobs),
            Err(failure) => Err(failure.into()),
        };
        done.map_err(|error| self.roll_back(error))
    }

    fn change(&mut self, jobs: &[Job]) -> Result<Vec<Result<Answer>>> {
        self.look_around()?;
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            answers.push(match self.execute(&job.command) {
                Ok(answer) => Ok(answer),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Driver(error)) => return Err(driver(error)),
            });
        }
        self.commit.execute([]).map_err(|error| {
            let unknown = leaves_commit_unknown(&error);
            let error = driver(error);
            if unknown { error.with_outcome_unknown() } else { error }
        })?;
        Ok(answers)
    }

    /// What is known holds unless another connection has committed since. Asked while the lock is
    /// held, so that it stays so.
    fn look_around(&mut self) -> Result<(), Error> {
        let version = self.data_version.query_row([], |row| row.get(0)).map_err(driver)?;
        if self.seen != Some(version) {
            self.heads.clear();
            self.last = read::last_position(self.connection, &self.database.sql)?;
            self.seen = Some(version);
        }
        // Clocks go backwards; what a handle records does not.
        self.now = self.now.max(Utc::now().trunc_subsecs(6));
        Ok(())
    }

    /// Ends a transaction that failed, and forgets what it taught.
    fn roll_back(&mut self, error: Error) -> Aborted {
        self.seen = None;
        // SQLite has ended it already after some errors.
        let usable =
            self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        Aborted { error, usable }
    }

    /// A stream as it is now.
    pub(crate) fn head(&mut self, stream: &StreamId) -> Result<Head, Failure> {
        if let Some(head) = self.heads.get(stream) {
            return Ok(head);
        }
        Head::load(self.connection, &self.database.sql, stream)
    }

    /// Inserts the next event of a stream, data before metadata, at the next position.
    pub(crate) fn insert(
        &mut self,
        stream: i64,
        version: Version,
        recorded_at: DateTime<Utc>,
        id: Uuid,
        event_type: &EventType,
        [data, metadata]: [&Payload; 2],
    ) -> rusqlite::Result<()> {
        self.last = self.last.plus(1);
        self.insert_event.execute(params![
            self.last.to_i64(),
            stream,
            version.to_i64(),
            id.as_bytes().as_slice(),
            event_type.as_str(),
            recorded_at.timestamp_micros(),
            rows::kinds(data, metadata),
            &**data.bytes(),
            &**metadata.bytes(),
        ])?;
        Ok(())
    }

    /// A row for a stream that has none.
    pub(crate) fn insert_stream(&self, stream: &StreamId) -> Result<i64, Failure> {
        self.connection
            .prepare_cached(&self.database.sql.insert_stream)?
            .execute(params![stream.as_str(), stream.category_str()])?;
        Ok(self.connection.last_insert_rowid())
    }
}
