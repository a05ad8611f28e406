//! Which server and which store a connection leads to.
//!
//! The name of a server may lead to another one after a fail-over, and a schema may be removed and
//! created again. So every connection that is made later is checked before it is used.

use std::sync::Arc;

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
    /// Has the store notice that another server has taken over.
    follow: Option<FollowServer>,
}

/// The statements by which a store notices that another server has taken over.
#[derive(Clone, Debug)]
pub struct FollowServer {
    /// In a transaction of its own.
    pub alone: Arc<str>,
    /// As the first of a transaction.
    pub in_transaction: Arc<str>,
}

impl Identity {
    /// The store whose table `store` in this schema has this key.
    pub fn new(schema: &str, key: i32) -> Self {
        let question = format!(
            "SELECT pg_catalog.pg_is_in_recovery(), (SELECT lock_key FROM {}.store)",
            quoted(schema)
        );
        Self { question, key, follow: None }
    }

    /// Runs a statement on each connection before it is used.
    pub fn that_follows_servers(mut self, follow: FollowServer) -> Self {
        self.follow = Some(follow);
        self
    }

    /// The statement that has to come before every other in a transaction behind a pooler: the pooler
    /// makes connections to another server, and its clients keep theirs.
    pub fn follow_in_transaction(&self) -> Option<&str> {
        self.follow.as_ref().map(|follow| &*follow.in_transaction)
    }

    /// Refuses a connection to a standby, and one to another store than `expected`.
    pub async fn check(expected: Option<&Self>, connection: &mut PgConnection) -> sqlx::Result<()> {
        let Some(Self { question, key, follow }) = expected else {
            return if is_standby(connection).await? { Err(standby()) } else { Ok(()) };
        };
        let question = AssertSqlSafe(question.as_str());
        let row = sqlx::raw_sql(question).fetch_one(&mut *connection).await?;
        if row.try_get(0)? {
            return Err(standby());
        }
        if row.try_get::<i32, _>(1)? != *key {
            return Err(another_store());
        }
        if let Some(follow) = follow {
            let call = AssertSqlSafe(follow.alone.clone());
            sqlx::raw_sql(call).execute(connection).await?;
        }
        Ok(())
    }
}

/// Whether the server is a standby.
pub async fn is_standby(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::raw_sql("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(connection).await?.try_get(0)
}
