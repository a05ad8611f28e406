//! Creates the tables, and migrates them to the version of the schema that this build knows.
//!
//! The version is kept in a table of the store. `PRAGMA user_version` belongs to the application,
//! because a file has only one.

use annals_core::{Error, ErrorKind};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use crate::{busy::BusyRetry, error::Failure, sql::Sql};

/// The migration to each version, beginning with version 1. Add entries, but never change one.
const MIGRATIONS: &[&str] = &[include_str!("../schema/0001.sql")];

/// The newest version of the schema that this build knows.
pub(crate) const CURRENT: i64 = MIGRATIONS.len() as i64;

/// The version of the schema in the file; 0 if the store has no tables yet.
///
/// # Errors
/// [`ErrorKind::Incompatible`] if the version is newer than this build, or if the tables are not
/// those of a store.
pub(crate) fn version(connection: &Connection, sql: &Sql, prefix: &str) -> Result<i64, Failure> {
    let version = found(connection, sql, prefix)?;
    if version > CURRENT {
        let message = format!(
            "the store has schema version {version}, but this version of annals knows only the \
             versions up to {CURRENT}; upgrade annals"
        );
        return Err(Error::new(ErrorKind::Incompatible, message).into());
    }
    Ok(version)
}

/// Like [`version`], but also returns a version that is newer than this build.
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

/// Runs the missing migrations in one transaction. Several processes can do this at the same time:
/// each reads the version again after it has taken the lock.
pub(crate) fn run(
    connection: &Connection,
    sql: &Sql,
    prefix: &str,
    busy: &mut BusyRetry,
) -> Result<(), Failure> {
    if busy.retry(|| version(connection, sql, prefix))? == CURRENT {
        return Ok(());
    }
    busy.retry(|| Ok(connection.execute_batch("BEGIN IMMEDIATE")?))?;
    let migrated = migrate(connection, sql, prefix)
        .and_then(|()| busy.retry(|| Ok(connection.execute_batch("COMMIT")?)));
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

/// Whether SQLite reports that a table already exists, or that a column does not exist.
fn is_foreign(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

fn foreign(prefix: &str) -> Error {
    let message = format!(
        "the file has tables named `{prefix}_…` that do not belong to an annals store; choose \
         another `prefix`"
    );
    Error::new(ErrorKind::Incompatible, message)
}
