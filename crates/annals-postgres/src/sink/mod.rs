//! Projections into PostgreSQL: rows and checkpoint in one transaction.

mod table;

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Position, Result, Sink, SubscriberId};
use sqlx::{PgPool, Postgres, Transaction};

use self::table::Sql;
use crate::{
    error::{code, context, driver},
    sql::query,
};

/// How often to look for the table again when others create it at the same time. When PostgreSQL
/// reports their table, they have committed or rolled back; only a process that drops the table in
/// between makes another round necessary.
const LOOKS: usize = 5;

/// A PostgreSQL database into which projections write, over a pool of the application: its own, or
/// that of [`PostgresStore::pool`](crate::PostgresStore::pool).
///
/// The checkpoints are rows of one table for all projections, `annals_projections (name, position,
/// moved_at)`. Each projection locks its own row, so that projections do not wait for each other.
/// The role needs the privileges SELECT, INSERT and UPDATE on the table, and CREATE on its schema to
/// create it.
///
/// It is safe to drop the future of any call. Several processes may run the same projection: one of
/// them moves the checkpoint, and the others wait until it has ended, then find the checkpoint moved.
///
/// ```no_run
/// use annals_core::{Position, Sink, SubscriberId};
/// use annals_postgres::{PostgresSink, sqlx};
/// # async fn run(pool: sqlx::PgPool, event: Position) -> Result<(), Box<dyn std::error::Error>> {
/// let sink = PostgresSink::open(pool).await?;
/// let totals = SubscriberId::new("totals")?;
/// let checkpoint = sink.position(&totals).await?;
/// let mut transaction = sink.begin().await?;
/// if sink.advance(&mut transaction, &totals, checkpoint, event).await? {
///     sqlx::query("UPDATE totals SET events = events + 1").execute(&mut *transaction).await?;
///     sink.commit(transaction).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresSink {
    pool: PgPool,
    sql: Arc<Sql>,
}

impl PostgresSink {
    /// A sink whose table is in the first schema of the connections' `search_path`. Creates the
    /// table if it is missing.
    ///
    /// # Errors
    /// Those of [`PostgresSink::prepare`].
    pub async fn open(pool: PgPool) -> Result<Self> {
        let sink = Self::new(pool);
        sink.prepare().await?;
        Ok(sink)
    }

    /// A sink whose table exists already, or will be created by [`PostgresSink::prepare`].
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, sql: Arc::new(Sql::default()) }
    }

    /// Sets the name of the table: `projections`, or `reports.projections` for a table in the schema
    /// `reports`, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name with other characters than small letters, digits and
    /// `_`.
    pub fn with_table(mut self, table: &str) -> Result<Self> {
        self.sql = Arc::new(Sql::for_table(table)?);
        Ok(self)
    }

    /// Creates the table if it is missing. Several processes may do so at once.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] if the schema does not exist, or if another table has the name;
    /// [`ErrorKind::Denied`] if the role lacks a privilege.
    pub async fn prepare(&self) -> Result<()> {
        let context = context("prepare");
        let mut look = self.look().await;
        for _ in 0..LOOKS {
            // Look for the table first: `IF NOT EXISTS` needs the privilege to create it even if it
            // exists.
            match &look {
                Err(error) if code(error) == Some("42P01") => {}
                _ => break,
            }
            match query(&self.sql.create).into_query(true).execute(&self.pool).await {
                // `IF NOT EXISTS` does not see a table that another session has not committed yet.
                Err(error) if !matches!(code(&error), Some("23505" | "42P07" | "42710")) => {
                    return Err(context(statement_failed(error)));
                }
                _ => look = self.look().await,
            }
        }
        look.map_err(|error| context(statement_failed(error)))
    }

    async fn look(&self) -> sqlx::Result<()> {
        query(&self.sql.look).into_query(true).execute(&self.pool).await.map(drop)
    }
}

impl Sink for PostgresSink {
    type Transaction = Transaction<'static, Postgres>;

    fn keeps_names(&self) -> bool {
        true
    }

    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let context = context("position");
        let statement = query(&self.sql.position).bind(subscriber.as_str()).into_query(true);
        let row = statement.fetch_optional(&self.pool);
        let Some(row) = row.await.map_err(|error| context(statement_failed(error)))? else {
            return Ok(None);
        };
        let position = sqlx::Row::try_get(&row, 0).map_err(|error| context(driver(error)))?;
        Ok(Some(Position::from_i64(position)))
    }

    async fn begin(&self) -> Result<Self::Transaction> {
        let pool = self.pool.clone();
        // In a task of its own, since a `BEGIN` must not be dropped half-way: sqlx 0.9.0 would return
        // the connection to the pool inside a transaction, and the writes of its next user would be
        // lost (https://github.com/transact-rs/sqlx/issues/4393).
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        let begun = begun.map_err(|error| {
            Error::new(ErrorKind::Internal, "the task that begins the transaction has died")
                .with_source(error)
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
        let sql = if from.is_some() { &self.sql.advance } else { &self.sql.start };
        let mut statement = query(sql).bind(subscriber.as_str()).bind(to.to_i64());
        if let Some(from) = from {
            statement = statement.bind(from.to_i64());
        }
        match statement.into_query(true).execute(&mut **transaction).await {
            Ok(moved) => Ok(moved.rows_affected() == 1),
            // In an isolation level above READ COMMITTED, PostgreSQL reports by the first code that
            // another transaction has moved the checkpoint. The second one is a deadlock, which this
            // transaction resolves by giving way.
            Err(error) if matches!(code(&error), Some("40001" | "40P01")) => Ok(false),
            Err(error) => Err(context("advance")(statement_failed(error))),
        }
    }

    async fn commit(&self, mut transaction: Self::Transaction) -> Result<()> {
        let context = context("commit");
        // After a failed statement PostgreSQL rolls back on COMMIT, and the driver reports success.
        // Any other statement is refused in that state, so this one finds it out.
        let sound = sqlx::query("SELECT 1").execute(&mut *transaction).await;
        sound.map_err(|error| context(statement_failed(error)))?;
        let done = transaction.commit().await;
        done.map_err(|error| context(statement_failed(error)).with_outcome_unknown())
    }
}

/// The error of one of the sink's own statements.
fn statement_failed(error: sqlx::Error) -> Error {
    let (kind, message) = match code(&error) {
        Some("25P02") => (
            ErrorKind::InvalidInput,
            "an earlier statement of the transaction failed, after which PostgreSQL rolls back all \
             of it; let the handler return the errors of its statements, or use savepoints",
        ),
        Some("3F000") => {
            (ErrorKind::Incompatible, "the schema of the table does not exist; create it")
        }
        Some("42P01") => (
            ErrorKind::Incompatible,
            "the table of the projections does not exist; call `PostgresSink::prepare`, or open \
             the sink with `PostgresSink::open`",
        ),
        Some("42703" | "42809" | "42P10" | "42804" | "42883" | "42P07" | "42710" | "23502") => (
            ErrorKind::Incompatible,
            "the table of that name is another one, with other columns; choose another name with \
             `PostgresSink::with_table`",
        ),
        Some("42501") => (
            ErrorKind::Denied,
            "the role lacks a privilege: it needs SELECT, INSERT and UPDATE on the table, and \
             CREATE on its schema to create the table",
        ),
        _ => return driver(error),
    };
    Error::new(kind, message).with_source(error)
}
