//! Snapshots and checkpoints.

use annals_core::{ErrorKind, Payload, Position, Snapshot, SubscriberId};
use futures::future::try_join_all;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_kind, done, id},
};

cases! { "keep":
    a_snapshot_is_kept_byte_for_byte [10, 22] Snapshots;
    the_latest_snapshot_is_kept [22] Snapshots;
    snapshots_are_kept_apart [22] Snapshots;
    a_snapshot_can_be_forgotten [22] Snapshots;
    a_snapshot_over_the_limit_is_refused [7, 22] Snapshots;
    racing_snapshots_leave_the_latest [22] Snapshots;
    a_checkpoint_never_moves_back [22] Checkpoints;
    a_checkpoint_moves_back_when_asked_to [22] Checkpoints;
    checkpoints_are_kept_apart [22] Checkpoints;
    racing_checkpoints_leave_the_greatest [22] Checkpoints;
}

fn subscriber(name: &str) -> SubscriberId {
    SubscriberId::new(name).unwrap()
}

fn snapshot(version: u64) -> Snapshot {
    Snapshot::new(version, Payload::json(&version).unwrap())
}

async fn a_snapshot_is_kept_byte_for_byte(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    assert_eq!(store.load_snapshot(&stream).await?, None);
    let every_byte = Payload::binary((0..=255).collect::<Vec<u8>>());
    let json = Payload::json_text(r#" {"b":1.10,"a":"\u0000"} "#)?;
    let states = [(1, every_byte.clone(), json.clone()), (2, json, every_byte)];
    for (version, data, metadata) in states {
        let saved = Snapshot::new(version, data).with_metadata(metadata);
        store.save_snapshot(&stream, saved.clone()).await?;
        for store in [&store, &other] {
            assert_eq!(store.load_snapshot(&stream).await?.as_ref(), Some(&saved));
        }
    }
    let empty = Snapshot::new(3, Payload::empty());
    store.save_snapshot(&stream, empty.clone()).await?;
    assert_eq!(store.load_snapshot(&stream).await?, Some(empty));
    Ok(())
}

async fn the_latest_snapshot_is_kept(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut latest = 0;
    for version in [3, 1, 2, 5, 4, 5, 100, 99] {
        store.save_snapshot(&stream, snapshot(version)).await?;
        latest = version.max(latest);
        let kept = store.load_snapshot(&stream).await?.unwrap();
        assert_eq!(kept.version.get(), latest);
        assert_eq!(kept.data.decode::<u64>()?, latest, "another state than that of its version");
    }
    // One of the same version replaces: the state may have another shape by now.
    let rebuilt = Snapshot::new(100, Payload::json("rebuilt")?);
    store.save_snapshot(&stream, rebuilt.clone()).await?;
    assert_eq!(store.load_snapshot(&stream).await?, Some(rebuilt));
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

async fn a_snapshot_can_be_forgotten(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.delete_snapshot(&stream).await?;
    store.save_snapshot(&id("order-2"), snapshot(9)).await?;
    store.save_snapshot(&stream, snapshot(9)).await?;
    store.delete_snapshot(&stream).await?;
    assert_eq!(store.load_snapshot(&stream).await?, None);
    assert_eq!(store.load_snapshot(&id("order-2")).await?, Some(snapshot(9)));
    // What was forgotten is not later than what comes.
    store.save_snapshot(&stream, snapshot(3)).await?;
    assert_eq!(store.load_snapshot(&stream).await?, Some(snapshot(3)));
    Ok(())
}

async fn a_snapshot_over_the_limit_is_refused(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let most = store.capabilities().max_event_bytes;
    let state = |size| Snapshot::new(1, Payload::binary(vec![7; size]));
    assert_kind(store.save_snapshot(&stream, state(most + 1)).await, ErrorKind::LimitExceeded);
    assert_eq!(store.load_snapshot(&stream).await?, None);
    store.save_snapshot(&stream, state(most)).await?;
    assert_eq!(store.load_snapshot(&stream).await?, Some(state(most)));
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

async fn a_checkpoint_never_moves_back(cx: Context) -> CaseResult {
    let (store, other, report) = (cx.open().await, cx.open().await, subscriber("report"));
    assert_eq!(store.load_checkpoint(&report).await?, None);
    let mut greatest = Position::START;
    for position in [0, 5, 3, 5, 0, 1 << 40, 6, i64::MAX as u64] {
        let position = Position::new(position);
        greatest = greatest.max(position);
        assert_eq!(store.save_checkpoint(&report, position).await?, greatest, "what is kept now");
        assert_eq!(other.load_checkpoint(&report).await?, Some(greatest));
    }
    Ok(())
}

async fn a_checkpoint_moves_back_when_asked_to(cx: Context) -> CaseResult {
    let (store, report) = (cx.open().await, subscriber("report"));
    store.save_checkpoint(&report, 9.into()).await?;
    store.reset_checkpoint(&report, Some(4.into())).await?;
    assert_eq!(store.load_checkpoint(&report).await?, Some(4.into()));
    assert_eq!(store.save_checkpoint(&report, 5.into()).await?, 5.into());
    store.reset_checkpoint(&report, None).await?;
    assert_eq!(store.load_checkpoint(&report).await?, None);
    store.reset_checkpoint(&report, None).await?;
    store.reset_checkpoint(&report, Some(7.into())).await?;
    assert_eq!(store.load_checkpoint(&report).await?, Some(7.into()));
    Ok(())
}

async fn checkpoints_are_kept_apart(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names = ["report", "Report", "report ", "re_ort", "re%", "'report'", "日本"];
    for (position, name) in (1u64..).zip(names) {
        store.save_checkpoint(&subscriber(name), position.into()).await?;
    }
    store.reset_checkpoint(&subscriber("Report"), None).await?;
    for (position, name) in (1u64..).zip(names) {
        let due = (name != "Report").then_some(position.into());
        assert_eq!(store.load_checkpoint(&subscriber(name)).await?, due, "{name:?}");
    }
    Ok(())
}

async fn racing_checkpoints_leave_the_greatest(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let mut positions: Vec<u64> = (1..=40).collect();
    cx.rng(0).shuffle(&mut positions);
    let saving = positions.into_iter().map(|position| {
        let store = handles[position as usize % 2].clone();
        tokio::spawn(async move {
            let kept = store.save_checkpoint(&subscriber("report"), position.into()).await?;
            assert!(kept.get() >= position, "saved {position}, and {kept} is kept");
            done()
        })
    });
    for saved in try_join_all(saving).await.unwrap() {
        saved?;
    }
    assert_eq!(handles[0].load_checkpoint(&subscriber("report")).await?, Some(40.into()));
    Ok(())
}
