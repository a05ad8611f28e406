//! The file, and connections to it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use annals_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use crate::{
    busy::Patience,
    config::{Location, SqliteConfig, Synchronous},
    error::{Failure, driver},
    migrate,
    sql::Sql,
};

/// After how many pages of 4 KiB the WAL is written back: four times SQLite's own figure, which
/// makes appends 5 to 10 % cheaper, and costs 16 MiB of disk.
const WAL_PAGES: u32 = 4_000;
/// The page caches, in KiB. The writer's holds the upper levels of the index of a large store.
const WRITER_CACHE: u32 = 16 * 1024;
const READER_CACHE: u32 = 2 * 1024;
/// More than there are statements.
const STATEMENTS: usize = 64;

/// A database that was opened, and has the tables.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) config: SqliteConfig,
    pub(crate) sql: Sql,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Memory {
        uri: String,
        /// Keeps the events while there is no other connection.
        _anchor: Mutex<Connection>,
        /// A database in memory has no WAL, so that a reader and a writer shut each other out.
        /// They take turns here, and never find it locked.
        turns: RwLock<()>,
    },
}

impl Database {
    /// Opens the database, and creates what it needs; with a connection for the writer.
    pub(crate) fn open(config: SqliteConfig) -> Result<(Self, Connection)> {
        config.check()?;
        let sql = Sql::new(&config.prefix);
        let mut patience = Patience::new(config.busy_timeout);
        let (place, create) = match &config.location {
            Location::File(path) => (Place::File(check_path(path, config.create)?), config.create),
            Location::Memory => {
                let uri = format!("file:/annals-{}?vfs=memdb", Uuid::now_v7());
                let anchor = connect(&uri, OpenFlags::SQLITE_OPEN_URI, true).map_err(driver)?;
                (Place::Memory { uri, _anchor: Mutex::new(anchor), turns: RwLock::new(()) }, false)
            }
        };
        let database = Self { config, sql, place };
        let writer = patience.retry(|| {
            let connection = database.connect(create)?;
            // Before anything is changed: a newer store stays as it is.
            migrate::version(&connection, &database.sql, &database.config.prefix)?;
            database.prepare_writer(&connection)?;
            Ok(connection)
        })?;
        migrate::run(&writer, &database.sql, &database.config.prefix, &mut patience)?;
        tracing::debug!(
            location = ?database.config.location,
            prefix = database.config.prefix,
            "opened"
        );
        Ok((database, writer))
    }

    /// A further connection for the writer, where the first was lost.
    pub(crate) fn writer(&self) -> Result<Connection, Failure> {
        Patience::new(self.config.busy_timeout).retry(|| {
            let connection = self.connect(false)?;
            self.prepare_writer(&connection)?;
            Ok(connection)
        })
    }

    /// A connection that cannot write.
    pub(crate) fn reader(&self) -> Result<Connection, Failure> {
        let connection = self.connect(false)?;
        let cache = format!("PRAGMA cache_size = -{READER_CACHE}; PRAGMA query_only = ON");
        connection.execute_batch(&cache)?;
        Ok(connection)
    }

    /// The file, as one name for all who open it; none in memory.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match &self.place {
            Place::File(path) => Some(fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
            Place::Memory { .. } => None,
        }
    }

    /// A turn to read, where readers and the writer have to take turns.
    pub(crate) fn read_turn(&self) -> Option<RwLockReadGuard<'_, ()>> {
        // The lock guards no data, so a poisoned one is as good as any.
        self.turns().map(|turns| turns.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A turn to write, where readers and the writer have to take turns.
    pub(crate) fn write_turn(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.turns().map(|turns| turns.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn turns(&self) -> Option<&RwLock<()>> {
        match &self.place {
            Place::File(_) => None,
            Place::Memory { turns, .. } => Some(turns),
        }
    }

    fn connect(&self, create: bool) -> rusqlite::Result<Connection> {
        match &self.place {
            // No URI, so that `?` and `%` in a path stand for themselves.
            Place::File(path) => connect(path, OpenFlags::empty(), create),
            Place::Memory { uri, .. } => connect(uri, OpenFlags::SQLITE_OPEN_URI, true),
        }
    }

    fn prepare_writer(&self, connection: &Connection) -> Result<(), Failure> {
        let (journal, synchronous) = match (&self.place, self.config.synchronous) {
            (Place::Memory { .. }, _) => ("memory", "OFF"),
            (Place::File(_), Synchronous::Full) => ("wal", "FULL"),
            (Place::File(_), Synchronous::Normal) => ("wal", "NORMAL"),
        };
        let ask = "PRAGMA journal_mode";
        let mode = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, String>(0));
        // Asked first: to set it, even to what it is, may need a lock.
        if mode(ask)? != journal && mode(&format!("{ask} = {journal}"))? != journal {
            let message = "the database cannot use a write-ahead log where it is; choose a \
                           directory on a local disk";
            return Err(Error::new(ErrorKind::Incompatible, message).into());
        }
        connection.execute_batch(&format!(
            "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {WAL_PAGES}; \
             PRAGMA cache_size = -{WRITER_CACHE}"
        ))?;
        Ok(())
    }
}

pub(crate) fn connect(
    path: impl AsRef<Path>,
    flags: OpenFlags,
    create: bool,
) -> rusqlite::Result<Connection> {
    let mut flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    // Whoever uses the connection waits for locks by `Patience`.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// The path, made absolute: readers are opened later, when the working directory may be another.
pub(crate) fn check_path(path: &Path, create: bool) -> Result<PathBuf> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let path = std::path::absolute(path)
        .map_err(|e| invalid("the database needs a path".to_owned()).with_source(e))?;
    if path.is_dir() {
        return Err(invalid(format!("{path:?} is a directory; add the name of a file")));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        return Err(invalid(format!("the directory {parent:?} does not exist; create it first")));
    }
    if !create && !path.exists() {
        return Err(invalid(format!(
            "{path:?} does not exist, and `create` is off; name a file that exists, or turn it on"
        )));
    }
    Ok(path)
}
