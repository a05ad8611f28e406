//! The sink for PostgreSQL, and what only it can get wrong.

use std::sync::atomic::{AtomicU32, Ordering};

use annals::domain::projection::postgres::{
    PostgresSink,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions, PgConnection, PgPool, Row,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};
use annals_core::{Error, ErrorKind, Position, SubscriberId};
use annals_domain::projection::Sink;
use annals_test_servers::{BoxError, postgres, until};
use async_trait::async_trait;

use crate::{
    PATIENCE, Test, Tested,
    place::{Place, at, name, next, step},
    tests,
};

pub(crate) const TESTS: &[Test] = tests! {
    "postgres" true: says_what_to_do_about_the_table, needs_few_privileges,
        finds_errors_that_a_handler_ignored, keeps_to_it_in_stricter_transactions,
        does_not_know_what_a_lost_commit_did;
};

/// A schema of its own on the server that all tests share.
pub(crate) struct Server {
    options: PgConnectOptions,
    schema: String,
}

impl Server {
    async fn connect(&self) -> Result<PgConnection, BoxError> {
        Ok(self.options.clone().application_name("test").connect().await?)
    }

    fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(self.options.clone())
    }

    async fn execute(&self, sql: &str) -> Tested {
        let sql = sql.replace("{schema}", &self.schema);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// Waits until the number of the sinks' sessions in a state is as wanted.
    async fn until_sessions(&self, state: &str, wanted: fn(i64) -> bool) -> Tested {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND {state}"
        );
        until(state, PATIENCE, || async {
            let mut connection = self.connect().await.unwrap();
            let count = sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(&self.schema);
            wanted(count.fetch_one(&mut connection).await.unwrap())
        })
        .await
    }
}

#[async_trait]
impl Place for Server {
    type Sink = PostgresSink;

    async fn new() -> Result<Self, BoxError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("sink{}_{count}", std::process::id());
        let options: PgConnectOptions = postgres::shared().await?.url().parse()?;
        let options = options.application_name(&schema).options([("search_path", &schema)]);
        let place = Self { options, schema };
        place
            .execute(
                "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; \
                 CREATE TABLE {schema}.rows (name text, row bigint)",
            )
            .await?;
        Ok(place)
    }

    async fn open(&self) -> Result<PostgresSink, Error> {
        PostgresSink::open(self.pool(4)).await
    }

    async fn write(
        transaction: &mut <PostgresSink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested {
        let insert = sqlx::query("INSERT INTO rows VALUES ($1, $2)").bind(name.as_str());
        insert.bind(row.to_i64()).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn roll_back(transaction: <PostgresSink as Sink>::Transaction) -> Tested {
        Ok(transaction.rollback().await?)
    }

    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError> {
        let row = sqlx::query(
            "SELECT (SELECT position FROM annals_projections WHERE name = $1), \
             ARRAY(SELECT row FROM rows WHERE name = $1 ORDER BY row)",
        );
        let row = row.bind(name.as_str()).fetch_one(&mut self.connect().await?).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    async fn until_one_waits(&self) -> Tested {
        self.until_sessions("wait_event_type = 'Lock'", |count| count > 0).await
    }

    async fn until_none_is_open(&self) -> Tested {
        self.until_sessions("xact_start IS NOT NULL", |count| count == 0).await
    }
}

/// The error for a missing table says how to create it, and for another table that it is another.
async fn says_what_to_do_about_the_table() -> Tested {
    let place = Server::new().await?;
    let sink = PostgresSink::new(place.pool(1));
    let error = sink.position(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("PostgresSink::prepare"), "{error}");
    let mut transaction = sink.begin().await?;
    let error = sink.advance(&mut transaction, &name("a"), None, at(1)).await.unwrap_err();
    assert!(error.to_string().contains("PostgresSink::prepare"), "{error}");
    drop(transaction);

    let elsewhere = sink.clone().with_table(&format!("{}.checkpoints", place.schema))?;
    for _ in 0..2 {
        elsewhere.prepare().await?;
    }
    let mut transaction = elsewhere.begin().await?;
    assert!(elsewhere.advance(&mut transaction, &name("a"), None, at(1)).await?);
    elsewhere.commit(transaction).await?;
    assert_eq!(elsewhere.position(&name("a")).await?, Some(at(1)));
    assert!(sink.position(&name("a")).await.is_err());

    for (table, part) in [("rows", "another"), ("nowhere.a", "create it")] {
        let error = sink.clone().with_table(table)?.prepare().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = sink.with_table("a; DROP TABLE rows").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    Ok(())
}

/// A role that may only use the table can open the sink once the table exists.
async fn needs_few_privileges() -> Tested {
    let place = Server::new().await?;
    place.open().await?;
    let role = format!("{}_role", place.schema);
    place
        .execute(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA {{schema}} TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON {{schema}}.annals_projections TO {role}"
        ))
        .await?;
    let options = place.options.clone().options([("role", &role)]);
    let pool = PgPoolOptions::new().acquire_timeout(PATIENCE).connect_lazy_with(options);
    let sink = PostgresSink::open(pool).await?;
    for from in [None, Some(at(1))] {
        let mut transaction = sink.begin().await?;
        assert!(sink.advance(&mut transaction, &name("a"), from, next(from)).await?);
        sink.commit(transaction).await?;
    }
    let other = sink.with_table("other")?.prepare().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Denied, "{other}");
    place.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await
}

/// PostgreSQL rolls back a transaction in which a statement failed, and reports the commit as a
/// success.
async fn finds_errors_that_a_handler_ignored() -> Tested {
    let place = Server::new().await?;
    let sink = place.open().await?;
    let mut transaction = sink.begin().await?;
    assert!(sink.advance(&mut transaction, &name("a"), None, at(1)).await?);
    assert!(sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await.is_err());
    let error = sink.commit(transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(step::<Server>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}

/// In stricter isolation levels than the default, PostgreSQL reports a lost race as an error.
async fn keeps_to_it_in_stricter_transactions() -> Tested {
    for level in ["repeatable read", "serializable"] {
        let mut place = Server::new().await?;
        place.options = place.options.options([("default_transaction_isolation", level)]);
        let (first, second) = (place.open().await?, place.open().await?);
        for commits in [false, true] {
            let a = name(&format!("{commits}"));
            for from in [None, Some(at(1))] {
                let mut one = first.begin().await?;
                assert!(first.advance(&mut one, &a, from, next(from)).await?);
                Server::write(&mut one, &a, next(from)).await?;
                let (sink, b) = (second.clone(), a.clone());
                let two =
                    tokio::spawn(async move { step::<Server>(&sink, &b, from, next(from)).await });
                place.until_one_waits().await?;
                if commits {
                    first.commit(one).await?;
                } else {
                    Server::roll_back(one).await?;
                }
                assert_eq!(two.await??, !commits, "{level}, from {from:?}");
            }
            assert_eq!(place.read(&a).await?, (Some(2), vec![1, 2]));
        }
    }
    Ok(())
}

/// If the connection is lost during a commit, the transaction may have been committed.
async fn does_not_know_what_a_lost_commit_did() -> Tested {
    let place = Server::new().await?;
    let sink = place.open().await?;
    // A trigger that ends its own session during the commit.
    place
        .execute(
            "CREATE FUNCTION {schema}.die() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER die AFTER INSERT ON {schema}.rows \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.die()",
        )
        .await?;
    let error = step::<Server>(&sink, &name("a"), None, at(1)).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.outcome_unknown());
    place.execute("DROP TRIGGER die ON {schema}.rows").await?;
    assert!(step::<Server>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}
