//! Which server and which store a connection leads to.
//!
//! The name of a server may lead to another one after a fail-over, and a schema may be removed and
//! created again. So every connection that is made later is checked before it is used.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{
    error::{another_store, standby},
    sql::quoted,
};

/// What every connection of an open store must lead to.
#[derive(Debug)]
pub struct Identity {
    /// Asks whether the server is a standby, and for the store's key.
    question: String,
    key: i32,
}

impl Identity {
    /// The store whose table `store` in this schema has this key.
    pub fn new(schema: &str, key: i32) -> Self {
        let question = format!(
            "SELECT pg_catalog.pg_is_in_recovery(), (SELECT lock_key FROM {}.store)",
            quoted(schema)
        );
        Self { question, key }
    }

    /// Refuses a connection to a standby, and one to another store than `expected`.
    pub async fn check(expected: Option<&Self>, connection: &mut PgConnection) -> sqlx::Result<()> {
        let Some(Self { question, key }) = expected else {
            return if is_standby(connection).await? { Err(standby()) } else { Ok(()) };
        };
        let question = AssertSqlSafe(question.as_str());
        let row = sqlx::raw_sql(question).fetch_one(connection).await?;
        if row.try_get(0)? {
            return Err(standby());
        }
        if row.try_get::<i32, _>(1)? == *key {
            return Ok(());
        }
        Err(another_store())
    }
}

/// Whether the server is a standby.
pub async fn is_standby(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::raw_sql("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(connection).await?.try_get(0)
}
