//! Several handles on one file, and how the changes of one affect the others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::error::Error as _;

use annals_core::{
    Append, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, Subscribe, Version,
};
use annals_sqlite::{SqliteConfig, SqliteStore};
use common::{DEADLINE, all, append, event, id, open, raw, versions, within};
use futures::{
    FutureExt,
    future::{join_all, try_join_all},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_handles_append_to_different_streams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let stores = [open(&path).await, open(&path).await];
    let writers = (0..8).map(|writer: usize| {
        let store = stores[writer % 2].clone();
        tokio::spawn(async move {
            for version in 0..100u64 {
                let expected = Version::new(version);
                store.append(append(&format!("a-{writer}"), expected, "x")).await.unwrap();
            }
        })
    });
    within(try_join_all(writers)).await.unwrap();
    let events = all(&stores[0]).await;
    assert_eq!(events.len(), 800);
    assert!(events.is_sorted_by(|a, b| a.position < b.position));
    for writer in 0..8 {
        let events = stores[1].load_stream(&id(&format!("a-{writer}"))).await.unwrap();
        assert_eq!(versions(&events), (1..=100).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_one_handle_wins_each_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let stores = [open(&path).await, open(&path).await, open(&path).await];
    for version in 0..50u64 {
        let racers = (0..9).map(|racer: usize| {
            let store = stores[racer % 3].clone();
            let append = append("a-1", Version::new(version), "x");
            tokio::spawn(async move { store.append(append).await })
        });
        let results = within(try_join_all(racers)).await.unwrap();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.into_iter().filter_map(Result::err) {
            let conflict = error.conflict().unwrap_or_else(|| panic!("{error}"));
            assert_eq!(conflict.actual, Version::new(version + 1));
        }
    }
}

/// Each handle remembers streams and positions, so it must notice that the other handle has written.
#[tokio::test]
async fn a_handle_sees_what_another_wrote_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (one, other) = (open(&path).await, open(&path).await);
    let mut last = 0;
    for round in 0..20u64 {
        let store = if round % 2 == 0 { &one } else { &other };
        let appended = store.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap();
        assert_eq!(appended.last_version, Version::new(round + 1));
        assert!(appended.position.get() > last);
        last = appended.position.get();
    }
    one.delete(&id("a-1"), ExpectedVersion::Any).await.unwrap();
    let error = other.append(append("a-1", ExpectedVersion::StreamExists, "x")).await.unwrap_err();
    assert_eq!(error.conflict().unwrap().actual, Version::new(20));
    other.tombstone(&id("a-1"), ExpectedVersion::NoStream).await.unwrap();
    let error = one.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamClosed);
}

#[tokio::test]
async fn positions_are_not_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path).await;
    for n in 0..5 {
        store.append(append(&format!("a-{n}"), ExpectedVersion::Any, "x")).await.unwrap();
    }
    let mut live = store.subscribe(Subscribe::default().after(5)).await.unwrap();
    for n in 0..5 {
        store.delete(&id(&format!("a-{n}")), ExpectedVersion::Any).await.unwrap();
    }
    drop(store);
    let store = open(&path).await;
    let appended = store.append(append("b-1", ExpectedVersion::Any, "x")).await.unwrap();
    assert_eq!(appended.position.get(), 6);
    assert_eq!(within(live.next_event()).await.unwrap().position.get(), 6);
    store.truncate(&id("b-1"), Version::new(9)).await.unwrap();
    let appended = store.append(append("b-1", Version::new(1), "x")).await.unwrap();
    assert_eq!((appended.position.get(), appended.last_version.get()), (7, 2));
}

/// Queues appends while another connection has locked the database, so that the writer takes them
/// all together.
async fn together<T>(
    path: &std::path::Path,
    appends: impl IntoIterator<Item = impl Future<Output = T>>,
) -> Vec<T> {
    let lock = raw(path);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut appends = std::pin::pin!(join_all(appends));
    assert!(futures::poll!(&mut appends).is_pending());
    drop(lock);
    within(appends).await
}

#[tokio::test]
async fn a_conflict_in_a_batch_harms_no_other_append() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path).await;
    let appends = (0..50u64).map(|n| {
        // Every fifth append has an expectation that cannot hold. The others expect to be made in
        // this order.
        let expected = if n % 5 == 4 { n + 1_000 } else { n - n / 5 };
        store.append(append("a-1", Version::new(expected), &n.to_string()))
    });
    for (n, result) in together(&path, appends).await.into_iter().enumerate() {
        match result {
            Ok(appended) => assert_eq!(appended.last_version.get() as usize, n + 1 - n / 5),
            Err(error) => {
                assert_eq!(n % 5, 4, "{error}");
                assert!(error.conflict().is_some(), "{error}");
            }
        }
    }
    assert_eq!(all(&store).await.len(), 40);
}

/// A trigger stands for anything that can fail inside SQLite. `ABORT` leaves the transaction open;
/// `ROLLBACK` ends it before the writer does.
#[tokio::test]
async fn what_fails_inside_sqlite_harms_only_itself() {
    for raise in ["ABORT", "ROLLBACK"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let store = open(&path).await;
        raw(&path)
            .execute_batch(&format!(
                "CREATE TRIGGER poison BEFORE INSERT ON annals_events WHEN NEW.type = 'Poison' \
                 BEGIN SELECT RAISE({raise}, 'poison'); END"
            ))
            .unwrap();
        let appends = (0..30).map(|n| {
            let last = if n == 17 { "Poison" } else { "Happened" };
            let events = [event("x"), NewEvent::binary(last, "y").unwrap()];
            store.append(Append::new(id(&format!("a-{}", n % 3)), ExpectedVersion::Any, events))
        });
        for (n, result) in together(&path, appends).await.into_iter().enumerate() {
            assert_eq!(result.is_err(), n == 17, "{result:?}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Internal);
                assert!(!error.outcome_unknown());
                assert!(error.source().unwrap().to_string().contains("poison"));
            }
        }
        assert_eq!(all(&store).await.len(), 58, "{raise}");
        for n in 0..3 {
            let events = store.load_stream(&id(&format!("a-{n}"))).await.unwrap();
            assert_eq!(versions(&events), (1..=events.len() as u64).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_lock_that_outlasts_the_timeout_is_busy_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let config = SqliteConfig::new(&path).with_busy_timeout(std::time::Duration::from_millis(20));
    let store = SqliteStore::open(config).await.unwrap();
    let lock = raw(&path);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let appends = (0..20).map(|_| store.append(append("a-1", ExpectedVersion::Any, "x")));
    for result in within(join_all(appends)).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.is_retryable() && !error.outcome_unknown());
    }
    // The lock does not keep reads from succeeding.
    assert_eq!(all(&store).await.len(), 0);
    drop(lock);
    store.append(append("a-1", ExpectedVersion::NoStream, "x")).await.unwrap();
}

/// A database in memory has no WAL, so readers and the writer lock each other out and must take
/// turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_writers_in_memory_take_turns() {
    for _ in 0..20 {
        let store = SqliteStore::open(SqliteConfig::in_memory()).await.unwrap();
        let tasks = (0..16u64).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for version in 0..20 {
                    if task % 2 == 0 {
                        let stream = format!("a-{task}");
                        store.append(append(&stream, Version::new(version), "x")).await.unwrap();
                    } else {
                        let events = all(&store).await;
                        assert!(events.is_sorted_by(|a, b| a.position < b.position));
                    }
                }
            })
        });
        within(try_join_all(tasks)).await.unwrap();
        assert_eq!(all(&store).await.len(), 160);
    }
}

#[tokio::test]
async fn an_open_read_holds_nothing() {
    use futures::StreamExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path).await;
    let events = (0..5_000).map(|n| event(n.to_string()));
    store.append_to("a-1", ExpectedVersion::NoStream, events).await.unwrap();
    let mut read = store.read_stream(&id("a-1"), annals_core::ReadStream::default());
    read.next().await.unwrap().unwrap();
    store.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap();
    let (busy, log, done): (i64, i64, i64) = raw(&path)
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((busy, log, done), (0, 0, 0), "the whole WAL was written back");
    assert_eq!(read.count().await, 5_000);
}

#[tokio::test]
async fn dropping_futures_leaves_the_store_working() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path).await;
    for n in 0..50 {
        // Drop each future after its first poll. By then the append is queued, and the read and the
        // subscription have been started.
        drop(store.append(append("a-1", ExpectedVersion::Any, &n.to_string())).now_or_never());
        drop(store.load_stream(&id("a-1")).now_or_never());
        drop(store.subscribe(Subscribe::to(id("a-1")).after(1)).now_or_never());
    }
    let last = store.append(append("a-1", ExpectedVersion::Any, "last")).await.unwrap();
    assert_eq!(last.last_version.get(), 51);
    assert_eq!(store.load_stream(&id("a-1")).await.unwrap().len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_and_larger_appends_than_may_wait() {
    let store = SqliteStore::open(SqliteConfig::in_memory()).await.unwrap();
    let large = (0..12).map(|_| {
        let events = [event(vec![7; 12 << 20]), event(vec![8; 3 << 20])];
        store.append_to("large-1", ExpectedVersion::Any, events).boxed()
    });
    let small = (0..3_000).map(|_| store.append(append("a-1", ExpectedVersion::Any, "x")));
    let both = futures::future::try_join(try_join_all(large), try_join_all(small));
    tokio::time::timeout(DEADLINE, both).await.unwrap().unwrap();
    assert_eq!(store.stream_info(&id("a-1")).await.unwrap().version.get(), 3_000);
    assert_eq!(store.stream_info(&id("large-1")).await.unwrap().version.get(), 24);
}

/// A change that fails before it is queued must give back its room in the queue.
#[test]
fn changes_outside_a_runtime_fail_and_block_no_later_change() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(SqliteStore::open(SqliteConfig::in_memory())).unwrap();
    // More changes, and larger ones, than the queue has room for.
    let sizes = (0..3_000).map(|_| 1).chain((0..10).map(|_| 12 << 20));
    for size in sizes {
        let append = Append::new(id("a-1"), ExpectedVersion::Any, [event(vec![7; size])]);
        let error = store.append(append).now_or_never().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(!error.outcome_unknown(), "{error}");
    }
    let stream = id("a-1");
    let error = store.truncate(&stream, Version::FIRST).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let appended = runtime.block_on(within(store.append(append("a-1", Version::NONE, "x"))));
    assert_eq!(appended.unwrap().last_version, Version::FIRST);
}
