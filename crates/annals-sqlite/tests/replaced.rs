//! The file of an open store is moved, deleted or replaced.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use annals_core::{
    Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, ReadAll, Subscribe, TryStreamExt,
};
use annals_sqlite::SqliteStore;
use common::{all, append, data, id, open, raw, within};

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Moves or copies the file of a store and its log.
fn each_file(from: &Path, to: &Path, act: impl Fn(PathBuf, PathBuf)) {
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (with_suffix(from, suffix), with_suffix(to, suffix));
        if from.exists() {
            act(from, to);
        }
    }
}

fn assert_refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(!error.is_retryable() && !error.outcome_unknown(), "{error}");
    assert!(error.to_string().contains("open the store again"), "{error}");
}

/// Nothing can be read or written through the handle.
async fn assert_unusable(store: &SqliteStore) {
    for _ in 0..2 {
        assert_refused(&store.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap_err());
        assert_refused(&store.load_stream(&id("a-1")).await.unwrap_err());
        let read = store.read_all(ReadAll::default()).try_collect::<Vec<_>>().await;
        assert_refused(&read.unwrap_err());
    }
    let appends =
        (0..10).map(|n| store.append(append(&format!("b-{n}"), ExpectedVersion::Any, "x")));
    for result in futures::future::join_all(appends).await {
        assert_refused(&result.unwrap_err());
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_is_neither_read_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let [path, backup, old] =
        ["events.db", "backup.db", "old.db"].map(|name| dir.path().join(name));
    let store = open(&path).await;
    store.append(append("a-1", ExpectedVersion::NoStream, "kept")).await.unwrap();
    raw(&path).execute_batch(&format!("VACUUM INTO '{}'", backup.display())).unwrap();
    store.append(append("a-1", ExpectedVersion::Any, "lost")).await.unwrap();
    let mut live = store.subscribe(Subscribe::default().after(1)).await.unwrap();
    assert_eq!(within(live.next_event()).await.unwrap().version.get(), 2);

    each_file(&path, &old, |from, to| fs::rename(from, to).unwrap());
    fs::copy(&backup, &path).unwrap();
    assert_unusable(&store).await;
    let ended = loop {
        match within(live.next()).await {
            Ok(message) => assert!(message.into_event().is_none()),
            Err(error) => break error,
        }
    };
    assert_refused(&ended);

    // A new handle uses the new file, while the old handle is still open.
    let new = open(&path).await;
    let mut live = new.subscribe(Subscribe::default().after(1)).await.unwrap();
    within(live.next()).await.unwrap();
    let appended = new.append(append("a-1", ExpectedVersion::Any, "new")).await.unwrap();
    assert_eq!(appended.last_version.get(), 2);
    assert_eq!(within(live.next_event()).await.unwrap().version.get(), 2);
    assert_unusable(&store).await;
    assert_eq!(data(&all(&new).await), ["kept", "new"]);
    drop(store);
    assert_eq!(data(&all(&open(&old).await).await), ["kept", "lost"]);
}

#[tokio::test]
async fn a_file_that_was_deleted_is_not_written() {
    for suffixes in [&["", "-wal", "-shm"][..], &[""], &["-wal"]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let store = open(&path).await;
        store.append(append("a-1", ExpectedVersion::NoStream, "x")).await.unwrap();
        let mut live = store.subscribe(Subscribe::default().after(1)).await.unwrap();
        within(live.next()).await.unwrap();
        {
            // The subscription waits for events when the file is deleted.
            let mut next = std::pin::pin!(live.next());
            assert!(futures::poll!(&mut next).is_pending());
            for suffix in suffixes {
                fs::remove_file(with_suffix(&path, suffix)).unwrap();
            }
            assert_refused(&within(next).await.unwrap_err());
        }
        assert_unusable(&store).await;
    }
}

#[tokio::test]
async fn a_file_that_was_moved_back_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("events.db"), dir.path().join("away.db"));
    let store = open(&path).await;
    store.append(append("a-1", ExpectedVersion::NoStream, "x")).await.unwrap();
    each_file(&path, &away, |from, to| fs::rename(from, to).unwrap());
    assert_unusable(&store).await;
    each_file(&away, &path, |from, to| fs::rename(from, to).unwrap());
    let appended = store.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap();
    assert_eq!(appended.last_version.get(), 2);
}

/// A handle that was opened by a symbolic link uses the file to which the link led.
#[tokio::test]
async fn a_link_that_leads_elsewhere_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, link] = ["one.db", "other.db", "link.db"].map(|name| dir.path().join(name));
    std::os::unix::fs::symlink(&one, &link).unwrap();
    open(&one).await.close().await.unwrap();
    open(&other).await.close().await.unwrap();
    let store = open(&link).await;
    store.append(append("a-1", ExpectedVersion::NoStream, "x")).await.unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    assert_unusable(&store).await;
}
