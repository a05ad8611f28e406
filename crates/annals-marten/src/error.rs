//! Turns errors of PostgreSQL and sqlx into errors of annals, for the whole crate.

use annals_core::{Error, ErrorKind, adapter};
use annals_postgres_shared::error::code;
pub(crate) use annals_postgres_shared::error::{corrupt, driver, internal, runtime, runtime_ended};

/// The backend's name in errors and capabilities.
pub(crate) const BACKEND: &str = "marten";

/// Adds the backend and the operation to an error.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    adapter::context(BACKEND, operation)
}

/// Says in the error of a statement that writes that Marten's tables are no longer as they were when the
/// store was opened, if so.
pub(crate) fn written(error: Error) -> Error {
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
    match source.and_then(code) {
        // A column that annals does not fill, a foreign key, a check.
        Some("23502" | "23503" | "23514") => {
            let message =
                "Marten's tables have changed while the store was open; open the store again";
            Error::new(ErrorKind::Incompatible, message).with_source(error)
        }
        _ => error,
    }
}

/// The error for an event whose id another event has already.
pub(crate) fn id_taken() -> Error {
    let message = "the .NET program keeps event ids unique (`EnableUniqueIndexOnEventId`), and an event \
                   with this id is there already";
    Error::new(ErrorKind::Unsupported, message)
}
