//! Projections into SQLite: rows and checkpoint in one transaction.

mod transaction;

use std::{path::Path, sync::Arc, time::Duration};

use annals_core::{Error, ErrorKind, Position, Result, Sink, SubscriberId};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use self::transaction::SqliteTransaction;
use crate::{
    busy::BusyRetry,
    database,
    error::{Failure, context, driver, is_busy},
    runtime::blocking,
};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS annals_projections (name TEXT PRIMARY KEY, \
    position INTEGER NOT NULL, moved_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) \
    STRICT, WITHOUT ROWID";
const POSITION: &str = "SELECT position FROM annals_projections WHERE name = ?1";
const START: &str = "INSERT INTO annals_projections (name, position) VALUES (?1, ?2) \
    ON CONFLICT (name) DO NOTHING";
const ADVANCE: &str = "UPDATE annals_projections \
    SET position = ?2, moved_at = CURRENT_TIMESTAMP WHERE name = ?1 AND position = ?3";

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest timeout that SQLite takes, in milliseconds: 24 days.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// An SQLite database into which projections write, over one connection. SQLite has one writer at a
/// time, so transactions of this sink and its clones take turns, in the order in which they begin.
///
/// The checkpoints are rows of the table `annals_projections (name, position, moved_at)`.
///
/// It is safe to drop the future of any call: a transaction that it had begun is rolled back, and a
/// commit that it had begun is finished. Other processes may use the file, and may run the same
/// projection.
///
/// ```
/// use annals_core::{Position, Sink, SubscriberId};
/// use annals_sqlite::SqliteSink;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sink = SqliteSink::in_memory()?; // or `open("totals.db")`
/// let totals = SubscriberId::new("totals")?;
/// let mut transaction = sink.begin().await?;
/// assert!(sink.advance(&mut transaction, &totals, None, Position::new(1)).await?);
/// transaction.execute_batch("CREATE TABLE totals (events); INSERT INTO totals VALUES (1)")?;
/// sink.commit(transaction).await?;
/// assert_eq!(sink.position(&totals).await?, Some(Position::new(1)));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteSink {
    connection: Arc<Mutex<Connection>>,
    busy_timeout: Duration,
}

impl SqliteSink {
    /// Opens the file, or creates it, in WAL mode, and creates the table of checkpoints. This call
    /// blocks: it reads the disk, and waits while other processes hold a lock.
    ///
    /// A power failure may undo the last transactions, rows and checkpoints alike, and the
    /// projection then applies those events again. To rule that out, set `PRAGMA synchronous =
    /// FULL` on a connection of your own and use [`SqliteSink::with_connection`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] and [`ErrorKind::Unavailable`] for a path at which no file can be
    /// opened; [`ErrorKind::Incompatible`] if the file is not an SQLite database, if another table
    /// is called `annals_projections`, or if the file is where SQLite cannot use WAL mode;
    /// [`ErrorKind::Busy`] if others hold the lock for 5 seconds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_connection(open(path.as_ref()).map_err(context("open"))?)
    }

    /// A sink in memory, for tests: nobody else can open it, and it is gone when it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if there is no memory left.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory();
        Self::with_connection(connection.map_err(|error| context("open")(driver(error)))?)
    }

    /// A sink over a connection that the application has opened and configured. Creates the table of
    /// checkpoints.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the connection is inside a transaction, and those of
    /// [`SqliteSink::open`].
    pub fn with_connection(connection: Connection) -> Result<Self> {
        prepare(&connection).map_err(context("open"))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), busy_timeout: BUSY_TIMEOUT })
    }

    /// Sets how long a call waits for its turn on the connection, and then for locks of other
    /// processes, before it fails with [`ErrorKind::Busy`]: 5 seconds each by default, 24 days at
    /// most.
    #[must_use]
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout.min(MAX_BUSY_TIMEOUT);
        self
    }

    /// Waits until all earlier callers have given the connection back.
    async fn turn(&self) -> Result<OwnedMutexGuard<Connection>> {
        let turn = self.connection.clone().lock_owned();
        tokio::time::timeout(self.busy_timeout, turn).await.map_err(|_| {
            let message = "other transactions of this sink were open for all of the busy timeout; \
                           end them sooner, or raise the timeout with \
                           `SqliteSink::with_busy_timeout`";
            Error::new(ErrorKind::Busy, message)
        })
    }
}

impl Sink for SqliteSink {
    type Transaction = SqliteTransaction;

    fn keeps_names(&self) -> bool {
        true
    }

    /// Reads the checkpoint. Like [`Sink::begin`], this waits until no other transaction of this
    /// sink is open: end a transaction of your own first.
    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let context = context("position");
        let connection = self.turn().await.map_err(&context)?;
        let (name, timeout) = (subscriber.as_str().to_owned(), self.busy_timeout);
        let found = blocking(move || {
            while_busy(timeout, || {
                let mut statement = connection.prepare_cached(POSITION)?;
                statement.query_row([&name], |row| row.get(0)).optional()
            })
        });
        Ok(found.await.map_err(context)?.map(Position::from_i64))
    }

    async fn begin(&self) -> Result<SqliteTransaction> {
        let connection = self.turn().await.map_err(context("begin"))?;
        let timeout = self.busy_timeout;
        let begun = blocking(move || SqliteTransaction::begin(connection, timeout));
        begun.await.map_err(context("begin"))
    }

    async fn advance(
        &self,
        transaction: &mut SqliteTransaction,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool> {
        transaction.check_open().map_err(context("advance"))?;
        let (name, to) = (subscriber.as_str(), to.to_i64());
        let moved = match from {
            Some(from) => transaction
                .prepare_cached(ADVANCE)
                .and_then(|mut sql| sql.execute((name, to, from.to_i64()))),
            None => transaction.prepare_cached(START).and_then(|mut sql| sql.execute((name, to))),
        };
        moved.map(|rows| rows == 1).map_err(|error| context("advance")(statement_failed(error)))
    }

    async fn commit(&self, transaction: SqliteTransaction) -> Result<()> {
        let committed = blocking(move || Ok(transaction.commit())).await;
        committed
            .map_err(Error::with_outcome_unknown)
            .and_then(|committed| committed)
            .map_err(context("commit"))
    }
}

fn open(path: &Path) -> Result<Connection> {
    let path = std::path::absolute(path).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "the database needs a path").with_source(error)
    })?;
    // Without the flag for URIs, so that `?` and `%` in a path stand for themselves.
    let connection = database::connect(path, OpenFlags::empty(), true).map_err(driver)?;
    let mode = |sql| connection.query_row(sql, [], |row| row.get::<_, String>(0));
    let mode = while_busy(BUSY_TIMEOUT, || {
        // Read the mode before setting it: SQLite may take a lock to set it, even to the value that
        // it already has.
        let found = mode("PRAGMA journal_mode")?;
        if found == "wal" { Ok(found) } else { mode("PRAGMA journal_mode = wal") }
    })?;
    if mode != "wal" {
        let message = "SQLite cannot use a write-ahead log at this path; choose a directory on a \
                       local disk";
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(driver)?;
    Ok(connection)
}

/// Creates the table if it is missing, and checks that an existing one has the right columns.
fn prepare(connection: &Connection) -> Result<()> {
    if !connection.is_autocommit() {
        let message = "the connection is inside a transaction; end the transaction first";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    while_busy(BUSY_TIMEOUT, || {
        connection.execute_batch(CREATE)?;
        [POSITION, START, ADVANCE].iter().try_for_each(|sql| connection.prepare(sql).map(drop))
    })
}

/// Repeats the work while others hold a lock, until the timeout is over.
fn while_busy<T>(timeout: Duration, mut work: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
    let done = BusyRetry::new(timeout).retry(|| work().map_err(Failure::Driver));
    done.map_err(|failure| match failure {
        Failure::Driver(error) => statement_failed(error),
        Failure::Refused(error) => error,
    })
}

/// The error of one of the sink's own statements.
fn statement_failed(error: rusqlite::Error) -> Error {
    // With the right table, SQLite understands all of the sink's statements.
    let is_misunderstood = matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(ErrorCode::Unknown);
    let (kind, message) = if is_busy(&error) {
        (
            ErrorKind::Busy,
            "others kept the database locked for all of the busy timeout; try again, or raise the \
             timeout with `SqliteSink::with_busy_timeout`",
        )
    } else if is_misunderstood {
        (
            ErrorKind::Incompatible,
            "`annals_projections` is not the table that this version of annals needs, or it was \
             removed while the sink was open; rename the other table, or open the sink again",
        )
    } else {
        return driver(error);
    };
    Error::new(kind, message).with_source(error)
}
