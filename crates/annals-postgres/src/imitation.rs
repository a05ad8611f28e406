//! Finds out that a server only looks like PostgreSQL, and lacks what the order of events rests on.
//!
//! A reader that finds a gap asks `pg_locks` which appends are under way, and positions come from a
//! sequence that gives them in the order in which they are asked for. A database that is spread over
//! several machines often shows each session only its own locks, or those that are old enough, and
//! gives each session a range of numbers.

use annals_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{error::driver, sql::quoted};

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
pub(crate) fn check_name(version: &str) -> Result<()> {
    match OTHERS.iter().find(|(said, _)| version.contains(said)) {
        Some((_, name)) => Err(refused(&format!("the server is {name}"))),
        None => Ok(()),
    }
}

/// Refuses a server whose sessions do not see each other's locks at once, or whose sequences give
/// each session a range of numbers.
pub(crate) async fn check(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    schema: &str,
) -> Result<()> {
    let (first, second) = (fastrand::i32(1..), fastrand::i32(1..));
    let lock = format!("BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({first}, {second})");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *other).await.map_err(driver)?;
    let found = look(connection, other, (first, second), schema).await;
    let ended = sqlx::raw_sql("ROLLBACK").execute(other).await;
    let found = found.map_err(driver)?;
    ended.map_err(driver)?;
    match found {
        Some(what) => Err(refused(what)),
        None => Ok(()),
    }
}

/// What is wrong. `other` holds the advisory lock, in an open transaction.
async fn look(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    (first, second): (i32, i32),
    schema: &str,
) -> sqlx::Result<Option<&'static str>> {
    let locks = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
         AND classid = {first}::pg_catalog.oid AND objid = {second}::pg_catalog.oid"
    );
    let locks = sqlx::raw_sql(AssertSqlSafe(locks)).fetch_one(&mut *connection).await?;
    if locks.try_get::<i64, _>(0)? == 0 {
        return Ok(Some("a session does not see the locks of another session in `pg_locks`"));
    }
    let next = format!(
        "SELECT CASE WHEN pg_catalog.has_sequence_privilege('{schema}.trial', 'USAGE') \
         THEN pg_catalog.nextval('{schema}.trial'::pg_catalog.regclass) END",
        schema = quoted(schema)
    );
    let mut numbers = Vec::new();
    for is_other in [false, true, false] {
        let session = if is_other { &mut *other } else { &mut *connection };
        let row = sqlx::raw_sql(AssertSqlSafe(next.as_str())).fetch_one(session).await?;
        // A role that may only read has no number.
        let Some(number) = row.try_get::<Option<i64>, _>(0)? else { return Ok(None) };
        numbers.push(number);
    }
    let is_rising = numbers.is_sorted_by(|one, next| one < next);
    Ok((!is_rising).then_some("its sequences give each session a range of numbers"))
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
