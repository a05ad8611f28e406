//! Brings the schema to the version that this build knows.

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::{
    PostgresStore,
    error::{code, driver},
    sql::quoted,
};

/// What leads to each version, the first to version 1. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &[include_str!("../schema/0001.sql")];

/// The version that this build knows.
const CURRENT: i32 = MIGRATIONS.len() as i32;

impl PostgresStore {
    /// The version of the schema that this build reads and writes. The one that is there is the
    /// greatest in the table `migrations` of the schema.
    pub const SCHEMA_VERSION: i32 = CURRENT;
}

/// Looks whether the schema is that of this build, and brings it there where `migrate` allows it.
/// Safe when several processes do so at once.
pub(crate) async fn run(connection: &mut PgConnection, schema: &str, migrate: bool) -> Result<()> {
    check_settings(connection).await?;
    let found = version(connection, schema).await?;
    if found == CURRENT {
        return Ok(());
    }
    if !migrate {
        let message = format!(
            "the schema {schema:?} has version {found}, and this version of annals needs \
             {CURRENT}; open it once with `migrate` on, by a role that may create it"
        );
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    let mut transaction = connection.begin().await.map_err(driver)?;
    // One at a time: the others find it done.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('annals schema ' || $1, 0))")
        .bind(schema)
        .execute(&mut *transaction)
        .await
        .map_err(driver)?;
    let found = version(&mut transaction, schema).await?;
    // Where it is there, `CREATE SCHEMA IF NOT EXISTS` wants to be allowed to create one all the same.
    if found == 0 && !exists(&mut transaction, schema).await? {
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
        transaction.execute(AssertSqlSafe(create)).await.map_err(driver)?;
    }
    for (to, migration) in (1..).zip(MIGRATIONS) {
        if to <= found {
            continue;
        }
        tracing::debug!(schema, to, "migrating the schema");
        let text = migration.replace("{schema}", &quoted(schema));
        transaction.execute(AssertSqlSafe(text)).await.map_err(|error| {
            // Something of that name is there already.
            if matches!(code(&error), Some("42P07" | "42723" | "42710")) {
                foreign(schema).with_source(error)
            } else {
                driver(error)
            }
        })?;
        let ledger = format!("INSERT INTO {}.migrations (version) VALUES ($1)", quoted(schema));
        let done = sqlx::query(AssertSqlSafe(ledger)).bind(to).execute(&mut *transaction).await;
        done.map_err(driver)?;
    }
    transaction.commit().await.map_err(driver)
}

/// Refuses a database in which a store cannot keep its promises.
async fn check_settings(connection: &mut PgConnection) -> Result<()> {
    let text = "SELECT current_setting('server_encoding'), \
                current_setting('default_transaction_isolation')";
    let row = sqlx::query(text).fetch_one(connection).await.map_err(driver)?;
    let setting = |column| row.try_get::<String, _>(column).map_err(driver);
    let (encoding, isolation) = (setting(0)?, setting(1)?);
    let message = if encoding != "UTF8" {
        // Names and types are kept as text, which has to hold any character.
        format!("the database has the encoding {encoding}; create one with UTF8")
    } else if isolation != READ_COMMITTED {
        // An append judges a stream by what it finds once it has the lock on it.
        format!(
            "the pool's connections have the isolation level {isolation}; set \
             `default_transaction_isolation` to '{READ_COMMITTED}' for the role, or on each \
             connection of the pool"
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Incompatible, message))
}

const READ_COMMITTED: &str = "read committed";

/// For connections of the store's own: whatever the role or the database has by default. To compile
/// a statement costs more than any of the store's does, and large tables would make the planner do
/// it. And every statement has its index: with a hundred streams the planner would rather scan them
/// for each event, which takes two and a half times as long.
pub(crate) async fn set_up(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Not prepared, since a pooler may not keep what is.
    let text = "SET default_transaction_isolation = 'read committed'; SET jit = off; \
                SET enable_seqscan = off";
    sqlx::raw_sql(text).execute(connection).await.map(drop)
}

/// Whether there is a schema of that name, whatever it holds.
async fn exists(connection: &mut PgConnection, schema: &str) -> Result<bool> {
    let text = "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = $1";
    let row = sqlx::query(text).bind(schema).fetch_one(connection).await;
    let found: i64 = row.and_then(|row| row.try_get(0)).map_err(driver)?;
    Ok(found > 0)
}

/// The version of the schema that is there; 0 where there is none.
///
/// # Errors
/// [`ErrorKind::Incompatible`] where it is newer than this build, or not that of a store.
async fn version(connection: &mut PgConnection, schema: &str) -> Result<i32> {
    let ledger = format!("{}.migrations", quoted(schema));
    // Asks the catalogue, since a name cannot be looked up in a schema that one may not use.
    let row = sqlx::query(
        "SELECT count(*) FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = 'migrations'",
    )
    .bind(schema)
    .fetch_one(&mut *connection)
    .await;
    let found: i64 = row.and_then(|row| row.try_get(0)).map_err(driver)?;
    if found == 0 {
        return Ok(0);
    }
    let text = format!("SELECT max(version) FROM {ledger}");
    let found = sqlx::query(AssertSqlSafe(text)).fetch_one(connection).await;
    let version = found.and_then(|row| row.try_get::<Option<i32>, _>(0));
    match version {
        Ok(Some(version)) if version > CURRENT => {
            let message = format!(
                "the schema {schema:?} has version {version}, and this version of annals knows \
                 none beyond {CURRENT}; upgrade annals"
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
