//! Statements whose text names a schema.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Postgres, postgres::PgArguments, query::Query};

/// The name of a schema for SQL text. [`check_schema`] lets only plain names pass.
pub fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// A statement with its values.
pub type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A statement of a store, without values. It names PostgreSQL's functions with their schema if they
/// take arrays or unknown literals: somebody may have created a function of that name which fits
/// better, in a schema that the session searches. `unnest` of several arrays is syntax. A connection
/// prepares it when it first runs it.
pub fn query<'q>(text: &Arc<str>) -> Statement<'q> {
    // Safe: the only parts of the text that are not constant are schemas, which are plain names.
    sqlx::query(AssertSqlSafe(text.clone()))
}

/// Lets only plain names pass, since the schema becomes part of SQL text. `parameter` is what the
/// error calls it.
pub fn check_schema(parameter: &str, schema: &str) -> Result<()> {
    /// The most bytes that PostgreSQL keeps of a name.
    const MAX: usize = 63;
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let named = schema.starts_with(|c: char| c == '_' || c.is_ascii_lowercase())
        && schema.chars().all(plain)
        && schema.len() <= MAX;
    if named && !schema.starts_with("pg_") && schema != "information_schema" {
        return Ok(());
    }
    let message = format!(
        "`{parameter}` is {schema:?}; use a lower-case letter or `_`, then at most {} lower-case \
         letters, digits and `_`, and no name that begins with `pg_`",
        MAX - 1
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}
