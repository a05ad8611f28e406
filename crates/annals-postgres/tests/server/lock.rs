//! Appends that wait for a lock which the test holds.

use std::future::poll_fn;

use annals_core::{Append, Appended, ErrorKind, EventStore, ExpectedVersion, Result};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, Executor, PgConnection, query_scalar},
};
use annals_test_servers::{BoxError, until};
use tokio::task::JoinHandle;

use crate::common::{PATIENCE, Place, Tested, event, id};

pub(crate) fn any(stream: &str, number: u64) -> Append {
    Append::new(id(stream), ExpectedVersion::Any, [event(number)])
}

pub(crate) fn failed(result: Result<Appended>, kind: ErrorKind, is_unknown: bool) {
    let error = result.expect_err("this must fail");
    assert_eq!((error.kind(), error.outcome_unknown()), (kind, is_unknown), "{error:?}");
}

/// A lock that makes appends to a stream wait.
pub(crate) struct Lock {
    pub(crate) connection: PgConnection,
    pub(crate) key: i32,
}

impl Lock {
    pub(crate) async fn on(place: &Place, stream: &str) -> Result<Self, BoxError> {
        let mut connection = place.connect().await?;
        let key = format!("SELECT lock_key FROM {}.store", place.schema);
        let key = query_scalar(AssertSqlSafe(key)).fetch_one(&mut connection).await?;
        connection.execute("BEGIN").await?;
        let mut lock = Self { connection, key };
        lock.add(stream).await?;
        Ok(lock)
    }

    pub(crate) async fn add(&mut self, stream: &str) -> Tested {
        query_scalar::<_, ()>("SELECT pg_advisory_xact_lock($1, hashtext($2))")
            .bind(self.key)
            .bind(stream)
            .fetch_one(&mut self.connection)
            .await
            .map_err(Into::into)
    }

    /// The process ids of the sessions that wait for a lock of this store.
    pub(crate) async fn waiting(&mut self) -> Result<Vec<i32>, BoxError> {
        let text = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                    AND classid = ($1::bigint & 4294967295)::oid ORDER BY pid";
        Ok(query_scalar(text).bind(self.key).fetch_all(&mut self.connection).await?)
    }

    pub(crate) async fn wait_for(&mut self, sessions: usize) -> Result<Vec<i32>, BoxError> {
        let lock = tokio::sync::Mutex::new(self);
        until(&format!("{sessions} sessions wait for locks"), PATIENCE, || async {
            lock.lock().await.waiting().await.is_ok_and(|waiting| waiting.len() == sessions)
        })
        .await?;
        lock.into_inner().waiting().await
    }

    pub(crate) async fn release(mut self) -> Tested {
        self.connection.execute("ROLLBACK").await?;
        Ok(())
    }
}

pub(crate) fn spawn(store: &PostgresStore, append: Append) -> JoinHandle<Result<Appended>> {
    let store = store.clone();
    tokio::spawn(async move { store.append(append).await })
}

/// Starts appends that wait for the store's only writer, which waits for the lock. When the lock is
/// released, the writer sends them in one transaction.
pub(crate) async fn queue(
    place: &Place,
    store: &PostgresStore,
    appends: &[Append],
) -> Result<(Lock, Vec<JoinHandle<Result<Appended>>>), BoxError> {
    assert_eq!(store.options().writers, 1);
    let mut lock = Lock::on(place, "locked-1").await?;
    let first = spawn(store, any("locked-1", 0));
    lock.wait_for(1).await?;
    let mut all = vec![first];
    for append in appends {
        let store = store.clone();
        let append = append.clone();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        all.push(tokio::spawn(async move {
            let mut appending = store.append(append);
            let mut begun = Some(begun);
            poll_fn(|cx| {
                let poll = appending.as_mut().poll(cx);
                begun.take().map(|begun| begun.send(()));
                poll
            })
            .await
        }));
        has_begun.await?;
    }
    Ok((lock, all))
}

pub(crate) fn one_writer(mut config: PostgresConfig) -> PostgresConfig {
    config.options.writers = 1;
    config
}
