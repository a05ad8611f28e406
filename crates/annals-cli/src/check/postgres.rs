//! Inspects a schema in PostgreSQL.

use annals::{
    Backend, EventStore,
    postgres::{
        PostgresConfig, PostgresStore,
        sqlx::{self, AssertSqlSafe, ConnectOptions, PgConnection, Row},
    },
};

use crate::{check::CheckReport, failure::Failure};

/// The oldest supported server, as a `server_version_num`.
const OLDEST: i32 = 140_000;

/// The privileges that a role needs besides `USAGE` on the schema. The documentation of
/// annals-postgres says what each is for.
const PRIVILEGES: [(&str, &[&str]); 7] = [
    ("events", &["SELECT", "INSERT"]),
    ("streams", &["SELECT", "INSERT"]),
    ("checkpoints", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("snapshots", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("leases", &["SELECT", "INSERT", "UPDATE"]),
    ("migrations", &["SELECT"]),
    ("store", &["SELECT"]),
];

pub(super) async fn inspect(url: &str) -> Result<CheckReport, Failure> {
    let mut config = PostgresConfig::from_url(url)?;
    config.options.migrate = false;
    let mut report = CheckReport::new(Backend::Postgres);
    report.facts.push(("database", database(&config)));
    // Open the store first: that sets up TLS, and detects a pooler, a wrong encoding and the like.
    let opened = PostgresStore::open(config.clone()).await;
    if let Ok(store) = &opened {
        report.capabilities = Some(store.capabilities().clone());
    }
    let connected = match &opened {
        Err(error) if !is_beyond_login(error) => None,
        _ => config.connect.connect().await.ok(),
    };
    let known = match connected {
        Some(mut connection) => {
            report.facts.push(("user", config.connect.get_username().to_owned()));
            examine(&mut connection, &config.options.schema, &mut report).await
        }
        None => Ok(false),
    };
    match (opened, known) {
        // The problems that were found explain the error.
        (Err(_), Ok(true)) => {}
        (Err(error), _) => report.error(error),
        (Ok(_), Err(error)) => report.problem(
            format!("the server refused a query: {error}"),
            "look at the privileges of the role",
        ),
        (Ok(_), Ok(_)) => {}
    }
    Ok(report)
}

/// The user is only shown once the server has accepted it: in a URL that is written wrongly, part of
/// the password may stand in its place.
fn database(config: &PostgresConfig) -> String {
    config.connect.get_database().unwrap_or("that with the name of the user").to_owned()
}

/// Whether the error may have come after the login, so that another connection may work.
fn is_beyond_login(error: &annals::Error) -> bool {
    use annals::ErrorKind::{Busy, Corrupt, Denied, Incompatible, Internal};
    matches!(error.kind(), Busy | Corrupt | Denied | Incompatible | Internal)
}

/// Reports what a connection can find out. Returns whether it has found a problem.
async fn examine(
    connection: &mut PgConnection,
    schema: &str,
    report: &mut CheckReport,
) -> sqlx::Result<bool> {
    let server = "SELECT current_setting('server_version'), \
                  current_setting('server_version_num')::int, pg_is_in_recovery(), \
                  has_database_privilege(current_database(), 'CREATE')";
    let row = sqlx::query(server).fetch_one(&mut *connection).await?;
    let version: String = row.try_get(0)?;
    report.server = Some(format!("PostgreSQL {version}"));
    let mut found = false;
    if row.try_get::<i32, _>(1)? < OLDEST {
        report.problem(format!("PostgreSQL {version} is too old"), "use version 14 or newer");
        found = true;
    }
    if row.try_get(2)? {
        report.problem("the server is a standby, which takes no writes", "name the primary");
        found = true;
    }
    let may_create: bool = row.try_get(3)?;
    let tables = "SELECT count(*) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n \
                  ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'migrations'";
    let tables: i64 =
        sqlx::query(tables).bind(schema).fetch_one(&mut *connection).await?.try_get(0)?;
    let needed = i64::from(PostgresStore::SCHEMA_VERSION);
    if tables == 0 {
        report.schema(None, needed, &format!("the schema {schema}"));
        if !may_create {
            let fix = "use a role that may, or `GRANT CREATE ON DATABASE …`";
            report.problem("this role may not create the schema", fix);
        }
        return Ok(true);
    }
    let missing = missing_privileges(connection, schema).await?;
    if !missing.is_empty() {
        let fix = "grant the privileges that the documentation of annals-postgres lists";
        report.problem(format!("the role lacks {}", missing.join(", ")), fix);
        // Without `USAGE` on the schema, the next query may fail.
        found = true;
    }
    // `from_url` lets only small letters, digits and `_` pass as a schema.
    let version = format!("SELECT max(version)::bigint FROM \"{schema}\".migrations");
    let version = match sqlx::query(AssertSqlSafe(version)).fetch_one(connection).await {
        Err(_) if found => return Ok(true),
        row => row?.try_get::<Option<i64>, _>(0)?,
    };
    let is_current = report.schema(version, needed, &format!("the schema {schema}"));
    Ok(found || !is_current)
}

async fn missing_privileges(
    connection: &mut PgConnection,
    schema: &str,
) -> sqlx::Result<Vec<String>> {
    let usage = sqlx::query("SELECT has_schema_privilege($1, 'USAGE')").bind(schema);
    if !usage.fetch_one(&mut *connection).await?.try_get::<bool, _>(0)? {
        return Ok(vec![format!("USAGE on the schema {schema}")]);
    }
    let mut missing = Vec::new();
    for (table, privileges) in PRIVILEGES {
        // The catalogue has no row for a missing table, and so no privilege is reported for it.
        let text = "SELECT has_table_privilege(c.oid, $3) FROM pg_catalog.pg_class AS c \
                    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                    WHERE n.nspname = $1 AND c.relname = $2";
        for privilege in privileges {
            let query = sqlx::query(text).bind(schema).bind(table).bind(*privilege);
            let row = query.fetch_optional(&mut *connection).await?;
            if let Some(row) = row
                && !row.try_get::<bool, _>(0)?
            {
                missing.push(format!("{privilege} on {schema}.{table}"));
            }
        }
    }
    let text = "SELECT has_sequence_privilege(c.oid, 'USAGE') FROM pg_catalog.pg_class AS c \
                JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                WHERE n.nspname = $1 AND c.relname = 'positions' AND c.relkind = 'S'";
    let row = sqlx::query(text).bind(schema).fetch_optional(connection).await?;
    if let Some(row) = row
        && !row.try_get::<bool, _>(0)?
    {
        missing.push(format!("USAGE on the sequence {schema}.positions"));
    }
    Ok(missing)
}
