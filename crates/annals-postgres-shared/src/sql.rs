//! Statements whose text names a schema.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Encode, Postgres, Type, postgres::PgArguments};

use crate::literal::{self, Literal};

/// The name of a schema for SQL text. [`check_schema`] lets only plain names pass.
pub fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// A value of a statement.
pub trait Value<'q>: Send {
    /// Binds the value to a query of the driver.
    fn bind(self: Box<Self>, query: Query<'q>) -> Query<'q>;

    /// Appends the value to the text of a statement.
    fn write(&self, to: &mut String);

    /// About how many bytes its text takes, if it may take many.
    fn size(&self) -> usize;
}

impl<'q, T> Value<'q> for T
where
    T: Literal + Encode<'q, Postgres> + Type<Postgres> + Send + 'q,
{
    fn bind(self: Box<Self>, query: Query<'q>) -> Query<'q> {
        query.bind(*self)
    }

    fn write(&self, to: &mut String) {
        literal::write(self, to);
    }

    fn size(&self) -> usize {
        Literal::size(self)
    }
}

/// A statement with values as the driver knows it.
pub type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// A statement with its values.
pub struct Statement<'q> {
    text: Arc<str>,
    values: Vec<Box<dyn Value<'q> + 'q>>,
    in_binary: bool,
}

/// A statement of a store, without values. It names PostgreSQL's functions with their schema if they
/// take arrays or unknown literals: somebody may have created a function of that name which fits
/// better, in a schema that the session searches. `unnest` of several arrays is syntax.
pub fn query<'q>(text: &Arc<str>) -> Statement<'q> {
    Statement { text: text.clone(), values: Vec::new(), in_binary: false }
}

impl<'q> Statement<'q> {
    #[must_use]
    pub fn bind(mut self, value: impl Value<'q> + 'q) -> Self {
        self.values.push(Box::new(value));
        self
    }

    /// Has the server answer in the binary form of values always, as some decoders expect.
    #[must_use]
    pub fn in_binary(mut self) -> Self {
        self.in_binary = true;
        self
    }

    /// The statement with bound values. A connection prepares it when it first runs it, and if it is
    /// `persistent`, does so only once.
    pub fn into_query(self, persistent: bool) -> Query<'q> {
        // Safe: the only parts of the text that are not constant are schemas, which are plain names.
        let query = sqlx::query(AssertSqlSafe(self.text)).persistent(persistent);
        self.values.into_iter().fold(query, |query, value| value.bind(query))
    }

    /// The statement with its values in its text, which takes one request. `None` if its answer has to
    /// be in binary, or if the text would be long: the server would take longer to read it than the
    /// requests take that it saves.
    pub fn written_out(&self) -> Option<String> {
        /// Bytes.
        const MOST: usize = 256 * 1024;
        if self.in_binary || self.values.iter().map(|value| value.size()).sum::<usize>() > MOST {
            return None;
        }
        let mut parts = self.text.split('$');
        let mut written = parts.next()?.to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let (number, rest) = part.split_at(end);
            let number: usize = number.parse().ok()?;
            self.values.get(number.checked_sub(1)?)?.write(&mut written);
            written.push_str(rest);
        }
        Some(written)
    }
}

/// The last number that a sequence has given, 0 if it has given none; NULL if the role may not know it.
#[doc(hidden)]
#[macro_export]
macro_rules! last_given {
    ($sequence:literal) => {
        concat!(
            "CASE WHEN pg_catalog.has_sequence_privilege('",
            $sequence,
            "', 'USAGE, SELECT') THEN coalesce(pg_catalog.pg_sequence_last_value('",
            $sequence,
            "'::pg_catalog.regclass), 0) END"
        )
    };
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
