//! Reading a file that cannot be written: on a read-only mount, or without the permission.
//!
//! To read a file in WAL mode, SQLite needs its `-wal` and `-shm` files, and creates them if they do
//! not exist. If it cannot create them, there are two cases. If the log has content, another process
//! has created these files, and SQLite can use them. If there is no log, the file alone has all
//! events, and can be read as if it never changed. In fact a process with more permissions can begin
//! to write at any time, so after each page the file must still be the one that was opened.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rusqlite::{Connection, OpenFlags, ffi};

use crate::{
    error::{Failure, sqlite_failure},
    files::{FileId, log_path},
};

/// What has a meaning of its own in the path of a URI.
const NOT_IN_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// A database file without a log, as it was when a connection to it was opened that takes it for
/// unchanging.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    path: PathBuf,
    file: FileId,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    /// The state of the file; `None` if it has a log.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let has_log = |log: PathBuf| fs::metadata(log).is_ok_and(|log| log.len() > 0);
        if has_log(log_path(path)?) {
            return Ok(None);
        }
        let metadata = fs::metadata(path)?;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        Ok(Some(Self { path: path.to_owned(), file: FileId::of(path)?, bytes, modified }))
    }

    /// Refuses what was read if the file has changed since the connection was opened. The error is
    /// that of a locked database, so that the read is repeated, on another connection.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match Self::of(&self.path) {
            Ok(Some(now)) if now == *self => Ok(()),
            _ => Err(sqlite_failure(ffi::SQLITE_BUSY, "the file changed while it was read")),
        }
    }
}

/// Opens a connection that needs no permission to write. If it takes the file for unchanging, also
/// returns the state of the file.
pub(crate) fn connect(path: &Path) -> Result<(Connection, Option<FileState>), Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cannot_open = |e: io::Error| sqlite_failure(ffi::SQLITE_CANTOPEN, e.to_string());
    let state = FileState::of(path).map_err(cannot_open)?;
    let connection = match &state {
        Some(_) => {
            let uri = format!("file:{}?immutable=1", uri_path(path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
        }
        None => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(std::time::Duration::ZERO)?;
    Ok((connection, state))
}

/// An absolute path in a URI of SQLite.
fn uri_path(path: &Path) -> String {
    let encoded = percent_encode(path.as_os_str().as_encoded_bytes(), NOT_IN_PATH).to_string();
    if cfg!(windows) { format!("/{}", encoded.replace('\\', "/")) } else { encoded }
}
