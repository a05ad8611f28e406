//! What a session with the server must be like: its settings, and no pooler that mixes sessions up.

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::error::{POOLER, STANDBY, driver, has_lost_connection};

const READ_COMMITTED: &str = "read committed";

/// Sets up a connection that the store made itself, whatever the defaults of its role and database.
///
/// `jit` and `enable_seqscan` are off for speed. Compiling a statement takes longer than running
/// any statement of a store. Every statement has an index, but in a store of a hundred streams the
/// planner would rather scan the table of streams for each event, which takes 2.5 times as long.
pub(crate) async fn set_up(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Send this as a simple query: a connection pooler may not keep prepared statements.
    let text = "SET default_transaction_isolation = 'read committed'; SET jit = off; \
                SET enable_seqscan = off";
    sqlx::raw_sql(text).execute(connection).await.map(drop)
}

/// Whether the server is a standby.
pub(crate) async fn is_standby(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::raw_sql("SELECT pg_is_in_recovery()").fetch_one(connection).await?.try_get(0)
}

/// Refuses a server or a database that would break the store's promises.
pub(crate) async fn check_server(connection: &mut PgConnection) -> Result<()> {
    if is_standby(connection).await.map_err(driver)? {
        return Err(Error::new(ErrorKind::Incompatible, STANDBY));
    }
    let text = "SELECT current_setting('server_encoding'), \
                current_setting('default_transaction_isolation')";
    let row = sqlx::query(text).fetch_one(connection).await.map_err(driver)?;
    let setting = |column| row.try_get::<String, _>(column).map_err(driver);
    let (encoding, isolation) = (setting(0)?, setting(1)?);
    let message = if encoding != "UTF8" {
        // Stream ids and event types are stored as text, and may hold any character.
        format!("the database has the encoding {encoding}; create one with UTF8")
    } else if isolation != READ_COMMITTED {
        // An append takes the lock on its stream and then looks at the stream. Under a stricter
        // level it would see the stream as it was before the lock.
        format!(
            "the pool's connections have the isolation level {isolation}; set \
             `default_transaction_isolation` to '{READ_COMMITTED}' for the role, or on each \
             connection of the pool"
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Incompatible, message))
}

/// Refuses a connection pooler that gives each transaction another session of the server: there,
/// a prepared statement is missing or is another one, and notifications go to another client.
///
/// Such a pooler hands out the session that was returned last. So while `other` holds that session
/// in an open transaction, `connection` gets another session, and no longer finds its prepared
/// statement, or finds another process. If other clients of the pooler interfere, this check may
/// not notice the pooler.
pub(crate) async fn check_pooler(
    connection: &mut PgConnection,
    mut other: PgConnection,
) -> Result<()> {
    let refused = || Error::new(ErrorKind::Incompatible, POOLER);
    // The random token makes this a statement that nobody else has prepared.
    let token = format!("{:016x}", fastrand::u64(..));
    let text = format!("SELECT '{token}', pg_backend_pid()");
    let (_, process) = prepared(connection, &text).await.map_err(driver)?;
    sqlx::raw_sql("BEGIN").execute(&mut other).await.map_err(driver)?;
    let again = prepared(connection, &text).await;
    // Closing the connection ends the transaction.
    drop(other.close().await);
    match again {
        Ok((found, other_process)) if found == token && other_process == process => Ok(()),
        Ok(_) => Err(refused()),
        Err(error) if has_lost_connection(&error) => Err(driver(error)),
        Err(error) => Err(refused().with_source(error)),
    }
}

async fn prepared(connection: &mut PgConnection, text: &str) -> sqlx::Result<(String, i32)> {
    let row = sqlx::query(AssertSqlSafe(text)).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
