//! Turns errors of PostgreSQL and sqlx into errors of annals, for the whole crate.

use annals_core::{Error, ErrorKind, adapter};
pub(crate) use annals_postgres_shared::error::{code, corrupt, internal, runtime, runtime_ended};

/// The backend's name in errors and capabilities.
pub(crate) const BACKEND: &str = "marten";

/// Adds the backend and the operation to an error.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    adapter::context(BACKEND, operation)
}

/// Turns an error of the driver into one that says what to do about it.
pub(crate) fn driver(error: sqlx::Error) -> Error {
    let (kind, message) = match code(&error) {
        // Raised by the function `append`.
        Some("AN002") => (
            ErrorKind::Unsupported,
            "the .NET program keeps event ids unique (`EnableUniqueIndexOnEventId`), and an event \
             with this id is there already",
        ),
        // A NOT NULL column that annals does not fill, a foreign key, a check.
        Some("23502" | "23503" | "23514") => (
            ErrorKind::Incompatible,
            "Marten's tables have changed while the store was open; open the store again",
        ),
        _ => return annals_postgres_shared::error::driver(error),
    };
    Error::new(kind, message).with_source(error)
}
