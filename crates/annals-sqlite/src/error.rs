//! The one place where errors of SQLite become ours.

use annals_core::{Error, ErrorKind};
use rusqlite::ErrorCode;

/// The name of this backend.
pub(crate) const BACKEND: &str = "sqlite";

/// Adds where an error came from.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend(BACKEND).with_operation(operation)
}

/// Why a piece of work on a connection came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work itself was refused, before it changed anything: the transaction is as it was.
    Refused(Error),
    /// SQLite failed, in the middle of anything.
    Driver(rusqlite::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Driver(error) => driver(error),
        }
    }
}

/// An error of SQLite, with what can be done about it.
pub(crate) fn driver(error: rusqlite::Error) -> Error {
    let (kind, message) = match error.sqlite_error_code() {
        _ if is_busy(&error) => (
            ErrorKind::Busy,
            "others kept the database locked for all of the busy timeout; try again, or raise \
             `busy_timeout`",
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Denied,
            "the database cannot be written to; the file and its directory must be writable",
        ),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (ErrorKind::Denied, "the database file must not be used in this way")
        }
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Unavailable,
            "the database file cannot be opened; look whether it, and its directory, are there and \
             can be written to",
        ),
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Unavailable, "the disk is full; make room, then try again")
        }
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Unavailable, "the operating system could not read or write the file")
        }
        Some(ErrorCode::OutOfMemory) => (ErrorKind::Unavailable, "out of memory"),
        Some(ErrorCode::TooBig) => (ErrorKind::LimitExceeded, "too large for SQLite"),
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "the database file is damaged; restore it from a backup, or see `.recover` of the \
             sqlite3 shell",
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Incompatible, "the file is not an SQLite database; choose another path")
        }
        None if is_undecodable(&error) => {
            (ErrorKind::Corrupt, "a stored value is not what it should be")
        }
        _ => (ErrorKind::Internal, "SQLite reported an error"),
    };
    Error::new(kind, message).with_source(error)
}

/// Whether others hold a lock, so that waiting helps.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// Whether a COMMIT that failed in this way may yet turn out to have happened: what was written
/// is not visible, but may be found when the file is recovered after a crash.
pub(crate) fn leaves_commit_unknown(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

fn is_undecodable(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    )
}

/// Something stored is not what it should be.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}
