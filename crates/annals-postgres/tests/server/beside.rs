//! Helpers that run beside the store: a writer that appends by SQL and keeps its transaction open
//! between taking a position and committing for as long as a test wants, and a subscriber.

use annals_core::{EventStore, StreamId, Subscribe};
use annals_postgres::{
    PostgresStore,
    sqlx::{AssertSqlSafe, PgConnection, Row, query, raw_sql},
};
use annals_test_servers::BoxError;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::common::{PATIENCE, Place, Tested};

/// The flags of a JSON event in an append that names no version.
const FLAGS: i16 = 1 | 4;
const ANY: i64 = -1;

pub(crate) struct Raw {
    connection: PgConnection,
    schema: String,
    pub(crate) lock_key: i32,
    /// The process id of the session on the server.
    pub(crate) pid: i32,
}

impl Raw {
    pub(crate) async fn new(place: &Place) -> Result<Self, BoxError> {
        let mut connection = place.connect().await?;
        let schema = place.schema.clone();
        let sql = format!("SELECT lock_key, pg_backend_pid() FROM {schema}.store");
        let row = query(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
        Ok(Self { connection, schema, lock_key: row.try_get(0)?, pid: row.try_get(1)? })
    }

    /// Runs a statement, with the schema in place of `{schema}`.
    pub(crate) async fn run(&mut self, sql: &str) -> Tested {
        let sql = sql.replace("{schema}", &self.schema);
        raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Appends one event as `src/append.rs` does, and returns its position.
    pub(crate) async fn append_one(
        &mut self,
        stream: &str,
        event_type: &str,
    ) -> Result<u64, BoxError> {
        let sql = format!(
            "SELECT event_position FROM {}.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            self.schema
        );
        let row = query(AssertSqlSafe(sql))
            .bind(self.lock_key)
            .bind(stream)
            .bind(StreamId::new(stream)?.category_str())
            .bind(ANY)
            .bind(Uuid::now_v7())
            .bind(event_type)
            .bind(FLAGS)
            .bind(&b"1"[..])
            .bind(&b""[..])
            .fetch_one(&mut self.connection)
            .await?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?)?)
    }

    /// Appends one event to each of several streams as `src/append.rs` does, and returns their
    /// positions.
    pub(crate) async fn append(
        &mut self,
        streams: &[&str],
        event_type: &str,
    ) -> Result<Vec<u64>, BoxError> {
        let sql = format!(
            "SELECT positions FROM {}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
             $13, $14)",
            self.schema
        );
        let count = streams.len();
        let numbers: Vec<i32> = (1..).take(count).collect();
        let ids: Vec<Uuid> = streams.iter().map(|_| Uuid::now_v7()).collect();
        let row = query(AssertSqlSafe(sql))
            .bind(self.lock_key)
            .bind(true)
            .bind(vec![i32::try_from(count)?])
            .bind(streams)
            .bind(streams.iter().map(|name| Some(name.split_once('-')?.0)).collect::<Vec<_>>())
            .bind(vec![ANY; count])
            .bind(&ids)
            .bind(numbers)
            .bind(vec![1_i64; count])
            .bind(&ids)
            .bind(vec![event_type; count])
            .bind(vec![FLAGS; count])
            .bind(vec![&b"1"[..]; count])
            .bind(vec![&b""[..]; count])
            .fetch_one(&mut self.connection)
            .await?;
        let positions: Vec<i64> = row.try_get(0)?;
        positions.into_iter().map(|position| Ok(u64::try_from(position)?)).collect()
    }

    /// Makes the session wait on the server, as a slow writer would.
    pub(crate) async fn hesitate(&mut self, milliseconds: f64) -> Tested {
        let sleep = query("SELECT pg_sleep($1)").bind(milliseconds / 1000.0);
        sleep.execute(&mut self.connection).await?;
        Ok(())
    }
}

/// Takes events from a subscription as soon as they come, so that the subscription never waits for
/// the test.
pub(crate) struct Listener {
    positions: mpsc::UnboundedReceiver<annals_core::Result<u64>>,
    task: JoinHandle<()>,
}

impl Listener {
    pub(crate) async fn on(store: &PostgresStore, options: Subscribe) -> Result<Self, BoxError> {
        let mut subscription = store.subscribe(options).await?;
        let (sender, positions) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let position = subscription.next_event().await.map(|event| event.position.get());
                let ended = position.is_err();
                if sender.send(position).is_err() || ended {
                    return;
                }
            }
        });
        Ok(Self { positions, task })
    }

    /// The position of the next event.
    pub(crate) async fn next(&mut self) -> Result<u64, BoxError> {
        let next = timeout(PATIENCE, self.positions.recv()).await;
        Ok(next.map_err(|_| "no event came")?.ok_or("the subscription has ended")??)
    }

    /// How many events have come that the test has not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.positions.len()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}
