//! The one place where errors of PostgreSQL become ours.

use std::io;

use annals_core::{Error, ErrorKind};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The name of this backend.
pub(crate) const BACKEND: &str = "postgres";

/// What to do about a pooler with which a store could not work.
pub(crate) const POOLER: &str = "a pooler between here and the server gives each transaction another connection, where neither \
     prepared statements nor notifications last; let it pool sessions, or go past it";

/// Adds where an error came from.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend(BACKEND).with_operation(operation)
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The driver, or the server, failed.
    Driver(sqlx::Error),
    /// What came back is not what it should be.
    Nonsense(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Nonsense(error)
    }
}

/// An error of the driver, with what can be done about it. The codes are those of the appendix
/// "PostgreSQL Error Codes" of PostgreSQL's documentation.
pub(crate) fn driver(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(_) => database(code(&error).unwrap_or_default()),
        // What rustls refuses comes as the first.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => no_tls(),
        sqlx::Error::Tls(_) => no_tls(),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
            (ErrorKind::Unavailable, "the server cannot be reached, or the connection was lost")
        }
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Busy,
            "no connection of the pool became free in time; try again, or allow more connections",
        ),
        sqlx::Error::PoolClosed => (ErrorKind::Unavailable, "the pool was closed"),
        sqlx::Error::Configuration(_) => {
            (ErrorKind::InvalidInput, "the options of the connection cannot work")
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::RowNotFound => {
            (ErrorKind::Corrupt, "a stored value is not what it should be")
        }
        _ => (ErrorKind::Internal, "the driver reported an error"),
    };
    Error::new(kind, message).with_source(error)
}

fn no_tls() -> (ErrorKind, &'static str) {
    let message = "no TLS connection could be made; look at `sslmode` and `sslrootcert`";
    (ErrorKind::Unavailable, message)
}

fn database(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "25000" => (
            ErrorKind::Incompatible,
            "appends need the isolation level READ COMMITTED; set `default_transaction_isolation` \
             for the role",
        ),
        "25006" => (
            ErrorKind::Denied,
            "the server takes no writes: it is a standby, or the session is read-only; connect to \
             the primary",
        ),
        "26000" | "42P05" => (ErrorKind::Incompatible, POOLER),
        "3D000" => (ErrorKind::Incompatible, "the database does not exist; create it"),
        "3F000" | "42P01" | "42703" | "42883" => (
            ErrorKind::Incompatible,
            "the schema lacks something that a store has: it was removed or changed under way",
        ),
        "42501" => (
            ErrorKind::Denied,
            "the role lacks a privilege; the documentation of annals-postgres lists what it needs",
        ),
        "40001" | "40P01" | "55P03" => {
            (ErrorKind::Busy, "others wrote at the same time; try again")
        }
        "57014" => (
            ErrorKind::Busy,
            "the server cancelled the statement, as it took longer than `statement_timeout`; try \
             again, or raise it",
        ),
        "53100" => (ErrorKind::Unavailable, "the disk of the server is full"),
        "53300" => (
            ErrorKind::Busy,
            "the server has no more connections to give; try again, or raise `max_connections`",
        ),
        "54000" | "22023" => (ErrorKind::LimitExceeded, "larger than PostgreSQL can take"),
        // The session ends with these.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => {
            (ErrorKind::Unavailable, "the server shuts down, starts, or has closed the connection")
        }
        _ => match code.get(..2) {
            Some("08") => (ErrorKind::Unavailable, "the connection was lost"),
            Some("28") => (ErrorKind::Denied, "the server refused the credentials"),
            Some("53") => (ErrorKind::Busy, "the server lacks memory or another resource"),
            Some("XX") => (ErrorKind::Corrupt, "PostgreSQL found its own data damaged"),
            _ => (ErrorKind::Internal, "PostgreSQL reported an error"),
        },
    }
}

/// The code of an error that the server reported.
pub(crate) fn code(error: &sqlx::Error) -> Option<&str> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// Whether the connection cannot be used any more; what was sent on it may have been done.
pub(crate) fn has_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        _ => false,
    }
}

/// The same error again, for another append that waited for the same connection: where none can be
/// had, or the server does not answer.
pub(crate) fn unreachable(error: &Error) -> Option<Error> {
    let source: &sqlx::Error = std::error::Error::source(error)?.downcast_ref()?;
    let same = match source {
        sqlx::Error::PoolTimedOut => sqlx::Error::PoolTimedOut,
        sqlx::Error::PoolClosed => sqlx::Error::PoolClosed,
        sqlx::Error::Io(error) => io::Error::new(error.kind(), error.to_string()).into(),
        _ => return None,
    };
    Some(driver(same))
}

/// Whether transactions got in each other's way, so that nothing was written, and to try again may
/// help: serialization failure, deadlock, unique violation.
pub(crate) fn is_race(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("40001" | "40P01" | "23505"))
}

/// Something stored is not what it should be.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}

/// A mistake of this crate.
pub(crate) fn internal(message: &'static str) -> Error {
    Error::new(ErrorKind::Internal, message)
}
