//! Projections into PostgreSQL.
//!
//! ```no_run
//! # use annals_core::{Position, SubscriberId};
//! use annals_domain::projection::{
//!     Sink,
//!     postgres::{PostgresSink, sqlx},
//! };
//! # async fn run(pool: sqlx::PgPool, event: Position) -> Result<(), Box<dyn std::error::Error>> {
//! let sink = PostgresSink::open(pool).await?;
//! let totals = SubscriberId::new("totals")?;
//! let at = sink.position(&totals).await?;
//! let mut transaction = sink.begin().await?;
//! if sink.advance(&mut transaction, &totals, at, event).await? {
//!     sqlx::query("UPDATE totals SET events = events + 1").execute(&mut *transaction).await?;
//!     sink.commit(transaction).await?;
//! }
//! # Ok(()) }
//! ```

use std::{io, sync::Arc};

use annals_core::{Error, ErrorKind, Position, Result, SubscriberId};
use async_trait::async_trait;
/// The driver, in the version whose types this module has.
pub use sqlx;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::Sink;

const TABLE: &str = "annals_projections";
/// How often to look again for a table that others create at the same time. They are done, or have
/// failed, by the time that PostgreSQL says so; only one who drops it again makes for more.
const LOOKS: usize = 5;

/// A PostgreSQL database, by a pool that the application has.
///
/// The checkpoints are rows of one table, which is shared by all projections:
/// `annals_projections (name, position, moved_at)`. Each projection locks its own row, so that they
/// do not wait for each other. To use the table takes the privileges SELECT, INSERT and UPDATE; to
/// create it, CREATE on its schema.
///
/// Dropping the future of any call is safe. Several processes may run the same projection: one of
/// them moves the checkpoint, the others wait, and learn that it was moved.
#[derive(Clone, Debug)]
pub struct PostgresSink {
    pool: PgPool,
    sql: Arc<Sql>,
}

/// Every statement, with the table put in. Values are always bound.
#[derive(Debug)]
struct Sql {
    look: Arc<str>,
    create: Arc<str>,
    position: Arc<str>,
    start: Arc<str>,
    advance: Arc<str>,
}

impl Sql {
    /// The name was checked, and is quoted.
    fn new(table: &str) -> Self {
        let text = |text: &str| text.replace("{table}", table).into();
        Self {
            look: text("SELECT name, position, moved_at FROM {table} LIMIT 0"),
            create: text(
                "CREATE TABLE IF NOT EXISTS {table} (name text PRIMARY KEY, \
                 position bigint NOT NULL, moved_at timestamptz NOT NULL DEFAULT now())",
            ),
            position: text("SELECT position FROM {table} WHERE name = $1"),
            start: text(
                "INSERT INTO {table} (name, position) VALUES ($1, $2) \
                 ON CONFLICT (name) DO NOTHING",
            ),
            advance: text(
                "UPDATE {table} SET position = $2, moved_at = now() \
                 WHERE name = $1 AND position = $3",
            ),
        }
    }
}

impl PostgresSink {
    /// A sink whose table is there, in the first schema of the connections' `search_path`.
    ///
    /// # Errors
    /// As for [`PostgresSink::prepare`].
    pub async fn open(pool: PgPool) -> Result<Self> {
        let sink = Self::new(pool);
        sink.prepare().await?;
        Ok(sink)
    }

    /// A sink whose table was created before, or will be by [`PostgresSink::prepare`].
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, sql: Arc::new(Sql::new(&format!("\"{TABLE}\""))) }
    }

    /// Sets the table: `projections`, or `reports.projections` for one in a schema of that name,
    /// which must be there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for anything but small letters, digits and `_`.
    pub fn with_table(mut self, table: &str) -> Result<Self> {
        self.sql = Arc::new(Sql::new(&quoted(table)?));
        Ok(self)
    }

    /// Creates the table if it is not there. Several processes may do so at once.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] where there is no such schema, or another table of that name;
    /// [`ErrorKind::Denied`] where the role lacks a privilege.
    pub async fn prepare(&self) -> Result<()> {
        let context = context("prepare");
        let mut look = self.look().await;
        for _ in 0..LOOKS {
            // Looked for first, since `IF NOT EXISTS` wants to be allowed to create all the same.
            match &look {
                Err(error) if code(error) == Some("42P01") => {}
                _ => break,
            }
            let created = sqlx::query(AssertSqlSafe(self.sql.create.clone())).execute(&self.pool);
            match created.await {
                // `IF NOT EXISTS` does not see what others have not committed yet.
                Err(error) if !matches!(code(&error), Some("23505" | "42P07" | "42710")) => {
                    return Err(context(driver(error)));
                }
                _ => look = self.look().await,
            }
        }
        look.map_err(|error| context(driver(error)))
    }

    async fn look(&self) -> sqlx::Result<()> {
        sqlx::query(AssertSqlSafe(self.sql.look.clone())).execute(&self.pool).await.map(drop)
    }
}

#[async_trait]
impl Sink for PostgresSink {
    type Transaction = Transaction<'static, Postgres>;

    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let found: Option<i64> = sqlx::query_scalar(AssertSqlSafe(self.sql.position.clone()))
            .bind(subscriber.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| context("position")(driver(error)))?;
        Ok(found.map(Position::from_i64))
    }

    async fn begin(&self) -> Result<Self::Transaction> {
        let pool = self.pool.clone();
        // In a task, since a `BEGIN` must not be dropped half-way: sqlx 0.9.0 would give the
        // connection back inside of a transaction, in which the next one's writes are lost
        // (https://github.com/transact-rs/sqlx/issues/4393).
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        let begun = begun.map_err(|error| {
            Error::new(ErrorKind::Internal, "the task that begins it has died").with_source(error)
        });
        begun.and_then(|begun| begun.map_err(driver)).map_err(context("begin"))
    }

    async fn advance(
        &self,
        transaction: &mut Self::Transaction,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool> {
        let text = if from.is_some() { &self.sql.advance } else { &self.sql.start };
        let mut query =
            sqlx::query(AssertSqlSafe(text.clone())).bind(subscriber.as_str()).bind(to.to_i64());
        if let Some(from) = from {
            query = query.bind(from.to_i64());
        }
        match query.execute(&mut **transaction).await {
            Ok(moved) => Ok(moved.rows_affected() == 1),
            // How a transaction that is stricter than READ COMMITTED learns that it was moved, and
            // one that others wait for that they go first.
            Err(error) if matches!(code(&error), Some("40001" | "40P01")) => Ok(false),
            Err(error) => Err(context("advance")(driver(error))),
        }
    }

    async fn commit(&self, mut transaction: Self::Transaction) -> Result<()> {
        let context = context("commit");
        // After a statement that failed, PostgreSQL answers COMMIT by undoing all, and the driver
        // calls it a success. Any other statement is refused then.
        let sound = sqlx::query("SELECT 1").execute(&mut *transaction).await;
        sound.map_err(|error| context(driver(error)))?;
        let done = transaction.commit().await;
        done.map_err(|error| context(driver(error)).with_outcome_unknown())
    }
}

/// The name of a table as it stands in SQL text, where nothing but plain names passes.
fn quoted(table: &str) -> Result<String> {
    /// What PostgreSQL keeps of a name.
    const MAX: usize = 63;
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let named = |name: &str| {
        name.chars().all(plain)
            && name.starts_with(|c: char| !c.is_ascii_digit())
            && name.len() <= MAX
            // The server's own, or one that ends with the connection.
            && !name.starts_with("pg_")
    };
    let parts: Vec<_> = table.split('.').collect();
    if parts.len() <= 2 && parts.iter().all(|part| named(part)) {
        return Ok(format!("\"{}\"", parts.join("\".\"")));
    }
    let message = format!(
        "the table is {table:?}; use a name, or those of a schema and a table with a dot between \
         them, each a small letter or `_`, then at most {} small letters, digits and `_`, and \
         nothing that begins with `pg_`",
        MAX - 1
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// Adds where an error came from.
fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend("postgres").with_operation(operation)
}

/// The code of an error that the server reported.
fn code(error: &sqlx::Error) -> Option<&str> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.code())
}

/// An error of the driver, with what can be done about it.
fn driver(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(_) => database(code(&error).unwrap_or_default()),
        // What rustls refuses comes as the second.
        sqlx::Error::Tls(_) => no_tls(),
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => no_tls(),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
            (ErrorKind::Unavailable, "the server cannot be reached, or the connection was lost")
        }
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Busy,
            "no connection of the pool became free in time; try again, or allow more connections",
        ),
        sqlx::Error::PoolClosed => (ErrorKind::Unavailable, "the pool was closed"),
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            (ErrorKind::Corrupt, "the position is not what it should be")
        }
        _ => (ErrorKind::Internal, "the driver reported an error"),
    };
    Error::new(kind, message).with_source(error)
}

fn no_tls() -> (ErrorKind, &'static str) {
    let message = "no TLS connection could be made; look at `sslmode` and `sslrootcert`";
    (ErrorKind::Unavailable, message)
}

/// The codes are those of the appendix "PostgreSQL Error Codes" of PostgreSQL's documentation.
fn database(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "25006" => (
            ErrorKind::Denied,
            "the server takes no writes: it is a standby, or the session is read-only; connect to \
             the primary",
        ),
        "25P02" => (
            ErrorKind::InvalidInput,
            "a statement of the transaction had failed, which undoes all of it; let the handler \
             return the errors of its statements, or use savepoints",
        ),
        "26000" | "42P05" => (
            ErrorKind::Incompatible,
            "a pooler between here and the server gives each transaction another connection, where \
             no prepared statement lasts; let it pool sessions, or go past it",
        ),
        "3F000" => (ErrorKind::Incompatible, "the schema of the table does not exist; create it"),
        "42P01" => (
            ErrorKind::Incompatible,
            "the table of the projections does not exist; call `PostgresSink::prepare`, or open \
             the sink with `PostgresSink::open`",
        ),
        "42703" | "42809" | "42P10" | "42804" | "42883" | "42P07" | "42710" | "23502" => (
            ErrorKind::Incompatible,
            "what has the name of the table is not a table of projections; choose another with \
             `PostgresSink::with_table`",
        ),
        "42501" => (
            ErrorKind::Denied,
            "the role lacks a privilege: it needs SELECT, INSERT and UPDATE on the table, and to \
             create it CREATE on its schema",
        ),
        "40001" | "40P01" | "55P03" => {
            (ErrorKind::Busy, "others wrote at the same time; try again")
        }
        "57014" => (
            ErrorKind::Busy,
            "the server cancelled the statement, as it took longer than `statement_timeout`; try \
             again, or raise it",
        ),
        "53100" => (ErrorKind::Unavailable, "the disk of the server is full"),
        "3D000" => (ErrorKind::Incompatible, "the database does not exist; create it"),
        // The session ends with these.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => {
            (ErrorKind::Unavailable, "the server shuts down, starts, or has closed the connection")
        }
        _ => match code.get(..2) {
            Some("08") => (ErrorKind::Unavailable, "the connection was lost"),
            Some("28") => (ErrorKind::Denied, "the server refused the credentials"),
            Some("53") => (ErrorKind::Busy, "the server lacks connections, or memory; try again"),
            Some("XX") => (ErrorKind::Corrupt, "PostgreSQL found its own data damaged"),
            _ => (ErrorKind::Internal, "PostgreSQL reported an error"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn only_plain_names_become_part_of_a_text() {
        for (table, text) in [("a", "\"a\""), ("_a1.b_2", "\"_a1\".\"b_2\"")] {
            assert_eq!(quoted(table).unwrap(), text);
        }
        let long = "a".repeat(64);
        for table in
            ["", ".", "a.", ".a", "a.b.c", "A", "a\"", "a b", "1a", "pg_temp.a", "ä", &long]
        {
            assert!(quoted(table).is_err(), "{table}");
        }
    }
}
