//! Brings the tables to the version of the schema that this build knows.
//!
//! The version stands in a table of the store's own: `PRAGMA user_version` belongs to the
//! application, and there is only one in a file.

use annals_core::{Error, ErrorKind};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use crate::{busy::Patience, error::Failure, sql::Sql};

/// What leads to each version, the first to version 1. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &[include_str!("../schema/0001.sql")];

/// The version that this build knows.
pub(crate) const CURRENT: i64 = MIGRATIONS.len() as i64;

/// The version of the tables that are there; 0 where there are none.
///
/// # Errors
/// [`ErrorKind::Incompatible`] where they are newer than this build, or not those of a store.
pub(crate) fn version(connection: &Connection, sql: &Sql, prefix: &str) -> Result<i64, Failure> {
    let version = found(connection, sql, prefix)?;
    if version > CURRENT {
        let message = format!(
            "the store has schema version {version}, and this version of annals knows none beyond \
             {CURRENT}; upgrade annals"
        );
        return Err(Error::new(ErrorKind::Incompatible, message).into());
    }
    Ok(version)
}

/// [`version`], be it newer than this build or not.
pub(crate) fn found(connection: &Connection, sql: &Sql, prefix: &str) -> Result<i64, Failure> {
    let found: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE",
        [format!("{prefix}_meta")],
        |row| row.get(0),
    )?;
    if found == 0 {
        return Ok(0);
    }
    let version = connection.query_row(&sql.schema_version, [], |row| row.get(0)).optional();
    match version {
        Ok(Some(version)) if version > 0 => Ok(version),
        Ok(_) => Err(foreign(prefix).into()),
        Err(error) if is_foreign(&error) => Err(foreign(prefix).with_source(error).into()),
        Err(error) => Err(error.into()),
    }
}

/// Runs the migrations that are missing, in one transaction. Safe when several processes do so at
/// once: the lock is taken before the version is read.
pub(crate) fn run(
    connection: &Connection,
    sql: &Sql,
    prefix: &str,
    patience: &mut Patience,
) -> Result<(), Failure> {
    if patience.retry(|| version(connection, sql, prefix))? == CURRENT {
        return Ok(());
    }
    patience.retry(|| Ok(connection.execute_batch("BEGIN IMMEDIATE")?))?;
    let migrated = migrate(connection, sql, prefix)
        .and_then(|()| patience.retry(|| Ok(connection.execute_batch("COMMIT")?)));
    if migrated.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    migrated
}

fn migrate(connection: &Connection, sql: &Sql, prefix: &str) -> Result<(), Failure> {
    let from = version(connection, sql, prefix)?;
    for (to, migration) in (1..).zip(MIGRATIONS) {
        if to <= from {
            continue;
        }
        tracing::debug!(prefix, to, "migrating the schema");
        connection.execute_batch(&migration.replace("{prefix}", prefix)).map_err(|error| {
            if is_foreign(&error) {
                Failure::from(foreign(prefix).with_source(error))
            } else {
                error.into()
            }
        })?;
        connection.execute(&sql.set_schema_version, [to])?;
    }
    Ok(())
}

/// What SQLite says where a table of that name is there already, or a column is not.
fn is_foreign(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

fn foreign(prefix: &str) -> Error {
    let message = format!(
        "the file has tables named `{prefix}_…` that are not those of an annals store; choose \
         another `prefix`"
    );
    Error::new(ErrorKind::Incompatible, message)
}
