//! A file that was restored from an older copy, and what an older annals left in a file.
#![allow(clippy::unwrap_used)]

mod common;

use annals_core::{
    CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Payload, ReadAll,
    Snapshot, SnapshotStore, Subscribe, SubscriberId,
};
use common::{append, event, id, open, raw};
use futures::TryStreamExt;

/// The checkpoint is in another file, as that of a projection with a sink is.
#[tokio::test]
async fn a_checkpoint_from_before_the_restore_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [path, copy] = ["events.db", "copy.db"].map(|name| dir.path().join(name));
    let report = SubscriberId::new("report").unwrap();
    let store = open(&path).await;
    for _ in 0..5 {
        store.append(append("a-1", ExpectedVersion::Any, "x")).await.unwrap();
    }
    store.close().await.unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let store = open(&path).await;
    for _ in 0..5 {
        store.append(append("a-1", ExpectedVersion::Any, "lost")).await.unwrap();
    }
    let checkpoint = store.last_position().await.unwrap();
    let restored = open(&copy).await;
    for _ in 0..4 {
        restored.append(append("a-1", ExpectedVersion::Any, "new")).await.unwrap();
        let refused = restored.subscribe(Subscribe::default().after(checkpoint)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BeyondEnd);
        let after = ReadAll::default().after(checkpoint);
        let refused = restored.read_all(after).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BeyondEnd);
        assert!(refused.to_string().contains("position 10"), "{refused}");
    }
    restored.save_checkpoint(&report, 9.into()).await.unwrap();
    let from = restored.load_checkpoint(&report).await.unwrap().unwrap();
    restored.subscribe(Subscribe::default().after(from)).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_outlived_its_stream_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (store, stream) = (open(&path).await, id("a-1"));
    store.append_to(&stream, ExpectedVersion::Any, [event("x"), event("x")]).await.unwrap();
    store.delete(&stream, ExpectedVersion::Any).await.unwrap();
    let left = "INSERT INTO annals_snapshots VALUES ('a-1', 2, 0, x'00', x'')";
    raw(&path).execute_batch(left).unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), None);
    store.append_to(&stream, ExpectedVersion::Any, [event("x")]).await.unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), None);
    let new = Snapshot::new(3, Payload::empty());
    store.save_snapshot(&stream, new.clone()).await.unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), Some(new));
}
