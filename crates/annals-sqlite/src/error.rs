//! The only place in which errors of SQLite become errors of annals.

use std::ffi::c_int;

use annals_core::{Error, ErrorKind, adapter};
use rusqlite::{ErrorCode, ffi};

/// The name of this backend.
pub(crate) const BACKEND: &str = "sqlite";

/// Adds this backend and an operation to an error.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    adapter::context(BACKEND, operation)
}

/// Why work on a connection failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work was refused before it changed anything, so the transaction can go on.
    Refused(Error),
    /// SQLite failed, perhaps in the middle of a change, so the transaction must be rolled back.
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

/// The error of annals for an error of SQLite. Its message says what the user can do.
pub(crate) fn driver(error: rusqlite::Error) -> Error {
    // What `append_with` has to say about a function of the application.
    let error = match error {
        rusqlite::Error::ToSqlConversionFailure(source) => match source.downcast::<Error>() {
            Ok(error) => return *error,
            Err(source) => rusqlite::Error::ToSqlConversionFailure(source),
        },
        error => error,
    };
    let (kind, message) = match error.sqlite_error_code() {
        _ if is_busy(&error) => (
            ErrorKind::Busy,
            "other connections kept the database locked for the whole busy timeout; try again, or \
             raise `busy_timeout`",
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Denied,
            "the database is read-only; make the file and its directory writable",
        ),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (ErrorKind::Denied, "the operating system denied access to the database file")
        }
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Unavailable,
            "the database file cannot be opened; check that the file and its directory exist and \
             are writable",
        ),
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Unavailable, "the disk is full; free some space, then try again")
        }
        Some(ErrorCode::SystemIoFailure) => (
            ErrorKind::Unavailable,
            "the operating system failed to read or write the database file",
        ),
        Some(ErrorCode::OutOfMemory) => (ErrorKind::Unavailable, "SQLite ran out of memory"),
        Some(ErrorCode::TooBig) => {
            (ErrorKind::LimitExceeded, "a value or a statement is too large for SQLite")
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "the database file is damaged; restore it from a backup, or try the command `.recover` \
             of the sqlite3 shell",
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Incompatible, "the file is not an SQLite database; choose another path")
        }
        None if is_undecodable(&error) => (ErrorKind::Corrupt, "a stored value has the wrong type"),
        _ => (ErrorKind::Internal, "SQLite reported an unexpected error"),
    };
    Error::new(kind, message).with_source(error)
}

/// Whether the error says that another connection holds a lock, so that it helps to wait.
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

/// An error as SQLite would report it.
pub(crate) fn sqlite_failure(code: c_int, message: impl Into<String>) -> Failure {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message.into())).into()
}

/// Whether the failure may come from a file or directory that cannot be written.
pub(crate) fn is_unwritable(failure: &Failure) -> bool {
    let Failure::Driver(error) = failure else { return false };
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied)
    )
}

/// Whether a COMMIT that failed with this error may have happened. Its changes are not visible now,
/// but after a crash SQLite may find them in the WAL and recover them.
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

/// An error for stored data that cannot be decoded.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}
