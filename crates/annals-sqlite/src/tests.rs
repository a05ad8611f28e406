//! Tests of what cannot be seen from outside: how changes are grouped.

use std::sync::atomic::Ordering;

use annals_core::{Append, EventStore, ExpectedVersion, NewEvent, StreamId};
use futures::future::join_all;
use rusqlite::Connection;

use crate::{SqliteConfig, SqliteStore};

#[tokio::test]
async fn what_waits_shares_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let lock = Connection::open(&path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let appends = (0..100).map(|n| {
        let stream = StreamId::new(format!("a-{n}")).unwrap();
        let event = NewEvent::binary("Happened", "x").unwrap();
        store.append(Append::new(stream, ExpectedVersion::NoStream, [event]))
    });
    let mut appends = std::pin::pin!(join_all(appends));
    assert!(futures::poll!(&mut appends).is_pending());
    drop(lock);
    let appended = appends.await;
    assert!(appended.iter().all(Result::is_ok));
    let commits = store.engine.queue.as_ref().unwrap().commits.load(Ordering::Relaxed);
    assert!(commits <= 2, "{commits} commits for 100 appends");
    // The appends of one transaction are recorded at the same time.
    let times: std::collections::HashSet<_> = {
        use futures::TryStreamExt;
        let events = store.read_all(annals_core::ReadAll::default());
        events.map_ok(|event| event.recorded_at).try_collect().await.unwrap()
    };
    assert!(times.len() <= 2);
}
