//! Opening a store: what it creates, keeps and refuses. And closing it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{error::Error as _, fs};

use annals_core::{
    CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Position, Snapshot,
    SnapshotStore, StreamState, SubscriberId,
};
use annals_sqlite::{SqliteConfig, SqliteStore};
use common::{all, append, data, event, id, open, raw, until, within};
use futures::{FutureExt, future::try_join_all};

#[tokio::test]
async fn reopening_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let subscriber = SubscriberId::new("sub").unwrap();
    let snapshot = Snapshot::new(1, event("state").data().clone());
    let store = open(&path).await;
    store.append(append("a-1", ExpectedVersion::NoStream, "one")).await.unwrap();
    store.append(append("b-1", ExpectedVersion::Any, "two")).await.unwrap();
    store.append(append("c-1", ExpectedVersion::Any, "three")).await.unwrap();
    store.delete(&id("b-1"), ExpectedVersion::Any).await.unwrap();
    store.tombstone(&id("c-1"), ExpectedVersion::Any).await.unwrap();
    store.save_snapshot(&id("a-1"), snapshot.clone()).await.unwrap();
    store.save_checkpoint(&subscriber, Position::new(2)).await.unwrap();
    let before = all(&store).await;
    drop(store);

    let store = open(&path).await;
    assert_eq!(all(&store).await, before);
    assert_eq!(data(&before), ["one"]);
    assert_eq!(store.stream_info(&id("b-1")).await.unwrap().state, StreamState::Deleted);
    assert_eq!(store.stream_info(&id("c-1")).await.unwrap().state, StreamState::Tombstoned);
    assert_eq!(store.load_snapshot(&id("a-1")).await.unwrap(), Some(snapshot));
    assert_eq!(store.load_checkpoint(&subscriber).await.unwrap(), Some(Position::new(2)));
    let appended = store.append(append("b-1", ExpectedVersion::NoStream, "four")).await.unwrap();
    assert_eq!((appended.first_version.get(), appended.position.get()), (2, 4));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    drop(open(&path).await);
    let connection = raw(&path);
    connection
        .execute_batch("UPDATE annals_meta SET value = 7 WHERE key = 'schema_version'")
        .unwrap();
    // Set another journal mode, to see that a refused `open` does not change it back.
    until("no other connection has the file open", || {
        connection.execute_batch("PRAGMA journal_mode = DELETE").is_ok()
    })
    .await;
    drop(connection);
    let before = fs::read(&path).unwrap();

    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains('7') && text.contains('1') && text.contains("upgrade"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "this is a text that is no database, and long enough to be one").unwrap();
    let foreign = dir.path().join("foreign.db");
    raw(&foreign).execute_batch("CREATE TABLE Annals_Events (x)").unwrap();
    let meta = dir.path().join("meta.db");
    raw(&meta).execute_batch("CREATE TABLE annals_meta (name, content)").unwrap();
    let config = |path: &std::path::Path| SqliteConfig::new(path);
    for (config, kind, says, has_source) in [
        (config(&text), ErrorKind::Incompatible, "not an SQLite database", true),
        (config(&foreign), ErrorKind::Incompatible, "choose another `prefix`", true),
        (config(&meta), ErrorKind::Incompatible, "choose another `prefix`", true),
        (config(dir.path()), ErrorKind::InvalidInput, "is a directory", false),
        (config(&dir.path().join("no/e.db")), ErrorKind::InvalidInput, "create it first", false),
        (
            config(&dir.path().join("none.db")).with_create(false),
            ErrorKind::InvalidInput,
            "does not exist",
            false,
        ),
        (config(&dir.path().join("e.db")).with_readers(0), ErrorKind::InvalidInput, "1 to", false),
        (
            config(&dir.path().join("e.db")).with_prefix("a b"),
            ErrorKind::InvalidInput,
            "a b",
            false,
        ),
    ] {
        let error = SqliteStore::open(config).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.source().is_some(), has_source, "{error}");
        assert_eq!((error.backend(), error.operation()), (Some("sqlite"), Some("open")));
    }
    let names = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 3, "nothing was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_handles_open_a_new_file_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let path = dir.path().join(format!("{round}.db"));
        let handles = (0..10).map(|_| tokio::spawn(SqliteStore::open(SqliteConfig::new(&path))));
        let stores = within(try_join_all(handles)).await.unwrap();
        let stores: Vec<_> = stores.into_iter().map(Result::unwrap).collect();
        for (version, store) in (0u64..).zip(&stores) {
            let expected = annals_core::Version::new(version);
            store.append(append("a-1", expected, "x")).await.unwrap();
        }
        assert_eq!(all(&stores[0]).await.len(), 10);
    }
}

#[tokio::test]
async fn prefixes_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    raw(&path).execute_batch("CREATE TABLE orders (id); PRAGMA user_version = 42").unwrap();
    let shop = SqliteStore::open(SqliteConfig::new(&path).with_prefix("shop")).await.unwrap();
    let depot = SqliteStore::open(SqliteConfig::new(&path).with_prefix("depot")).await.unwrap();
    let mut live = depot.subscribe(annals_core::Subscribe::default()).await.unwrap();
    shop.append(append("a-1", ExpectedVersion::NoStream, "shop")).await.unwrap();
    depot.append(append("a-1", ExpectedVersion::NoStream, "depot")).await.unwrap();
    assert_eq!(data(&all(&shop).await), ["shop"]);
    assert_eq!(data(&all(&depot).await), ["depot"]);
    assert_eq!(within(live.next_event()).await.unwrap().position, Position::new(1));
    let user_version: i64 =
        raw(&path).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(user_version, 42, "the application's own");
}

#[tokio::test]
async fn a_store_in_memory_is_its_own_and_lives_with_its_handles() {
    let config = || SqliteConfig::from_url("sqlite::memory:").unwrap();
    let one = SqliteStore::open(config()).await.unwrap();
    let other = SqliteStore::open(config()).await.unwrap();
    assert!(!one.capabilities().durable);
    let clone = one.clone();
    clone.append(append("a-1", ExpectedVersion::NoStream, "x")).await.unwrap();
    drop(clone);
    assert_eq!(one.load_stream(&id("a-1")).await.unwrap().len(), 1);
    assert_eq!(all(&other).await.len(), 0);
}

/// If a file is deleted while a connection has it open, the connection breaks the next file of that
/// name. So `close` must wait until all connections are closed.
#[tokio::test]
async fn a_closed_store_can_be_deleted_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    for _ in 0..50 {
        let store = open(&path).await;
        let mut live = store.subscribe(annals_core::Subscribe::default()).await.unwrap();
        within(live.next()).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(live.next())).is_pending());
        store.append(append("a-1", ExpectedVersion::NoStream, "x")).await.unwrap();
        drop((live, store.load_stream(&id("a-1")).now_or_never()));
        store.close().await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::remove_file(&path).unwrap();
    }
}

/// A process can end, and its file be copied, as soon as the last handle is dropped.
#[tokio::test]
async fn the_file_is_whole_when_the_last_handle_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("events.db"), dir.path().join("copy.db"));
    for round in 1..=30 {
        let store = open(&path).await;
        store.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap();
        match round % 3 {
            0 => assert_eq!(store.load_stream(&id("a-1")).await.unwrap().len(), round),
            1 => {
                // A subscription that waits, so that the thread that polls runs as well.
                let mut live = store.subscribe(annals_core::Subscribe::default()).await.unwrap();
                while within(live.next()).await.unwrap().into_event().is_some() {}
                assert!(futures::poll!(std::pin::pin!(live.next())).is_pending());
            }
            _ => {}
        }
        drop(store);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "round {round}");
        fs::copy(&path, &copy).unwrap();
        assert_eq!(all(&open(&copy).await).await.len(), round);
        fs::remove_file(&copy).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_last_handle_drains_the_queue_and_leaves_nothing_open() {
    use futures::future::join_all;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path).await;
    // A waiting subscription, so that the thread that polls for other processes runs as well.
    let mut live = store.subscribe(annals_core::Subscribe::default()).await.unwrap();
    within(live.next()).await.unwrap();
    assert!(futures::poll!(std::pin::pin!(live.next())).is_pending());
    let lock = raw(&path);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    {
        let mut appends = std::pin::pin!(join_all((0..100).map(|n| store.append(append(
            "a-1",
            ExpectedVersion::Any,
            &n.to_string()
        )))));
        assert!(futures::poll!(&mut appends).is_pending());
        // All callers cancel their appends before the first is written.
    }
    drop((live, store));
    drop(lock);
    let open_files = || {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.starts_with(dir.path())).count()
    };
    until("all files are closed", || open_files() == 0).await;
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the WAL was written back");
    assert_eq!(all(&open(&path).await).await.len(), 100);
}
