//! The table of checkpoints, and its statements.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Result};

/// The table of a sink that was given no other.
const TABLE: &str = "\"annals_projections\"";
/// The longest name that PostgreSQL keeps whole.
const MAX_NAME: usize = 63;

/// The statements of a sink, with the name of its table put in. Values are always bound.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) look: Arc<str>,
    pub(super) create: Arc<str>,
    pub(super) position: Arc<str>,
    pub(super) start: Arc<str>,
    pub(super) advance: Arc<str>,
}

impl Default for Sql {
    fn default() -> Self {
        Self::new(TABLE)
    }
}

impl Sql {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that cannot be put into a statement safely.
    pub(super) fn for_table(table: &str) -> Result<Self> {
        Ok(Self::new(&quoted(table)?))
    }

    /// `table` is a checked and quoted name.
    fn new(table: &str) -> Self {
        let text = |text: &str| text.replace("{table}", table).into();
        Self {
            look: text("SELECT name, position, moved_at FROM {table} LIMIT 0"),
            create: text(
                "CREATE TABLE IF NOT EXISTS {table} (name text PRIMARY KEY, \
                 position bigint NOT NULL, moved_at timestamptz NOT NULL DEFAULT now())",
            ),
            position: text("SELECT position FROM {table} WHERE name = $1"),
            start: text(
                "INSERT INTO {table} (name, position) VALUES ($1, $2) \
                 ON CONFLICT (name) DO NOTHING",
            ),
            advance: text(
                "UPDATE {table} SET position = $2, moved_at = now() \
                 WHERE name = $1 AND position = $3",
            ),
        }
    }
}

/// The name as it stands in a statement, in quotes.
fn quoted(table: &str) -> Result<String> {
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_name = |name: &str| {
        name.chars().all(plain)
            && name.starts_with(|c: char| !c.is_ascii_digit())
            && name.len() <= MAX_NAME
            // PostgreSQL's own schemas, and those of temporary tables.
            && !name.starts_with("pg_")
    };
    let parts: Vec<_> = table.split('.').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_name(part)) {
        return Ok(format!("\"{}\"", parts.join("\".\"")));
    }
    let message = format!(
        "the table is {table:?}; use the name of a table, or of a schema and a table with a dot \
         between them, each of at most {MAX_NAME} small letters, digits and `_`, without a digit or \
         `pg_` at its beginning"
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn only_plain_names_become_part_of_a_text() {
        for (table, text) in [("a", "\"a\""), ("_a1.b_2", "\"_a1\".\"b_2\"")] {
            assert_eq!(quoted(table).unwrap(), text);
        }
        let long = "a".repeat(64);
        for table in
            ["", ".", "a.", ".a", "a.b.c", "A", "a\"", "a b", "1a", "pg_temp.a", "ä", &long]
        {
            assert!(quoted(table).is_err(), "{table}");
        }
    }
}
