//! What is in a file, found without changing anything in it.

use annals_core::Result;
use rusqlite::{MAIN_DB, OpenFlags};

use crate::{
    SqliteStore,
    config::{Location, SqliteConfig},
    database::{check_path, connect},
    error::{Failure, context},
    migrate,
    sql::Sql,
};

/// What is in a database: see [`SqliteStore::inspect`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether there is a file. A database in memory is none.
    pub exists: bool,
    /// Whether it can be written to.
    pub writable: bool,
    /// The version of the store's tables, 0 where there are none. More than
    /// [`SqliteStore::SCHEMA_VERSION`] where a newer annals has created them.
    pub schema_version: i64,
}

impl SqliteStore {
    /// The version of the tables that this build reads and writes.
    pub const SCHEMA_VERSION: i64 = migrate::CURRENT;

    /// The version of the SQLite library in this build, as in `3.50.2`.
    #[must_use]
    pub fn library_version() -> &'static str {
        rusqlite::version()
    }

    /// Looks what is in a database, and neither creates nor migrates anything, whatever
    /// [`SqliteConfig::create`] says.
    ///
    /// # Errors
    /// As for [`open`](Self::open), but for a newer annals.
    ///
    /// ```
    /// # use annals_sqlite::{SqliteConfig, SqliteStore};
    /// # #[tokio::main] async fn main() -> annals_core::Result<()> {
    /// let found = SqliteStore::inspect(SqliteConfig::new("no-such-file.db")).await?;
    /// assert!(!found.exists);
    /// # Ok(()) }
    /// ```
    pub async fn inspect(config: SqliteConfig) -> Result<Inspection> {
        let looked = crate::store::blocking(move || Ok(inspect(&config)?));
        looked.await.map_err(context("inspect"))
    }
}

fn inspect(config: &SqliteConfig) -> Result<Inspection, Failure> {
    config.check()?;
    let absent = Inspection { exists: false, writable: true, schema_version: 0 };
    let Location::File(path) = &config.location else { return Ok(absent) };
    if !path.exists() {
        return Ok(absent);
    }
    let path = check_path(path, false)?;
    // For writing, where that can be done: whoever cannot, leaves files behind when it closes.
    let connection = connect(path, OpenFlags::empty(), false)?;
    connection.busy_timeout(config.busy_timeout)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    let writable = !connection.is_readonly(MAIN_DB)?;
    let sql = Sql::new(&config.prefix);
    let schema_version = migrate::found(&connection, &sql, &config.prefix)?;
    Ok(Inspection { exists: true, writable, schema_version })
}
