//! What a session with the server must be like: its settings, and who else may use it.

use std::{pin::pin, sync::Arc, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::{
    error::{STANDBY, driver, has_lost_connection},
    identity::is_standby,
};

const READ_COMMITTED: &str = "read committed";

/// What lies between the store and the server.
#[derive(Clone, Debug)]
pub enum Pooling {
    /// Nothing, or a pooler that gives each connection a session of its own.
    Sessions,
    /// A pooler that gives each transaction some session. `settings` give a transaction the settings
    /// that a session would have. `idle_timeout` ends a transaction of several requests whose client is
    /// gone, and with it its locks.
    Transactions { settings: Arc<str>, idle_timeout: Arc<str> },
}

impl Pooling {
    /// A pooler of transactions.
    pub fn of_transactions(request_timeout: Duration) -> Self {
        let timeout = statement_timeout(request_timeout);
        let settings = format!(
            "SET LOCAL transaction_isolation = 'read committed'; SET LOCAL jit = off; \
             SET LOCAL enable_seqscan = off; SET LOCAL statement_timeout = {timeout}"
        );
        let idle_timeout = format!("SET LOCAL idle_in_transaction_session_timeout = {timeout}");
        Self::Transactions { settings: settings.into(), idle_timeout: idle_timeout.into() }
    }

    /// The statements with which a transaction has to begin.
    pub fn settings(&self) -> Option<Arc<str>> {
        match self {
            Self::Sessions => None,
            Self::Transactions { settings, .. } => Some(settings.clone()),
        }
    }
}

/// The `statement_timeout` in milliseconds: a little less than the store waits for an answer. So a
/// statement ends before its caller gives up, and its outcome is known.
fn statement_timeout(request_timeout: Duration) -> u64 {
    let milliseconds = u64::try_from(request_timeout.as_millis()).unwrap_or(u64::MAX);
    (milliseconds / 10 * 9).clamp(1, i32::MAX as u64)
}

/// The statements that set up a session, whatever the defaults of its role and database.
///
/// * `jit` and `enable_seqscan` are off for speed. Compiling a statement takes longer than running
///   any statement of a store. Every statement has an index, but in a store of a hundred streams the
///   planner would rather scan the table of streams for each event, which takes 2.5 times as long.
/// * The keep-alives end a session whose client is gone, after a minute.
/// * A shorter `statement_timeout` that the application has set stays.
pub fn settings(request_timeout: Duration) -> Arc<str> {
    let timeout = statement_timeout(request_timeout);
    format!(
        "SET default_transaction_isolation = 'read committed'; SET jit = off; \
         SET enable_seqscan = off; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
         SET tcp_keepalives_count = 3; \
         SELECT pg_catalog.set_config('statement_timeout', '{timeout}', false) \
         WHERE EXTRACT(epoch FROM \
             pg_catalog.current_setting('statement_timeout')::pg_catalog.interval) * 1000.0 \
             NOT BETWEEN 1.0 AND {timeout}.0"
    )
    .into()
}

/// Sets up a connection that the store made itself.
pub async fn set_up(connection: &mut PgConnection, settings: &Arc<str>) -> sqlx::Result<()> {
    // Send these as simple queries, which leave no prepared statement behind.
    sqlx::raw_sql(AssertSqlSafe(settings.clone())).execute(&mut *connection).await?;
    // Ends a statement whose client is gone, as after a request timeout. Servers on some operating
    // systems do not have it.
    let check = "SET client_connection_check_interval = '1s'";
    match sqlx::raw_sql(check).execute(connection).await {
        Err(error) if has_lost_connection(&error) => Err(error),
        _ => Ok(()),
    }
}

/// What the server is like.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it says it is.
    pub version: String,
    /// Whether a commit that was acknowledged survives a crash of the server.
    pub is_durable: bool,
}

/// Refuses a server or a database that would break the store's promises.
pub async fn check_server(connection: &mut PgConnection, pooling: &Pooling) -> Result<Server> {
    let text = "SELECT pg_catalog.current_setting('server_encoding'), \
                pg_catalog.current_setting('default_transaction_isolation'), \
                pg_catalog.current_setting('synchronous_commit'), pg_catalog.version()";
    let row = sqlx::raw_sql(text).fetch_one(&mut *connection).await.map_err(driver)?;
    let setting = |column| row.try_get::<String, _>(column).map_err(driver);
    let (encoding, isolation) = (setting(0)?, setting(1)?);
    if is_standby(connection).await.map_err(driver)? {
        return Err(Error::new(ErrorKind::Incompatible, STANDBY));
    }
    let message = if encoding != "UTF8" {
        // Stream ids and event types are stored as text, and may hold any character.
        format!("the database has the encoding {encoding}; create one with UTF8")
    } else if isolation != READ_COMMITTED && matches!(pooling, Pooling::Sessions) {
        // An append takes the lock on its stream and then looks at the stream. Under a stricter
        // level it would see the stream as it was before the lock.
        format!(
            "the pool's connections have the isolation level {isolation}; set \
             `default_transaction_isolation` to '{READ_COMMITTED}' for the role, or on each \
             connection of the pool"
        )
    } else {
        return Ok(Server { version: setting(3)?, is_durable: setting(2)? != "off" });
    };
    Err(Error::new(ErrorKind::Incompatible, message))
}

/// How often to look for a pooler of transactions, whose other clients may interfere.
const LOOKS: usize = 4;
/// How often to look if there is a pooler of some kind.
const MOST_LOOKS: usize = 40;
/// How long a connection waits for its answer while another one holds a session. A pooler that has no
/// other session left would answer only when that one is free, and many may look at once.
const HOLD: Duration = Duration::from_secs(1);

/// The time on the server, for [`pools_transactions`].
pub async fn time(connection: &mut PgConnection) -> Result<String> {
    let time = sqlx::raw_sql("SELECT pg_catalog.clock_timestamp()::text").fetch_one(connection);
    time.await.and_then(|row| row.try_get(0)).map_err(driver)
}

/// Whether a pooler gives each transaction another session of the server: there, a prepared
/// statement is missing or is another one, and notifications go to another client.
///
/// Such a pooler hands out the session that was returned last. So while `other` holds that session
/// in an open transaction, `connection` gets another one. If other clients of the pooler interfere,
/// a look may not notice the pooler. But then some session of `other` is most often older than its
/// connection, which was made after the time `before`: that shows that there is a pooler, and this
/// looks more often.
pub async fn pools_transactions(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    before: &str,
) -> Result<bool> {
    let question = format!(
        "BEGIN; SELECT backend_start < '{before}'::pg_catalog.timestamptz \
         FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
    );
    let mut is_pooled = false;
    for look in 0..MOST_LOOKS {
        if look >= LOOKS && !is_pooled {
            break;
        }
        let before = process(connection).await.map_err(driver)?;
        let asked = sqlx::raw_sql(AssertSqlSafe(question.as_str())).fetch_optional(&mut *other);
        let is_older = asked.await.map_err(driver)?.map(|row| row.try_get::<Option<bool>, _>(0));
        is_pooled |= is_older.transpose().map_err(driver)?.flatten().unwrap_or(false);
        let (after, _) = while_held(process(connection), other).await.map_err(driver)?;
        if before != after {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits for an answer while `holder` holds a transaction open, for `HOLD` at most. Ends the
/// transaction. Says whether the answer came while it was open.
pub async fn while_held<T>(
    answer: impl Future<Output = sqlx::Result<T>>,
    holder: &mut PgConnection,
) -> sqlx::Result<(T, bool)> {
    let mut answer = pin!(answer);
    let early = tokio::time::timeout(HOLD, &mut answer).await;
    sqlx::raw_sql("ROLLBACK").execute(holder).await?;
    match early {
        Ok(answer) => Ok((answer?, true)),
        Err(_) => Ok((answer.await?, false)),
    }
}

/// The process of the session that serves a connection now.
async fn process(connection: &mut PgConnection) -> sqlx::Result<i32> {
    // Not prepared: the statement would be left behind in the session for the pooler's other clients.
    sqlx::raw_sql("SELECT pg_catalog.pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// Closes a connection, and does not wait for the server.
pub fn close(connection: PgConnection) {
    tokio::spawn(connection.close());
}
