//! Turns errors of PostgreSQL and sqlx into errors of annals.

use std::{fmt, io, sync::Arc};

use annals_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::runtime::Handle;

/// Says what to do about a connection pooler that was not noticed when the store was opened.
const POOLER: &str = "a connection pooler between this program and the server pools transactions, which \
     was not noticed when the store was opened, so that a prepared statement was lost; open the store \
     again";

/// Says what to do about a standby.
pub const STANDBY: &str = "the server is a standby: it takes no writes, and does not know which \
     appends are under way on the primary, so that readers would skip events; connect to the primary";

/// The error for a connection that turns out to lead to a standby.
pub fn standby() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(Standby))
}

#[derive(Debug)]
struct Standby;

impl fmt::Display for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is in recovery")
    }
}

impl std::error::Error for Standby {}

/// The error for a connection that turns out to lead to another store.
pub fn another_store() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(AnotherStore))
}

#[derive(Debug)]
struct AnotherStore;

impl fmt::Display for AnotherStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store has another key")
    }
}

impl std::error::Error for AnotherStore {}

/// Why a statement failed.
#[derive(Debug)]
pub enum Failure {
    /// The driver or the server reported an error.
    Driver(sqlx::Error),
    /// The server answered, and the answer is not valid.
    InvalidAnswer(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::InvalidAnswer(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Driver(error) => driver(error),
            Failure::InvalidAnswer(error) => error,
        }
    }
}

/// Turns an error of the driver into one that says what to do about it. The codes are those of the
/// appendix "PostgreSQL Error Codes" in PostgreSQL's documentation.
pub fn driver(error: sqlx::Error) -> Error {
    let (kind, message) = describe(&error);
    Error::new(kind, message).with_source(error)
}

/// What an error of the driver is to the caller.
fn describe(error: &sqlx::Error) -> (ErrorKind, &'static str) {
    match error {
        sqlx::Error::Database(_) if is_position_taken(error) => (
            ErrorKind::Incompatible,
            "the sequence of positions has given a position that an event has already; stop writing, \
             and open the store again, which says how to mend it",
        ),
        sqlx::Error::Database(_) => database(code(error).unwrap_or_default()),
        // sqlx reports what rustls refuses as an I/O error of this kind.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => no_tls(),
        sqlx::Error::Tls(_) => no_tls(),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
            (ErrorKind::Unavailable, "the server cannot be reached, or the connection was lost")
        }
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Busy,
            "no connection of the pool became free within the acquire timeout; try again, or \
             allow the pool more connections",
        ),
        sqlx::Error::PoolClosed => (ErrorKind::Unavailable, "the connection pool was closed"),
        // A standby may be promoted, or the name may lead to the primary again.
        sqlx::Error::Configuration(error) if error.is::<Standby>() => {
            (ErrorKind::Unavailable, STANDBY)
        }
        sqlx::Error::Configuration(error) if error.is::<AnotherStore>() => {
            (ErrorKind::Incompatible, ANOTHER_STORE)
        }
        sqlx::Error::Configuration(_) => {
            (ErrorKind::InvalidInput, "the connection options are invalid")
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::RowNotFound => {
            (ErrorKind::Corrupt, "a stored value has the wrong type or is missing")
        }
        _ => (ErrorKind::Internal, "the driver reported an error"),
    }
}

const ANOTHER_STORE: &str = "the schema holds another store than when this one was opened: it was \
     removed and created again, or another one has its name now; open the store again";

fn no_tls() -> (ErrorKind, &'static str) {
    let message = "no TLS connection could be made; check `sslmode` and `sslrootcert`";
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
            "the server accepts no writes: it is a standby, or the session is read-only; connect \
             to the primary",
        ),
        // Raised by the functions of the schema.
        "AN001" => (ErrorKind::Incompatible, ANOTHER_STORE),
        "26000" | "42P05" => (ErrorKind::Incompatible, POOLER),
        "3D000" => (ErrorKind::Incompatible, "the database does not exist; create it"),
        "3F000" | "42P01" | "42703" | "42883" => (
            ErrorKind::Incompatible,
            "a schema, table, column or function of the store is missing; it was removed or \
             changed while the store was open",
        ),
        "42501" => (
            ErrorKind::Denied,
            "the role lacks a privilege; the documentation of the store's crate lists what it needs",
        ),
        "40001" | "40P01" | "55P03" => {
            (ErrorKind::Busy, "another transaction got in the way; try again")
        }
        "57014" => (
            ErrorKind::Busy,
            "the server cancelled the statement because it took longer than `statement_timeout`; \
             try again, or raise that setting",
        ),
        "53100" => (ErrorKind::Unavailable, "the server's disk is full"),
        "53300" => (
            ErrorKind::Busy,
            "the server has no free connection left; try again, or raise `max_connections`",
        ),
        "54000" | "22023" => {
            (ErrorKind::LimitExceeded, "a value is larger than PostgreSQL accepts")
        }
        // After these the session is over.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => (
            ErrorKind::Unavailable,
            "the server is shutting down or starting, or has closed the connection",
        ),
        _ => match code.get(..2) {
            Some("08") => (ErrorKind::Unavailable, "the connection was lost"),
            Some("28") => (ErrorKind::Denied, "the server refused the credentials"),
            Some("53") => (ErrorKind::Busy, "the server is short of memory or another resource"),
            Some("XX") => (ErrorKind::Corrupt, "PostgreSQL found that its own data is damaged"),
            _ => (ErrorKind::Internal, "PostgreSQL reported an error"),
        },
    }
}

/// The code of an error that the server reported; `None` for an error of the driver.
pub fn code(error: &sqlx::Error) -> Option<&str> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// Whether the connection is lost. The server may have executed the statement all the same.
pub fn has_lost_connection(error: &sqlx::Error) -> bool {
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

/// Whom an error concerns, if appends that share a statement got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// One of them: the others succeed without it.
    One,
    /// One of them may have waited for a lock on its stream; or all have.
    Waiting,
    /// All of them, and every other append: the server cannot be reached, or is short of something.
    All,
}

/// Whom an error of [`driver`] concerns.
pub fn concerns(error: &Error) -> Concerns {
    match cause(error) {
        Some(
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Configuration(_)
            | sqlx::Error::Io(_),
        ) => Concerns::All,
        Some(error @ sqlx::Error::Database(_)) => match code(error) {
            Some("57014" | "55P03") => Concerns::Waiting,
            Some("25006" | "AN001") => Concerns::All,
            Some(code) if code.starts_with("53") || code.starts_with("57") => Concerns::All,
            _ => Concerns::One,
        },
        _ => Concerns::One,
    }
}

/// The driver's error behind an error.
fn cause(error: &Error) -> Option<&sqlx::Error> {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.into_iter().find_map(|cause| cause.downcast_ref())
}

/// An error that several calls get.
#[derive(Clone, Debug)]
pub struct SharedError(Arc<Error>);

impl SharedError {
    pub fn new(error: Error) -> Self {
        Self(Arc::new(error))
    }

    /// The error for one of the calls.
    pub fn copy(&self) -> Error {
        let (kind, message) =
            cause(&self.0).map_or((self.0.kind(), "a request of several calls failed"), describe);
        Error::new(kind, message).with_source(self.clone())
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("other calls that waited for the same failed with this one")
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

/// Whether the server takes no writes on this connection: the name may have led to a standby, or the
/// session began while the server was read-only.
pub fn is_read_only(error: &sqlx::Error) -> bool {
    code(error) == Some("25006")
}

/// Whether the transaction wrote nothing because another one got in its way, so that it may succeed
/// if it is sent again: serialization failure, deadlock, unique violation.
pub fn is_race(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("40001" | "40P01" | "23505")) && !is_position_taken(error)
}

/// Whether the sequence gave an append a position that an event has already. Sending the append
/// again would only take the next position, until it falls into the place of a removed event.
fn is_position_taken(error: &sqlx::Error) -> bool {
    code(error) == Some("23505")
        && error.as_database_error().is_some_and(|error| {
            // The tables of annals, and those of Marten without partitions and with them.
            let names = ["events_pkey", "pkey_mt_events_seq_id", "mt_events_default_pkey"];
            error.constraint().is_some_and(|name| names.contains(&name))
        })
}

/// The database holds something that no store writes.
pub fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}

/// A bug in this crate.
pub fn internal(message: &'static str) -> Error {
    Error::new(ErrorKind::Internal, message)
}

/// The Tokio runtime of the caller.
pub fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "this needs a Tokio runtime").with_source(e)
    })
}

/// The answer to a call whose task was dropped with its runtime.
pub fn runtime_ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the Tokio runtime is shutting down")
}
