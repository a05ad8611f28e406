//! The transaction of a sink.

use std::{ops::Deref, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::OwnedMutexGuard;

use super::{statement_failed, while_busy};
use crate::error::{driver, leaves_commit_unknown};

/// A transaction that holds SQLite's write lock, so that nobody else writes. Dropping it rolls it
/// back and returns the connection to the sink.
///
/// It dereferences to a [`Connection`], with which a handler writes. Statements run on the thread of
/// the task, so keep them few and short. A handler that keeps a prepared statement across an `.await`
/// has a future that is not `Send`.
#[derive(Debug)]
pub struct SqliteTransaction {
    connection: OwnedMutexGuard<Connection>,
}

impl SqliteTransaction {
    pub(super) fn begin(
        connection: OwnedMutexGuard<Connection>,
        timeout: Duration,
    ) -> Result<Self> {
        connection.busy_timeout(Duration::ZERO).map_err(driver)?;
        while_busy(timeout, || connection.execute_batch("BEGIN IMMEDIATE"))?;
        let transaction = Self { connection };
        // Without a write-ahead log, COMMIT waits for readers: let SQLite wait that long.
        transaction.connection.busy_timeout(timeout).map_err(driver)?;
        Ok(transaction)
    }

    /// Fails if the transaction has ended: a further statement would be committed on its own.
    pub(super) fn check_open(&self) -> Result<()> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        let message = "the transaction has ended already: the handler ended it, or an error of \
                       SQLite did; leave COMMIT and ROLLBACK to the sink, and return the errors of \
                       statements";
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    pub(super) fn commit(self) -> Result<()> {
        // The handler may have ended the transaction by a COMMIT of its own.
        self.check_open().map_err(Error::with_outcome_unknown)?;
        self.connection.execute_batch("COMMIT").map_err(|error| {
            let is_unknown = leaves_commit_unknown(&error);
            let error = statement_failed(error);
            if is_unknown { error.with_outcome_unknown() } else { error }
        })
    }
}

impl Deref for SqliteTransaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        // On this thread, so that the connection is clean before anybody else gets it. With a
        // write-ahead log a rollback does not wait for the disk.
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }
}
