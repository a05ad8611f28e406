//! Finds out that a server only looks like PostgreSQL, and lacks what the order of events rests on.
//!
//! A reader that finds a gap asks `pg_locks` which appends are under way, and positions come from a
//! sequence that gives them in the order in which they are asked for. A database that is spread over
//! several machines often shows each session only its own locks, or those that are old enough, and
//! gives each session a range of numbers.

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use crate::{error::driver, session::while_held, sql::quoted};

/// What `version()` says on other servers that speak the protocol of PostgreSQL, and their names.
const OTHERS: [(&str, &str); 12] = [
    ("-YB-", "YugabyteDB"),
    ("YugabyteDB", "YugabyteDB"),
    ("CockroachDB", "CockroachDB"),
    ("Aurora DSQL", "Aurora DSQL"),
    ("Redshift", "Amazon Redshift"),
    ("Greenplum", "Greenplum"),
    ("Spanner", "Cloud Spanner"),
    ("Materialize", "Materialize"),
    ("RisingWave", "RisingWave"),
    ("CrateDB", "CrateDB"),
    ("QuestDB", "QuestDB"),
    ("openGauss", "openGauss"),
];

/// Refuses a server that says it is another one.
pub fn check_name(version: &str) -> Result<()> {
    match OTHERS.iter().find(|(said, _)| version.contains(said)) {
        Some((_, name)) => Err(refused(&format!("the server is {name}"))),
        None => Ok(()),
    }
}

/// How often to try, if a connection pooler has no two sessions at the moment.
const ATTEMPTS: usize = 10;

/// Refuses a server whose sessions do not see each other's locks at once, or whose sequences give
/// each session a range of numbers.
pub async fn check(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    schema: &str,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let found = look(connection, other, schema).await.map_err(driver)?;
        let Some(Found { locks, numbers }) = found else { continue };
        if locks == 0 {
            let what = "a session does not see the locks of another session in `pg_locks`";
            return Err(refused(what));
        }
        // A role that may only read has no numbers.
        let numbers: Vec<i64> = numbers.into_iter().flatten().collect();
        if !numbers.is_sorted_by(|one, next| one < next) {
            return Err(refused("its sequences give each session a range of numbers"));
        }
        return Ok(());
    }
    let message = "a connection pooler had no two sessions at the same time; try again";
    Err(Error::new(ErrorKind::Busy, message))
}

/// What two sessions have seen.
struct Found {
    /// How many locks the first session saw of the second one, which had one.
    locks: i64,
    /// The numbers that the first, the second and again the first session got.
    numbers: [Option<i64>; 3],
}

/// `None` if a connection pooler did not give the connections two sessions at the same time.
async fn look(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    schema: &str,
) -> sqlx::Result<Option<Found>> {
    let (first, second) = (fastrand::i32(1..), fastrand::i32(1..));
    let next = format!(
        "CASE WHEN pg_catalog.has_sequence_privilege('{schema}.trial', 'USAGE') \
         THEN pg_catalog.nextval('{schema}.trial'::pg_catalog.regclass) END",
        schema = quoted(schema)
    );
    let locks = format!(
        "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
             WHERE locktype = 'advisory' AND granted AND classid = {first}::pg_catalog.oid \
             AND objid = {second}::pg_catalog.oid), {next}"
    );
    // A number is logged, and a commit with it waits for a synchronous standby, which may be missing.
    // A rollback does not.
    let locks = format!("BEGIN; {locks}; ROLLBACK");
    let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({first}, {second}), {next}");
    let next = format!("BEGIN; SELECT 1, {next}; ROLLBACK");
    let number = |row: &PgRow| row.try_get::<Option<i64>, _>(1);
    let ask = async |session: &mut PgConnection, text: String| {
        let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(session).await?;
        rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    };
    let before = number(&ask(connection, next).await?)?;
    sqlx::raw_sql("BEGIN").execute(&mut *other).await?;
    let between = number(&ask(other, lock).await?)?;
    let (row, in_time) = while_held(ask(connection, locks), other).await?;
    let numbers = [before, between, number(&row)?];
    Ok(if in_time { Some(Found { locks: row.try_get(0)?, numbers }) } else { None })
}

fn refused(what: &str) -> Error {
    let message = format!(
        "{what}, so that readers would skip events; a store of this crate needs PostgreSQL itself, \
         with one primary"
    );
    Error::new(ErrorKind::Incompatible, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_known_by_what_they_say() {
        for version in [
            "PostgreSQL 15.12-YB-2025.1.0.0-b168 on x86_64-pc-linux-gnu",
            "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)",
        ] {
            let error = check_name(version).expect_err("another server");
            assert!(error.to_string().contains("needs PostgreSQL itself"), "{error}");
        }
        check_name("PostgreSQL 18.0 on x86_64-pc-linux-gnu, compiled by gcc").unwrap();
    }
}
