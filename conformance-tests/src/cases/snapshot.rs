//! Snapshots: the latest one of each stream is kept.

use annals_core::{ErrorKind, Payload, Snapshot};
use futures::future::try_join_all;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_due, assert_kind, id},
};

cases! { "snapshot":
    a_snapshot_is_kept_byte_for_byte [10, 22] Snapshots;
    the_latest_snapshot_is_kept [22] Snapshots;
    snapshots_are_kept_apart [22] Snapshots;
    a_snapshot_can_be_deleted [22] Snapshots;
    a_snapshot_over_the_limit_is_refused [7, 22] Snapshots;
    racing_snapshots_leave_the_latest [22] Snapshots;
}

fn snapshot(version: u64) -> Snapshot {
    Snapshot::new(version, Payload::json(&version).unwrap())
}

async fn a_snapshot_is_kept_byte_for_byte(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    assert_due!(
        store.load_snapshot(&stream).await?,
        None,
        "the snapshot of a stream that has none"
    );
    let every_byte = Payload::binary((0..=255).collect::<Vec<u8>>());
    let json = Payload::json_text(r#" {"b":1.10,"a":"\u0000"} "#)?;
    let states = [(1, every_byte.clone(), json.clone()), (2, json, every_byte)];
    for (version, data, metadata) in states {
        let saved = Snapshot::new(version, data).with_metadata(metadata);
        store.save_snapshot(&stream, saved.clone()).await?;
        for store in [&store, &other] {
            assert_due!(
                store.load_snapshot(&stream).await?.as_ref(),
                Some(&saved),
                "the snapshot that was saved"
            );
        }
    }
    let empty = Snapshot::new(3, Payload::empty());
    store.save_snapshot(&stream, empty.clone()).await?;
    assert_due!(
        store.load_snapshot(&stream).await?,
        Some(empty),
        "the empty snapshot that was saved"
    );
    Ok(())
}

async fn the_latest_snapshot_is_kept(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut latest = 0;
    for version in [3, 1, 2, 5, 4, 5, 100, 99] {
        store.save_snapshot(&stream, snapshot(version)).await?;
        latest = version.max(latest);
        let kept = store.load_snapshot(&stream).await?.unwrap();
        assert_due!(
            kept.version.get(),
            latest,
            "the version of the snapshot after {version} was saved"
        );
        assert_eq!(kept.data.decode::<u64>()?, latest, "the state is that of another version");
    }
    // A snapshot of the same version replaces the old one: its state may have a newer format.
    let rebuilt = Snapshot::new(100, Payload::json("rebuilt")?);
    store.save_snapshot(&stream, rebuilt.clone()).await?;
    assert_due!(
        store.load_snapshot(&stream).await?,
        Some(rebuilt),
        "the snapshot that replaced one of the same version"
    );
    Ok(())
}

async fn snapshots_are_kept_apart(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names = ["order-1", "Order-1", "order-1 ", "order_1", "order%1", "日本"];
    for (version, name) in (1..).zip(names) {
        store.save_snapshot(&id(name), snapshot(version)).await?;
    }
    for (version, name) in (1..).zip(names) {
        assert_eq!(store.load_snapshot(&id(name)).await?, Some(snapshot(version)), "{name:?}");
    }
    Ok(())
}

async fn a_snapshot_can_be_deleted(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.delete_snapshot(&stream).await?;
    store.save_snapshot(&id("order-2"), snapshot(9)).await?;
    store.save_snapshot(&stream, snapshot(9)).await?;
    store.delete_snapshot(&stream).await?;
    assert_due!(store.load_snapshot(&stream).await?, None, "the snapshot after it was deleted");
    assert_eq!(store.load_snapshot(&id("order-2")).await?, Some(snapshot(9)));
    // After the deletion a snapshot of a smaller version is kept.
    store.save_snapshot(&stream, snapshot(3)).await?;
    assert_due!(
        store.load_snapshot(&stream).await?,
        Some(snapshot(3)),
        "the snapshot of version 3 that was saved after a deletion of version 9"
    );
    Ok(())
}

async fn a_snapshot_over_the_limit_is_refused(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let most = store.capabilities().max_event_bytes;
    let state = |size| Snapshot::new(1, Payload::binary(vec![7; size]));
    assert_kind(store.save_snapshot(&stream, state(most + 1)).await, ErrorKind::LimitExceeded);
    assert_due!(
        store.load_snapshot(&stream).await?,
        None,
        "the snapshot after one over the limit was refused"
    );
    store.save_snapshot(&stream, state(most)).await?;
    assert_due!(
        store.load_snapshot(&stream).await?,
        Some(state(most)),
        "the snapshot at the limit"
    );
    Ok(())
}

async fn racing_snapshots_leave_the_latest(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let mut versions: Vec<u64> = (1..=24).collect();
    cx.rng(0).shuffle(&mut versions);
    let saving = versions.into_iter().map(|version| {
        let store = handles[version as usize % 2].clone();
        tokio::spawn(async move { store.save_snapshot(&id("order-1"), snapshot(version)).await })
    });
    for saved in try_join_all(saving).await.unwrap() {
        saved?;
    }
    assert_eq!(handles[0].load_snapshot(&id("order-1")).await?, Some(snapshot(24)));
    Ok(())
}
