//! Brings the schema of a store to the version that this build knows.
//!
//! The statements are simple queries, without prepared statements, which a pooler of transactions
//! would lose. The name of the schema is part of their text: only plain names pass.

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::{
    error::{code, driver},
    sql::quoted,
};

/// The scripts of a store.
#[derive(Clone, Copy, Debug)]
pub struct Migrations<'a> {
    /// The scripts that lead to each version, the first one to version 1. A script is never changed
    /// in what it does: add another one.
    pub scripts: &'static [&'static str],
    /// What to put in place of other words in a script than `{schema}`, `{name}` and `{key}`.
    pub words: &'a [(&'a str, &'a str)],
}

impl Migrations<'_> {
    /// The version that this build knows.
    pub const fn current(&self) -> i32 {
        self.scripts.len() as i32
    }
}

/// Checks that the schema has the version of this build, and migrates an older or missing one if
/// `migrate` allows it. Safe when several processes do so at once.
pub async fn run(
    connection: &mut PgConnection,
    schema: &str,
    migrations: Migrations<'_>,
    migrate: bool,
) -> Result<()> {
    let current = migrations.current();
    let found = version(connection, schema, current).await?;
    if found == current {
        return Ok(());
    }
    if !migrate {
        let message = format!(
            "the schema {schema:?} has version {found}, and this version of annals needs \
             {current}; open it once with `migrate` on, by a role that may create it"
        );
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    let mut transaction = connection.begin().await.map_err(driver)?;
    // A migration may take longer than a request. Its names must not mean what somebody created in
    // a schema that the session searches.
    let settings = "SET LOCAL statement_timeout = 0; SET LOCAL search_path = pg_catalog, pg_temp";
    transaction.execute(settings).await.map_err(driver)?;
    // One process migrates at a time. The others wait here, and then find the migration done.
    let lock =
        format!("SELECT pg_advisory_xact_lock(hashtextextended('annals schema {schema}', 0))");
    transaction.execute(AssertSqlSafe(lock)).await.map_err(driver)?;
    let found = version(&mut transaction, schema, current).await?;
    // `CREATE SCHEMA IF NOT EXISTS` needs the privilege to create one even if the schema exists.
    if found == 0 && !exists(&mut transaction, schema).await? {
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
        transaction.execute(AssertSqlSafe(create)).await.map_err(driver)?;
    }
    for (to, migration) in (1..).zip(migrations.scripts) {
        if to <= found {
            continue;
        }
        tracing::debug!(schema, to, "migrating the schema");
        // `check_schema` lets only plain names pass, so the literal needs no escapes.
        let mut text = migration
            .replace("{schema}", &quoted(schema))
            .replace("{name}", &format!("'{schema}'"))
            .replace("{key}", &fastrand::i32(1..).to_string());
        for (word, by) in migrations.words {
            text = text.replace(word, by);
        }
        transaction.execute(AssertSqlSafe(text)).await.map_err(|error| {
            // These codes say that a table, function or other object of this name exists already.
            if matches!(code(&error), Some("42P07" | "42723" | "42710")) {
                foreign(schema).with_source(error)
            } else {
                driver(error)
            }
        })?;
        let record = format!("INSERT INTO {}.migrations (version) VALUES ({to})", quoted(schema));
        transaction.execute(AssertSqlSafe(record)).await.map_err(driver)?;
    }
    transaction.commit().await.map_err(driver)
}

/// Whether there is a schema of that name, whatever is in it.
pub async fn exists(connection: &mut PgConnection, schema: &str) -> Result<bool> {
    let text = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace WHERE nspname = '{schema}'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(connection).await;
    let found: i64 = row.and_then(|row| row.try_get(0)).map_err(driver)?;
    Ok(found > 0)
}

/// The version of the schema in the database; 0 if there is none.
///
/// # Errors
/// [`ErrorKind::Incompatible`] if the schema is newer than this build, or is not that of a store.
async fn version(connection: &mut PgConnection, schema: &str, current: i32) -> Result<i32> {
    // Ask the catalogue: without the privilege USAGE on a schema, a name in it cannot be resolved.
    let text = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{schema}' AND c.relname = 'migrations'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(&mut *connection).await;
    let found: i64 = row.and_then(|row| row.try_get(0)).map_err(driver)?;
    if found == 0 {
        return Ok(0);
    }
    let text = format!("SELECT pg_catalog.max(version) FROM {}.migrations", quoted(schema));
    let found = sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(connection).await;
    let version = found.and_then(|row| row.try_get::<Option<i32>, _>(0));
    match version {
        Ok(Some(version)) if version > current => {
            let message = format!(
                "the schema {schema:?} has version {version}, and this version of annals knows \
                 no version after {current}; upgrade annals"
            );
            Err(Error::new(ErrorKind::Incompatible, message))
        }
        Ok(Some(version)) if version > 0 => Ok(version),
        Ok(_) => Err(foreign(schema)),
        Err(error @ sqlx::Error::ColumnDecode { .. }) => Err(foreign(schema).with_source(error)),
        Err(error) if matches!(code(&error), Some("42703" | "42809")) => {
            Err(foreign(schema).with_source(error))
        }
        Err(error) => Err(driver(error)),
    }
}

fn foreign(schema: &str) -> Error {
    let message = format!(
        "the schema {schema:?} holds tables that are not those of an annals store; choose another \
         `schema`"
    );
    Error::new(ErrorKind::Incompatible, message)
}
