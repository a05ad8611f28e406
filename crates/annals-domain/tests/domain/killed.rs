//! Processes that are killed while they run a projection.

use std::{
    collections::BTreeMap,
    env,
    future::pending,
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use annals::domain::projection::{
    Batch, BoxError, Projection, Sink, TransactionalHandler,
    postgres::{
        PostgresSink,
        sqlx::{self, AssertSqlSafe, PgPool, Postgres, Row, Transaction},
    },
    sqlite::SqliteSink,
};
use annals_core::{EventStoreExt, SubscriberId};
use annals_test_servers::postgres;
use annals_test_stores::{Fresh, Kind};
use async_trait::async_trait;

use crate::{
    crash::rng,
    projection::{Rows, TABLE, all, fill, quick, rows},
};

/// Tells a child the URL of the store.
const STORE: &str = "ANNALS_DOMAIN_CHILD_STORE";
/// Tells a child the file of the rows, or the URL of their server.
const ROWS: &str = "ANNALS_DOMAIN_CHILD_ROWS";
/// Tells a child the prefix of the tables on the server.
const PREFIX: &str = "ANNALS_DOMAIN_CHILD_PREFIX";

pub(crate) fn is_child() -> bool {
    env::var_os(STORE).is_some()
}

/// Logs each event that it handles in a table of PostgreSQL, and counts the events of each stream.
struct PgRows(String);

impl PgRows {
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{}", &self.0))
    }
}

#[async_trait]
impl TransactionalHandler<Transaction<'static, Postgres>> for PgRows {
    async fn handle(
        &mut self,
        transaction: &mut Transaction<'static, Postgres>,
        batch: &Batch<'_>,
    ) -> Result<(), BoxError> {
        for event in batch.events {
            sqlx::query(self.sql("INSERT INTO {}_handled (stream, version) VALUES ($1, $2)"))
                .bind(event.stream.as_str())
                .bind(event.version.to_i64())
                .execute(&mut **transaction)
                .await?;
            let count = "INSERT INTO {}_counts AS c (stream, events) VALUES ($1, 1) \
                ON CONFLICT (stream) DO UPDATE SET events = c.events + 1";
            let count = sqlx::query(self.sql(count)).bind(event.stream.as_str());
            count.execute(&mut **transaction).await?;
        }
        Ok(())
    }
}

/// A handler that writes a byte to the output when it begins with a batch, and another when it has
/// written the rows.
struct Saying<H>(H);

#[async_trait]
impl<T: Send, H: TransactionalHandler<T>> TransactionalHandler<T> for Saying<H> {
    async fn handle(&mut self, transaction: &mut T, batch: &Batch<'_>) -> Result<(), BoxError> {
        say()?;
        self.0.handle(transaction, batch).await?;
        Ok(say()?)
    }
}

fn say() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b".")?;
    out.flush()
}

/// How many events the handler gets at once.
const BATCH: usize = 3;

/// Runs the projection until it is killed.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn child() -> ExitCode {
    let place = env::var(ROWS).unwrap();
    match env::var(PREFIX) {
        Ok(prefix) => project(postgres_sink(&place, &prefix).await, PgRows(prefix)).await,
        Err(_) => project(SqliteSink::open(place).unwrap(), Rows).await,
    }
    ExitCode::SUCCESS
}

async fn project<S: Sink, H: TransactionalHandler<S::Transaction>>(sink: S, handler: H) {
    let store = annals::connect(&env::var(STORE).unwrap()).await.unwrap();
    let projection = Projection::exactly_once(store, "rows", sink, Saying(handler)).unwrap();
    projection.with_batch(BATCH).with_retry(quick()).run(pending()).await.unwrap();
}

async fn postgres_sink(url: &str, prefix: &str) -> PostgresSink {
    let sink = PostgresSink::new(PgPool::connect(url).await.unwrap());
    let sink = sink.with_table(&format!("{prefix}_checkpoints")).unwrap();
    sink.prepare().await.unwrap();
    sink
}

/// With rows in SQLite: a few hundred kills in all, over the kinds of stores.
pub(crate) async fn processes_killed_at_random_apply_each_event_once(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.db");
    let sink = SqliteSink::open(&file).unwrap();
    let transaction = sink.begin().await.unwrap();
    transaction.execute_batch(TABLE).unwrap();
    sink.commit(transaction).await.unwrap();

    let kills = if kind.name() == "sqlite" { 200 } else { 40 };
    let place = [(ROWS, file.to_str().unwrap().to_owned())];
    kill(&fresh, kills, &place, || rows(&sink)).await;
    let rest = Projection::exactly_once(fresh.store.clone(), "rows", sink.clone(), Rows);
    rest.unwrap().catch_up().await.unwrap();
    assert_eq!(rows(&sink).await, all(&*fresh.store).await);
}

/// With rows in PostgreSQL.
pub(crate) async fn processes_killed_at_random_write_each_row_once(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let server = postgres::shared().await.unwrap();
    let (url, prefix) = (server.url(), format!("killed_{}", std::process::id()));
    let pool = PgPool::connect(&url).await.unwrap();
    let handler = PgRows(prefix.clone());
    for table in [
        "CREATE TABLE {}_handled (n bigserial, stream text, version bigint)",
        "CREATE TABLE {}_counts (stream text PRIMARY KEY, events bigint NOT NULL)",
    ] {
        sqlx::query(handler.sql(table)).execute(&pool).await.unwrap();
    }
    let rows = || {
        let query = sqlx::query(handler.sql("SELECT stream, version FROM {}_handled ORDER BY n"));
        let rows = query.fetch_all(&pool);
        async {
            let rows = rows.await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get::<i64, _>(1) as u64)).collect::<Vec<_>>()
        }
    };

    kill(&fresh, 100, &[(ROWS, url.clone()), (PREFIX, prefix.clone())], rows).await;
    let sink = postgres_sink(&url, &prefix).await;
    let rest = PgRows(prefix.clone());
    let rest = Projection::exactly_once(fresh.store.clone(), "rows", sink.clone(), rest);
    rest.unwrap().catch_up().await.unwrap();
    let expected = all(&*fresh.store).await;
    assert_eq!(rows().await, expected);
    let counts = sqlx::query(handler.sql("SELECT stream, events FROM {}_counts"));
    let counts = counts.fetch_all(&pool).await.unwrap();
    let counts: BTreeMap<String, i64> = counts.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut expected_counts = BTreeMap::new();
    for (stream, _) in expected {
        *expected_counts.entry(stream).or_default() += 1;
    }
    assert_eq!(counts, expected_counts);
    let checkpoint = sink.position(&SubscriberId::new("rows").unwrap()).await.unwrap();
    assert!(checkpoint >= Some(fresh.store.last_position().await.unwrap()), "{checkpoint:?}");
    let drop_tables = "DROP TABLE {}_handled, {}_counts, {}_checkpoints";
    sqlx::query(handler.sql(drop_tables)).execute(&pool).await.unwrap();
}

/// Kills one child after the other, each in the middle of its work.
async fn kill<F: Future<Output = Vec<(String, u64)>>>(
    fresh: &Fresh,
    kills: u32,
    place: &[(&str, String)],
    rows: impl Fn() -> F,
) {
    const MOST_BATCHES: usize = 4;
    let mut rng = rng("killed");
    let (mut written, mut handled, mut undone) = (0, 0, 0);
    for _ in 0..kills {
        // Always more events than the child will live to handle.
        if written < handled + (2 * MOST_BATCHES) * BATCH {
            fill(&*fresh.store, 3, 20).await;
            written += 60;
        }
        let says = rng.usize(1..=2 * MOST_BATCHES);
        let after = Duration::from_micros(rng.u64(0..500));
        let mut child = Command::new(env::current_exe().unwrap())
            .env(STORE, &fresh.url)
            .envs(place.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::task::spawn_blocking(move || {
            child.stdout.take().unwrap().read_exact(&mut vec![0; says]).unwrap();
            // Not a wait for a condition: this is the random moment at which the child dies.
            std::thread::sleep(after);
            child.kill().unwrap();
            child.wait().unwrap();
        })
        .await
        .unwrap();
        let now = rows().await.len();
        undone += u32::from(now < handled + says.div_ceil(2) * BATCH);
        handled = now;
    }
    println!("{undone} of {kills} were killed in the middle of a transaction");
    assert!(undone > 0, "this shows nothing");
}
