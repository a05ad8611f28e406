//! A look at a schema in PostgreSQL.

use annals::{
    EventStore,
    postgres::{
        PostgresConfig, PostgresStore,
        sqlx::{self, AssertSqlSafe, ConnectOptions, PgConnection, Row},
    },
};

use crate::{check::Findings, failure::Failure};

/// The oldest server, as in `server_version_num`.
const OLDEST: i32 = 140_000;

/// What a role needs beside `USAGE` of the schema: the documentation of annals-postgres says for
/// what.
const PRIVILEGES: [(&str, &[&str]); 7] = [
    ("events", &["SELECT", "INSERT"]),
    ("streams", &["SELECT", "INSERT"]),
    ("checkpoints", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("snapshots", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("leases", &["SELECT", "INSERT", "UPDATE"]),
    ("migrations", &["SELECT"]),
    ("store", &["SELECT"]),
];

pub(super) async fn look(url: &str) -> Result<Findings, Failure> {
    let mut config = PostgresConfig::from_url(url)?;
    config.options.migrate = false;
    let mut findings = Findings::new("postgres");
    findings.facts.push(("database", place(&config)));
    // First, since it sets up TLS, and finds out a pooler, the wrong encoding and the like.
    let opened = PostgresStore::open(config.clone()).await;
    if let Ok(store) = &opened {
        findings.capabilities = Some(store.capabilities().clone());
    }
    let connected = match &opened {
        Err(error) if !is_beyond_login(error) => None,
        _ => config.connect.connect().await.ok(),
    };
    let known = match connected {
        Some(mut connection) => {
            examine(&mut connection, &config.options.schema, &mut findings).await
        }
        None => Ok(false),
    };
    match (opened, known) {
        // What was found says why.
        (Err(_), Ok(true)) => {}
        (Err(error), _) => findings.error(error),
        (Ok(_), Err(error)) => findings.problem(
            format!("the server refused a question: {error}"),
            "look at the privileges of the role",
        ),
        (Ok(_), Ok(_)) => {}
    }
    Ok(findings)
}

fn place(config: &PostgresConfig) -> String {
    let database = config.connect.get_database().unwrap_or(config.connect.get_username());
    format!("{database}, as {}", config.connect.get_username())
}

/// Whether the server let the role in before this error came.
fn is_beyond_login(error: &annals::Error) -> bool {
    use annals::ErrorKind::{Busy, Corrupt, Denied, Incompatible, Internal};
    matches!(error.kind(), Busy | Corrupt | Denied | Incompatible | Internal)
}

/// Whether it has found what has to be mended.
async fn examine(
    connection: &mut PgConnection,
    schema: &str,
    findings: &mut Findings,
) -> sqlx::Result<bool> {
    let server = "SELECT current_setting('server_version'), \
                  current_setting('server_version_num')::int, pg_is_in_recovery(), \
                  has_database_privilege(current_database(), 'CREATE')";
    let row = sqlx::query(server).fetch_one(&mut *connection).await?;
    let version: String = row.try_get(0)?;
    findings.server = Some(format!("PostgreSQL {version}"));
    let mut found = false;
    if row.try_get::<i32, _>(1)? < OLDEST {
        findings.problem(format!("PostgreSQL {version} is too old"), "use version 14 or newer");
        found = true;
    }
    if row.try_get(2)? {
        findings.problem("the server is a standby, which takes no writes", "name the primary");
        found = true;
    }
    let may_create: bool = row.try_get(3)?;
    let tables = "SELECT count(*) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n \
                  ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'migrations'";
    let tables: i64 =
        sqlx::query(tables).bind(schema).fetch_one(&mut *connection).await?.try_get(0)?;
    let needed = i64::from(PostgresStore::SCHEMA_VERSION);
    if tables == 0 {
        findings.schema(None, needed, &format!("the schema {schema}"));
        if !may_create {
            let mend = "let a role create it that may: `GRANT CREATE ON DATABASE …`";
            findings.problem("this role may not create it", mend);
        }
        return Ok(true);
    }
    let missing = missing_privileges(connection, schema).await?;
    if !missing.is_empty() {
        let mend = "grant that, as the documentation of annals-postgres lists it";
        findings.problem(format!("the role lacks {}", missing.join(", ")), mend);
        // Without `USAGE` nothing more can be asked.
        found = true;
    }
    // The name has passed the check of a schema: small letters, digits and `_`.
    let version = format!("SELECT max(version)::bigint FROM \"{schema}\".migrations");
    let version = match sqlx::query(AssertSqlSafe(version)).fetch_one(connection).await {
        Err(_) if found => return Ok(true),
        row => row?.try_get::<Option<i64>, _>(0)?,
    };
    let is_current = findings.schema(version, needed, &format!("the schema {schema}"));
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
        // By the catalogue: a table that is not there is none to lack a privilege on.
        let text = "SELECT has_table_privilege(c.oid, $3) FROM pg_catalog.pg_class AS c \
                    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                    WHERE n.nspname = $1 AND c.relname = $2";
        for privilege in privileges {
            let asked = sqlx::query(text).bind(schema).bind(table).bind(*privilege);
            let row = asked.fetch_optional(&mut *connection).await?;
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
