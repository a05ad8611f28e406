//! Finds out a pooler with which a store could not work.

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::error::{POOLER, driver, has_lost_connection};

/// Whether a pooler gives each transaction any of its connections to the server. Refuses one that
/// does not see to it that what was prepared is there: a name may stand for another statement there.
///
/// It hands out the connection that it got back last. So once `other` has that, `connection` gets
/// another one. Where strangers come in between it may not, and then this may not find it out.
pub(crate) async fn check(connection: &mut PgConnection, mut other: PgConnection) -> Result<bool> {
    // Nobody else has prepared this.
    let token = format!("{:016x}", fastrand::u64(..));
    let text = format!("SELECT '{token}', pg_backend_pid()");
    let (_, process) = prepared(connection, &text).await.map_err(driver)?;
    sqlx::raw_sql("BEGIN").execute(&mut other).await.map_err(driver)?;
    let again = prepared(connection, &text).await;
    // Which ends the transaction.
    drop(other.close().await);
    match again {
        Ok((found, other_process)) if found == token => Ok(other_process != process),
        Ok(_) => Err(Error::new(ErrorKind::Incompatible, POOLER)),
        Err(error) if has_lost_connection(&error) => Err(driver(error)),
        Err(error) => Err(Error::new(ErrorKind::Incompatible, POOLER).with_source(error)),
    }
}

async fn prepared(connection: &mut PgConnection, text: &str) -> sqlx::Result<(String, i32)> {
    let row = sqlx::query(AssertSqlSafe(text)).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
