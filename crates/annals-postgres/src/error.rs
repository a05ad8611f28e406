//! Turns errors of PostgreSQL and sqlx into errors of annals, for the whole crate.

use annals_core::{Error, adapter};
pub(crate) use annals_postgres_shared::error::*;

/// The backend's name in errors and capabilities.
pub(crate) const BACKEND: &str = "postgres";

/// Adds the backend and the operation to an error.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    adapter::context(BACKEND, operation)
}
