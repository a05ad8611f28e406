//! Opening a store, closing it, and looking into a file without opening a store.

use std::{fmt, sync::Arc};

use annals_core::{Capabilities, Result};
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::{
    config::{Location, SqliteConfig},
    database::{check_path, connect},
    engine::Engine,
    error::{BACKEND, Failure, context, is_unwritable},
    migrate, read_only,
    runtime::blocking,
    sql::Sql,
    store::SqliteStore,
};

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("config", &self.engine.database.config)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens a store. Creates its tables if they do not exist, and migrates them if an older annals
    /// created them. Several processes can do this at the same time.
    ///
    /// If the file or its directory cannot be written, as on a read-only mount, the store is opened
    /// for reading only: every change fails with [`Denied`](annals_core::ErrorKind::Denied).
    ///
    /// # Errors
    /// [`InvalidInput`](annals_core::ErrorKind::InvalidInput) for options and paths that cannot
    /// work; [`Incompatible`](annals_core::ErrorKind::Incompatible) for a file that is not an SQLite
    /// database, for tables that do not belong to a store, and for a store that a newer annals
    /// created, which is left as it is; [`Busy`](annals_core::ErrorKind::Busy) if the database stays
    /// locked for the whole busy timeout; [`Denied`](annals_core::ErrorKind::Denied) and
    /// [`Unavailable`](annals_core::ErrorKind::Unavailable) if the file cannot be read, or tables
    /// that must be created or migrated cannot be written.
    pub async fn open(config: SqliteConfig) -> Result<Self> {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.durable = config.location != Location::Memory;
        capabilities.list_streams = true;
        capabilities.exact_import = true;
        Ok(Self { engine: Arc::new(Engine::open(config).await?), capabilities })
    }

    /// The options with which the store was opened.
    #[must_use]
    pub fn config(&self) -> &SqliteConfig {
        &self.engine.database.config
    }

    /// Drops this handle. If it was the last one, waits until what was queued is written and the
    /// file is closed, so that the file can be moved or deleted. A subscription keeps the store
    /// open; then this does not wait. A read that goes on after the last handle was closed fails
    /// with [`Unavailable`](annals_core::ErrorKind::Unavailable).
    ///
    /// # Errors
    /// [`Unavailable`](annals_core::ErrorKind::Unavailable) if the runtime shuts down before the
    /// file is closed.
    pub async fn close(self) -> Result<()> {
        match Arc::into_inner(self.engine) {
            Some(engine) => engine.close().await,
            None => Ok(()),
        }
    }

    /// The version of the schema that this build reads and writes.
    pub const SCHEMA_VERSION: i64 = migrate::CURRENT;

    /// The version of the SQLite library in this build, such as `3.50.2`.
    #[must_use]
    pub fn library_version() -> &'static str {
        rusqlite::version()
    }

    /// Looks what a file contains. Neither creates nor migrates anything, whatever
    /// [`SqliteConfig::create`] says.
    ///
    /// # Errors
    /// As for [`open`](Self::open), except that a store of a newer annals is no error.
    ///
    /// ```
    /// # use annals_sqlite::{SqliteConfig, SqliteStore};
    /// # #[tokio::main] async fn main() -> annals_core::Result<()> {
    /// let found = SqliteStore::inspect(SqliteConfig::new("no-such-file.db")).await?;
    /// assert!(!found.exists);
    /// # Ok(()) }
    /// ```
    pub async fn inspect(config: SqliteConfig) -> Result<Inspection> {
        let inspected = blocking(move || Ok(inspect(&config)?));
        inspected.await.map_err(context("inspect"))
    }
}

/// What a file contains: see [`SqliteStore::inspect`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether the file exists. Always `false` for a database in memory.
    pub exists: bool,
    /// Whether the file and its directory can be written to.
    pub writable: bool,
    /// The version of the store's schema; 0 if the file has no tables of the store. It is greater
    /// than [`SqliteStore::SCHEMA_VERSION`] if a newer annals created them.
    pub schema_version: i64,
}

fn inspect(config: &SqliteConfig) -> Result<Inspection, Failure> {
    config.check()?;
    let absent = Inspection { exists: false, writable: true, schema_version: 0 };
    let Location::File(path) = &config.location else { return Ok(absent) };
    if !path.exists() {
        return Ok(absent);
    }
    let path = check_path(path, false)?;
    let sql = Sql::new(&config.prefix);
    let found = |connection: Connection| {
        connection.busy_timeout(config.busy_timeout)?;
        connection.execute_batch("PRAGMA query_only = ON")?;
        migrate::found(&connection, &sql, &config.prefix)
    };
    // Open the file for writing if possible: a connection that cannot write leaves the `-wal` and
    // `-shm` files behind when it is closed.
    let connection = connect(&path, OpenFlags::empty(), false)?;
    let inspected = match connection.is_readonly(MAIN_DB)? {
        true => None,
        false => match found(connection) {
            Err(failure) if is_unwritable(&failure) => None,
            found => Some(found?),
        },
    };
    let (writable, schema_version) = match inspected {
        Some(version) => (true, version),
        None => (false, found(read_only::connect(&path)?.0)?),
    };
    Ok(Inspection { exists: true, writable, schema_version })
}
