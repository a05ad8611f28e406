//! Processes that are killed while they run a projection.

use std::{
    env,
    future::pending,
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use annals_domain::projection::{
    Batch, BoxError, Projection, Sink, TransactionalHandler,
    sqlite::{SqliteSink, SqliteTransaction},
};
use annals_test_stores::{Fresh, Kind};
use async_trait::async_trait;

use crate::{
    crash::rng,
    projection::{Rows, TABLE, all, fill, quick, rows},
};

/// The URL of the store, for a child.
const STORE: &str = "ANNALS_DOMAIN_CHILD_STORE";
/// The file of the rows, for a child.
const ROWS: &str = "ANNALS_DOMAIN_CHILD_ROWS";

pub(crate) fn is_child() -> bool {
    env::var_os(STORE).is_some()
}

/// Says when it begins with a batch, and when it has written its rows.
struct Saying;

#[async_trait]
impl TransactionalHandler<SqliteTransaction> for Saying {
    async fn handle(
        &mut self,
        transaction: &mut SqliteTransaction,
        batch: &Batch<'_>,
    ) -> Result<(), BoxError> {
        say()?;
        Rows.handle(transaction, batch).await?;
        Ok(say()?)
    }
}

fn say() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b".")?;
    out.flush()
}

/// How many events come at a time.
const BATCH: usize = 3;

/// Runs the projection until it is killed.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn child() -> ExitCode {
    let store = annals::connect(&env::var(STORE).unwrap()).await.unwrap();
    let sink = SqliteSink::open(env::var(ROWS).unwrap()).unwrap();
    let projection = Projection::exactly_once(store, "rows", sink, Saying).unwrap();
    projection.with_batch(BATCH).with_retry(quick()).run(pending()).await.unwrap();
    ExitCode::SUCCESS
}

/// A few hundred in all, over the kinds of stores.
pub(crate) async fn processes_killed_at_random_apply_each_event_once(kind: Kind) {
    const MOST_BATCHES: usize = 4;
    let mut rng = rng("processes_killed_at_random_apply_each_event_once");
    let fresh = Fresh::open(&kind).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.db");
    let sink = SqliteSink::open(&file).unwrap();
    let transaction = sink.begin().await.unwrap();
    transaction.execute_batch(TABLE).unwrap();
    sink.commit(transaction).await.unwrap();
    let kills = if kind.name() == "sqlite" { 200 } else { 40 };
    let (mut written, mut handled, mut undone) = (0, 0, 0);
    for _ in 0..kills {
        // Always more than it will live to see.
        if written < handled + (MOST_BATCHES + 1) * BATCH {
            fill(&*fresh.store, 3, 20).await;
            written += 60;
        }
        let says = rng.usize(1..=2 * MOST_BATCHES);
        let after = Duration::from_micros(rng.u64(0..500));
        let mut child = Command::new(env::current_exe().unwrap())
            .env(STORE, &fresh.url)
            .env(ROWS, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::task::spawn_blocking(move || {
            child.stdout.take().unwrap().read_exact(&mut vec![0; says]).unwrap();
            // The moment at which it dies: nothing is waited for.
            std::thread::sleep(after);
            child.kill().unwrap();
            child.wait().unwrap();
        })
        .await
        .unwrap();
        let now = rows(&sink).await.len();
        undone += u32::from(now < handled + says.div_ceil(2) * BATCH);
        handled = now;
    }
    println!("{undone} of {kills} were killed in the middle of a transaction");
    assert!(undone > 0, "this shows nothing");
    let mut rest =
        Projection::exactly_once(fresh.store.clone(), "rows", sink.clone(), Rows).unwrap();
    rest.catch_up().await.unwrap();
    assert_eq!(rows(&sink).await, all(&*fresh.store).await);
}
