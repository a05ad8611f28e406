//! The database, and connections to it.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use annals_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};
use uuid::Uuid;

use crate::{
    busy::BusyRetry,
    config::{Location, SqliteConfig, Synchronous},
    error::{Failure, driver, is_unwritable, sqlite_failure},
    files::OpenFiles,
    migrate,
    read_only::{self, FileState},
    sql::Sql,
};

/// After how many pages of 4 KiB SQLite copies the WAL into the database file. This is four times
/// SQLite's default: appends become 5 to 10 % cheaper, and the WAL takes up to 16 MiB of disk.
const WAL_PAGES: u32 = 4_000;
/// The page caches, in KiB. That of the writer holds the upper levels of the index of a large store.
const WRITER_CACHE: u32 = 16 * 1024;
const READER_CACHE: u32 = 2 * 1024;
/// How many prepared statements a connection caches: more than this crate has.
const STATEMENTS: usize = 64;

/// A database that is open and has the tables of the store.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) config: SqliteConfig,
    pub(crate) sql: Sql,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File {
        path: PathBuf,
        files: OpenFiles,
        is_writable: bool,
    },
    Memory {
        uri: String,
        /// An in-memory database lives as long as a connection to it is open. This connection keeps
        /// it alive.
        _anchor: Mutex<Connection>,
        /// An in-memory database has no WAL, so a reader locks out the writer and the reverse. They
        /// take turns by this lock, and so never find the database locked.
        turns: RwLock<()>,
    },
}

impl Database {
    /// Opens the database, and creates or migrates its tables. Returns also the connection for the
    /// writer; `None` if the file exists but cannot be written.
    pub(crate) fn open(config: SqliteConfig) -> Result<(Self, Option<Connection>)> {
        config.check()?;
        let sql = Sql::new(&config.prefix);
        let (place, writer) = match &config.location {
            Location::File(path) => {
                let path = check_path(path, config.create)?;
                let connect = || connect(&path, OpenFlags::empty(), config.create);
                let writer = match open_writer(connect, &config, &sql) {
                    Err(failure) if is_unwritable(&failure) && path.exists() => {
                        tracing::debug!(?failure, "the file is opened for reading only");
                        check_read_only(&path, &config, &sql)?;
                        None
                    }
                    opened => Some(opened?),
                };
                let files = OpenFiles::of(&path, writer.is_some()).map_err(|e| {
                    let message = "the files of the database cannot be examined";
                    Error::new(ErrorKind::Unavailable, message).with_source(e)
                })?;
                (Place::File { path, files, is_writable: writer.is_some() }, writer)
            }
            Location::Memory => {
                let uri = format!("file:/annals-{}?vfs=memdb", Uuid::now_v7());
                let connect = || connect(&uri, OpenFlags::SQLITE_OPEN_URI, true);
                let anchor = Mutex::new(connect().map_err(driver)?);
                let writer = open_writer(connect, &config, &sql)?;
                (Place::Memory { uri, _anchor: anchor, turns: RwLock::new(()) }, Some(writer))
            }
        };
        tracing::debug!(location = ?config.location, prefix = config.prefix, "opened");
        Ok((Self { config, sql, place }, writer))
    }

    /// Another connection for the writer, after the first one was lost.
    pub(crate) fn writer(&self) -> Result<Connection, Failure> {
        self.check_files()?;
        BusyRetry::new(self.config.busy_timeout).retry(|| {
            let connection = self.connect()?;
            prepare_writer(&connection, &self.config)?;
            Ok(connection)
        })
    }

    /// A connection that only reads. If it takes the file for unchanging, also returns the state of
    /// the file, which must be checked after each read.
    pub(crate) fn reader(&self) -> Result<(Connection, Option<FileState>), Failure> {
        let (connection, state) = match &self.place {
            Place::File { path, is_writable: false, .. } => read_only::connect(path)?,
            _ => (self.connect()?, None),
        };
        let cache = format!("PRAGMA cache_size = -{READER_CACHE}; PRAGMA query_only = ON");
        connection.execute_batch(&cache)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok((connection, state))
    }

    /// The files of the database; `None` for a database in memory.
    pub(crate) fn files(&self) -> Option<&OpenFiles> {
        match &self.place {
            Place::File { files, .. } => Some(files),
            Place::Memory { .. } => None,
        }
    }

    /// Refuses to go on if the files that the connections have open are not those of the database
    /// any more.
    pub(crate) fn check_files(&self) -> Result<(), Error> {
        self.files().map_or(Ok(()), OpenFiles::check)
    }

    /// Waits for a turn to read, if readers and the writer must take turns.
    pub(crate) fn read_turn(&self) -> Option<RwLockReadGuard<'_, ()>> {
        // The lock guards no data, so a poisoned lock can be used.
        self.turns().map(|turns| turns.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a turn to write, if readers and the writer must take turns.
    pub(crate) fn write_turn(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.turns().map(|turns| turns.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn turns(&self) -> Option<&RwLock<()>> {
        match &self.place {
            Place::File { .. } => None,
            Place::Memory { turns, .. } => Some(turns),
        }
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        match &self.place {
            // Open the path without the URI flag, so that `?` and `%` have no special meaning.
            Place::File { path, .. } => connect(path, OpenFlags::empty(), false),
            Place::Memory { uri, .. } => connect(uri, OpenFlags::SQLITE_OPEN_URI, true),
        }
    }
}

/// Opens the first connection for the writer, and creates or migrates the tables.
fn open_writer(
    connect: impl Fn() -> rusqlite::Result<Connection>,
    config: &SqliteConfig,
    sql: &Sql,
) -> Result<Connection, Failure> {
    let mut busy = BusyRetry::new(config.busy_timeout);
    let writer = busy.retry(|| {
        let connection = connect()?;
        // Ask this before anything is read: a connection that cannot write would create the `-wal`
        // and `-shm` files, and leave them behind.
        if connection.is_readonly(MAIN_DB)? {
            return Err(sqlite_failure(ffi::SQLITE_READONLY, "the file cannot be written"));
        }
        // Check the version before anything is changed, so that a newer store stays as it is.
        migrate::version(&connection, sql, &config.prefix)?;
        prepare_writer(&connection, config)?;
        Ok(connection)
    })?;
    migrate::run(&writer, sql, &config.prefix, &mut busy)?;
    Ok(writer)
}

/// Checks that a store whose file cannot be written can be read.
fn check_read_only(path: &Path, config: &SqliteConfig, sql: &Sql) -> Result<(), Error> {
    let version = BusyRetry::new(config.busy_timeout).retry(|| {
        let (connection, state) = read_only::connect(path)?;
        let version = migrate::version(&connection, sql, &config.prefix)?;
        state.map_or(Ok(()), |state| state.check())?;
        Ok(version)
    });
    let denied = |message: String| Error::new(ErrorKind::Denied, message);
    match version {
        Ok(migrate::CURRENT) => Ok(()),
        Ok(0) => Err(denied(format!(
            "{path:?} has no tables of a store, and they cannot be created, since the file or its \
             directory is not writable"
        ))),
        Ok(version) => Err(denied(format!(
            "{path:?} has schema version {version}, and it cannot be migrated, since the file or \
             its directory is not writable"
        ))),
        Err(failure) if is_unwritable(&failure) => Err(denied(format!(
            "{path:?} can be neither written nor read; check the permissions of the file and of its \
             directory"
        ))
        .with_source(Error::from(failure))),
        Err(failure) => Err(failure.into()),
    }
}

fn prepare_writer(connection: &Connection, config: &SqliteConfig) -> Result<(), Failure> {
    let (journal, synchronous) = match (&config.location, config.synchronous) {
        (Location::Memory, _) => ("memory", "OFF"),
        (Location::File(_), Synchronous::Full) => ("wal", "FULL"),
        (Location::File(_), Synchronous::Normal) => ("wal", "NORMAL"),
    };
    let ask = "PRAGMA journal_mode";
    let mode = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, String>(0));
    // Read the journal mode before setting it: SQLite may take a lock to set it, even to the value
    // it already has.
    if mode(ask)? != journal && mode(&format!("{ask} = {journal}"))? != journal {
        let message = "SQLite cannot use a write-ahead log in this directory; choose a directory \
                       on a local disk";
        return Err(Error::new(ErrorKind::Incompatible, message).into());
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {WAL_PAGES}; \
         PRAGMA cache_size = -{WRITER_CACHE}"
    ))?;
    Ok(())
}

/// Opens a connection for reading and writing.
pub(crate) fn connect(
    path: impl AsRef<Path>,
    flags: OpenFlags,
    create: bool,
) -> rusqlite::Result<Connection> {
    let mut flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    // SQLite itself does not wait for locks. Each use of a connection retries with a `BusyRetry`.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Checks the path of the file and makes it absolute, because connections are also opened later,
/// when the working directory may have changed.
pub(crate) fn check_path(path: &Path, create: bool) -> Result<PathBuf> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let path = std::path::absolute(path).map_err(|e| {
        invalid("the path is empty, or there is no working directory".to_owned()).with_source(e)
    })?;
    if path.is_dir() {
        return Err(invalid(format!("{path:?} is a directory; add the name of a file")));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        return Err(invalid(format!("the directory {parent:?} does not exist; create it first")));
    }
    if !create && !path.exists() {
        return Err(invalid(format!(
            "{path:?} does not exist, and `create` is off; name an existing file, or turn `create` on"
        )));
    }
    Ok(path)
}
