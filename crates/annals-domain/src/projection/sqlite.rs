//! Projections into SQLite.
//!
//! ```
//! # use annals_core::{Position, SubscriberId};
//! use annals_domain::projection::{Sink, sqlite::SqliteSink};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = SqliteSink::in_memory()?;
//! let totals = SubscriberId::new("totals")?;
//! let mut transaction = sink.begin().await?;
//! assert!(sink.advance(&mut transaction, &totals, None, Position::new(1)).await?);
//! transaction.execute_batch("CREATE TABLE totals (events); INSERT INTO totals VALUES (1)")?;
//! sink.commit(transaction).await?;
//! assert_eq!(sink.position(&totals).await?, Some(Position::new(1)));
//! # Ok(()) }
//! ```

use std::{
    ops::{Deref, Range},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use annals_core::{Error, ErrorKind, Position, Result, SubscriberId};
use async_trait::async_trait;
/// The driver, in the version whose types this module has.
pub use rusqlite;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Sink;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS annals_projections (name TEXT PRIMARY KEY, \
    position INTEGER NOT NULL, moved_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) \
    STRICT, WITHOUT ROWID";
const POSITION: &str = "SELECT position FROM annals_projections WHERE name = ?1";
const START: &str = "INSERT INTO annals_projections (name, position) VALUES (?1, ?2) \
    ON CONFLICT (name) DO NOTHING";
const ADVANCE: &str = "UPDATE annals_projections \
    SET position = ?2, moved_at = CURRENT_TIMESTAMP WHERE name = ?1 AND position = ?3";

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What the driver can say in milliseconds: 24 days.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);
/// How long to sleep between two tries, in microseconds. SQLite's own handler sleeps up to 100 ms,
/// and starves next to a projection that pauses for less than that; random, so that two do not try
/// in step.
const NAPS: Range<u64> = 200..1_000;

/// An SQLite database, by one connection: SQLite has one writer at a time, so that transactions of
/// this sink, and of its clones, take turns in the order in which they were begun.
///
/// The checkpoints are rows of the table `annals_projections (name, position, moved_at)`.
///
/// Dropping the future of any call is safe: what it had begun is undone, and a commit comes to its
/// end. Other processes may use the file, and run the same projection.
#[derive(Clone, Debug)]
pub struct SqliteSink {
    connection: Arc<Mutex<Connection>>,
    busy_timeout: Duration,
}

impl SqliteSink {
    /// Opens a file, or creates it, with a write-ahead log, and creates the table. This looks at the
    /// disk, and waits for others who do the same.
    ///
    /// The loss of power may cost the last transactions, rows and checkpoints alike, so that they
    /// are done again. Where that must not be, set `PRAGMA synchronous = FULL` on a connection of
    /// your own, for [`SqliteSink::with_connection`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] and [`ErrorKind::Unavailable`] where the path names no file that
    /// can be; [`ErrorKind::Incompatible`] where it is no database, another table has the name, or
    /// the file is where no write-ahead log can be; [`ErrorKind::Busy`] after 5 seconds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let open = || {
            let message = "the database needs a path";
            let path = std::path::absolute(path)
                .map_err(|e| Error::new(ErrorKind::InvalidInput, message).with_source(e))?;
            // No URI, so that `?` and `%` in a path stand for themselves.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags).map_err(driver)?;
            connection.busy_timeout(Duration::ZERO).map_err(driver)?;
            let mode = |sql| connection.query_row(sql, [], |row| row.get::<_, String>(0));
            let mode = patiently(BUSY_TIMEOUT, || {
                // Asked first: to set it, even to what it is, may need a lock.
                let found = mode("PRAGMA journal_mode")?;
                if found == "wal" { Ok(found) } else { mode("PRAGMA journal_mode = wal") }
            });
            if mode.map_err(driver)? != "wal" {
                let message = "the database cannot use a write-ahead log where it is; choose a \
                               directory on a local disk";
                return Err(Error::new(ErrorKind::Incompatible, message));
            }
            connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(driver)?;
            Ok(connection)
        };
        Self::with_connection(open().map_err(context("open"))?)
    }

    /// A sink in memory, for tests: seen by no other, and gone with it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where there is no memory left.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory();
        Self::with_connection(connection.map_err(|error| context("open")(driver(error)))?)
    }

    /// A sink by a connection that was opened, and set up, elsewhere. It creates the table.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the connection is inside of a transaction, and as for
    /// [`SqliteSink::open`].
    pub fn with_connection(connection: Connection) -> Result<Self> {
        prepare(&connection).map_err(context("open"))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), busy_timeout: BUSY_TIMEOUT })
    }

    /// Sets how long to wait for one's turn, and then for other processes: 5 seconds each, unless
    /// set; at most 24 days. After it the call fails with [`ErrorKind::Busy`].
    #[must_use]
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout.min(MAX_BUSY_TIMEOUT);
        self
    }

    /// The connection, when all who asked before have had it.
    async fn turn(&self) -> Result<OwnedMutexGuard<Connection>> {
        let turn = self.connection.clone().lock_owned();
        tokio::time::timeout(self.busy_timeout, turn).await.map_err(|_| {
            let message = "other transactions of this sink were open for all of the busy timeout; \
                           end them sooner, or raise it with `SqliteSink::with_busy_timeout`";
            Error::new(ErrorKind::Busy, message)
        })
    }
}

/// Creates the table if it is not there, and looks whether it is the right one.
fn prepare(connection: &Connection) -> Result<()> {
    if !connection.is_autocommit() {
        let message = "the connection is inside of a transaction; end it first";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    patiently(BUSY_TIMEOUT, || {
        connection.execute_batch(CREATE)?;
        [POSITION, START, ADVANCE].iter().try_for_each(|sql| connection.prepare(sql).map(drop))
    })
    .map_err(driver)
}

#[async_trait]
impl Sink for SqliteSink {
    type Transaction = SqliteTransaction;

    /// The checkpoint. This waits for its turn, as [`Sink::begin`] does: end a transaction before.
    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let context = context("position");
        let connection = self.turn().await.map_err(&context)?;
        let (name, timeout) = (subscriber.as_str().to_owned(), self.busy_timeout);
        let found = blocking(move || {
            patiently(timeout, || {
                let mut statement = connection.prepare_cached(POSITION)?;
                statement.query_row([&name], |row| row.get(0)).optional()
            })
            .map_err(driver)
        });
        Ok(found.await.map_err(context)?.map(Position::from_i64))
    }

    async fn begin(&self) -> Result<SqliteTransaction> {
        let connection = self.turn().await.map_err(context("begin"))?;
        let timeout = self.busy_timeout;
        let begun = blocking(move || SqliteTransaction::begin(connection, timeout).map_err(driver));
        begun.await.map_err(context("begin"))
    }

    async fn advance(
        &self,
        transaction: &mut SqliteTransaction,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool> {
        transaction.check().map_err(context("advance"))?;
        let (name, to) = (subscriber.as_str(), to.to_i64());
        let moved = match from {
            Some(from) => transaction
                .prepare_cached(ADVANCE)
                .and_then(|mut sql| sql.execute((name, to, from.to_i64()))),
            None => transaction.prepare_cached(START).and_then(|mut sql| sql.execute((name, to))),
        };
        moved.map(|rows| rows == 1).map_err(|error| context("advance")(driver(error)))
    }

    async fn commit(&self, transaction: SqliteTransaction) -> Result<()> {
        blocking(move || transaction.commit()).await.map_err(context("commit"))
    }
}

/// A transaction in which nobody else writes. Dropping it undoes all, and gives the connection back.
///
/// It is used as the connection that it derefs to. Its statements run in place, so keep them few and
/// short; a statement that is kept across an await makes the handler's future one that is not `Send`.
#[derive(Debug)]
pub struct SqliteTransaction {
    connection: OwnedMutexGuard<Connection>,
}

impl SqliteTransaction {
    fn begin(connection: OwnedMutexGuard<Connection>, timeout: Duration) -> rusqlite::Result<Self> {
        connection.busy_timeout(Duration::ZERO)?;
        patiently(timeout, || connection.execute_batch("BEGIN IMMEDIATE"))?;
        let transaction = Self { connection };
        // For a commit without a write-ahead log, which waits for who reads.
        transaction.connection.busy_timeout(timeout)?;
        Ok(transaction)
    }

    /// Refuses to go on where statements would stand by themselves.
    fn check(&self) -> Result<()> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        let message = "the transaction is over already: the handler has ended it, or an error of \
                       SQLite has; leave it to the sink, and return the errors of statements";
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    fn commit(self) -> Result<()> {
        // A handler may have committed.
        self.check().map_err(Error::with_outcome_unknown)?;
        self.connection.execute_batch("COMMIT").map_err(|error| {
            // What was written is not visible, but may be found when the file is recovered.
            let is_unknown = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
            let error = driver(error);
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
        // In place, so that nobody else gets the connection before; it does not wait for the disk
        // where there is a write-ahead log.
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }
}

/// Waits for locks and the disk where no task waits behind it. What was begun comes to its end, also
/// where nobody waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let error = Error::new(ErrorKind::Internal, "the thread has died").with_source(error);
        Err(error.with_outcome_unknown())
    })
}

/// Tries again while others hold a lock.
fn patiently<T>(
    timeout: Duration,
    mut work: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let start = Instant::now();
    loop {
        match work() {
            Err(error) if is_busy(&error) && start.elapsed() < timeout => {
                thread::sleep(Duration::from_micros(fastrand::u64(NAPS)));
            }
            done => return done,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed)
    )
}

fn is_misunderstood(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

/// Adds where an error came from.
fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend("sqlite").with_operation(operation)
}

/// An error of SQLite in a statement of this module, with what can be done about it.
fn driver(error: rusqlite::Error) -> Error {
    let (kind, message) = match error.sqlite_error_code() {
        _ if is_busy(&error) => (
            ErrorKind::Busy,
            "others kept the database locked for all of the busy timeout; try again, or raise it \
             with `SqliteSink::with_busy_timeout`",
        ),
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            ErrorKind::Denied,
            "the database cannot be written to; the file and its directory must be writable",
        ),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Unavailable,
            "the database file cannot be opened; look whether it, and its directory, are there and \
             can be written to",
        ),
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Unavailable, "the disk is full; make room, then try again")
        }
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Unavailable, "the operating system could not read or write the file")
        }
        Some(ErrorCode::OutOfMemory) => (ErrorKind::Unavailable, "out of memory"),
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "the database file is damaged; restore it from a backup, or see `.recover` of the \
             sqlite3 shell",
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Incompatible, "the file is not an SQLite database; choose another path")
        }
        // What SQLite does not understand; with the right table it understands all of it.
        _ if is_misunderstood(&error) => (
            ErrorKind::Incompatible,
            "`annals_projections` is not the table that this version needs, or was removed under \
             way; rename it, or open the sink again",
        ),
        None => (ErrorKind::Corrupt, "the position is not what it should be"),
        _ => (ErrorKind::Internal, "SQLite reported an error"),
    };
    Error::new(kind, message).with_source(error)
}
