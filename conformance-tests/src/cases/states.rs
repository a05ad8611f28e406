//! Snapshots of streams whose events are removed: the state is that of the events that are left, with
//! or without snapshots.

use std::{collections::HashMap, sync::Arc};

use annals_core::{
    EventStoreExt, ExpectedVersion, Payload, Result, Snapshot, Store, StreamId, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_conflict, assert_due, done, exact, extend, id, number},
};

cases! { "states":
    a_snapshot_of_a_deleted_stream_is_not_kept [22] Delete Snapshots;
    a_snapshot_of_a_closed_stream_is_not_kept [22] Tombstone Snapshots;
    an_old_snapshot_of_a_revived_stream_is_not_kept [22] Delete Snapshots;
    a_deleted_snapshot_lets_no_older_one_in [22] Delete Snapshots;
    a_snapshot_outlives_a_truncation [21, 22] Truncate Snapshots;
    a_refused_removal_keeps_the_snapshot [21, 22] Delete Snapshots;
    a_deletion_touches_no_other_snapshot [22] Delete Snapshots;
    saves_beside_a_deletion_leave_no_snapshot [22] Delete Snapshots;
    saves_beside_a_tombstone_leave_no_snapshot [22] Tombstone Snapshots;
    the_state_is_that_of_the_events_that_are_left [21, 22] Delete Truncate Snapshots;
}

fn snapshot(version: u64) -> Snapshot {
    Snapshot::new(version, Payload::json(&version).unwrap())
}

async fn save(store: &Arc<dyn Store>, stream: &StreamId, version: u64) -> Result<()> {
    store.save_snapshot(stream, snapshot(version)).await
}

/// The version of the snapshot.
async fn kept(store: &Arc<dyn Store>, stream: &StreamId) -> Result<Option<u64>> {
    Ok(store.load_snapshot(stream).await?.map(|snapshot| snapshot.version.get()))
}

/// What happens when a stream is deleted between an append and the snapshot after it.
async fn a_snapshot_of_a_deleted_stream_is_not_kept(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    save(&store, &stream, 2).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    for version in [3, 2, 1, 3] {
        for store in [&store, &other] {
            save(store, &stream, version).await?;
            assert_eq!(kept(store, &stream).await?, None, "version {version} was kept");
        }
    }
    extend(&other, &stream, 3, 1).await?;
    assert_eq!(kept(&store, &stream).await?, None, "a snapshot came back with the stream");
    Ok(())
}

async fn a_snapshot_of_a_closed_stream_is_not_kept(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    extend(&store, &id("order-1"), 0, 3).await?;
    save(&store, &id("order-1"), 3).await?;
    for stream in [id("order-1"), id("missing-1")] {
        store.tombstone(&stream, ExpectedVersion::Any).await?;
        for version in [3, 1, 4, 1_000] {
            for store in [&store, &other] {
                save(store, &stream, version).await?;
                assert_eq!(kept(store, &stream).await?, None, "version {version} was kept");
            }
        }
    }
    Ok(())
}

async fn an_old_snapshot_of_a_revived_stream_is_not_kept(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    let mut version = 0;
    for _ in 0..3 {
        extend(&store, &stream, version, 3).await?;
        version += 3;
        save(&store, &stream, version).await?;
        assert_due!(
            kept(&other, &stream).await?,
            Some(version),
            "the version of the snapshot that was saved"
        );
        store.delete(&stream, exact(version)).await?;
        extend(&other, &stream, version, 2).await?;
        for old in [version, version - 1, 1] {
            save(&store, &stream, old).await?;
            assert_eq!(kept(&other, &stream).await?, None, "version {old} was kept");
        }
        version += 2;
        for new in [version - 1, version] {
            save(&store, &stream, new).await?;
            assert_due!(
                kept(&other, &stream).await?,
                Some(new),
                "the version of the snapshot that was saved after the revival"
            );
        }
        save(&store, &stream, version - 2).await?;
        assert_due!(
            kept(&other, &stream).await?,
            Some(version),
            "the version of the snapshot after an older one was saved"
        );
    }
    Ok(())
}

async fn a_deleted_snapshot_lets_no_older_one_in(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    store.delete_snapshot(&stream).await?;
    extend(&store, &stream, 3, 2).await?;
    save(&store, &stream, 5).await?;
    store.delete_snapshot(&stream).await?;
    save(&store, &stream, 3).await?;
    assert_due!(
        kept(&store, &stream).await?,
        None,
        "the version of the snapshot after one of version 3 was saved, and the stream deleted at 3"
    );
    save(&store, &stream, 4).await?;
    assert_due!(
        kept(&store, &stream).await?,
        Some(4),
        "the version of the snapshot of the revived stream"
    );
    Ok(())
}

/// A truncation is made because of a snapshot.
async fn a_snapshot_outlives_a_truncation(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 5).await?;
    save(&store, &stream, 3).await?;
    store.truncate(&stream, Version::new(4)).await?;
    assert_due!(
        kept(&store, &stream).await?,
        Some(3),
        "the version of the snapshot after a truncation before 4"
    );
    store.truncate(&stream, Version::new(9)).await?;
    assert_due!(
        kept(&store, &stream).await?,
        Some(3),
        "the version of the snapshot after a truncation before 9"
    );
    save(&store, &stream, 5).await?;
    assert_due!(
        kept(&store, &stream).await?,
        Some(5),
        "the version of the snapshot that was saved after the truncation"
    );
    extend(&store, &stream, 5, 1).await?;
    save(&store, &stream, 6).await?;
    assert_due!(
        kept(&store, &stream).await?,
        Some(6),
        "the version of the snapshot of the last event"
    );
    Ok(())
}

async fn a_refused_removal_keeps_the_snapshot(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    save(&store, &stream, 2).await?;
    for wrong in [exact(2), exact(4), ExpectedVersion::NoStream] {
        assert_conflict(store.delete(&stream, wrong).await, &stream, wrong, 3);
        if store.capabilities().tombstone {
            assert_conflict(store.tombstone(&stream, wrong).await, &stream, wrong, 3);
        }
        assert_due!(
            kept(&store, &stream).await?,
            Some(2),
            "the version of the snapshot after a refused removal"
        );
    }
    save(&store, &stream, 3).await?;
    assert_due!(
        kept(&store, &stream).await?,
        Some(3),
        "the version of the snapshot that was saved after refused removals"
    );
    Ok(())
}

async fn a_deletion_touches_no_other_snapshot(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let others = ["order-10", "order", "Order-1", "order_1", "order-1 "].map(id);
    for stream in &others {
        extend(&store, stream, 0, 3).await?;
        save(&store, stream, 2).await?;
    }
    extend(&store, &id("order-1"), 0, 3).await?;
    store.delete(&id("order-1"), ExpectedVersion::Any).await?;
    for stream in &others {
        assert_eq!(kept(&store, stream).await?, Some(2), "{stream:?}");
        save(&store, stream, 3).await?;
        assert_eq!(kept(&store, stream).await?, Some(3), "{stream:?}");
    }
    // A deletion that changes nothing also forgets nothing.
    store.delete(&id("missing-1"), ExpectedVersion::Any).await?;
    save(&store, &id("missing-1"), 1).await?;
    assert_eq!(kept(&store, &id("missing-1")).await?, Some(1));
    Ok(())
}

async fn race(cx: &Context, closes: bool) -> Result<()> {
    let handles = cx.open_many(3).await;
    for round in 0..12 {
        let stream = id(format!("order-{round}"));
        extend(&handles[0], &stream, 0, 4).await?;
        let saving = |handle: usize, versions: [u64; 3]| {
            let (store, stream) = (handles[handle].clone(), stream.clone());
            async move {
                for version in versions {
                    save(&store, &stream, version).await?;
                }
                done()
            }
        };
        let removing = async {
            match closes {
                true => handles[0].tombstone(&stream, ExpectedVersion::Any).await,
                false => handles[0].delete(&stream, ExpectedVersion::Any).await,
            }
        };
        let (one, other) = (saving(1, [1, 2, 4]), saving(2, [3, 4, 4]));
        // Whichever is first in the list is also polled first.
        let (removed, one, other) = if round % 2 == 0 {
            let (one, other, removed) = tokio::join!(one, other, removing);
            (removed, one, other)
        } else {
            tokio::join!(removing, one, other)
        };
        removed.and(one).and(other)?;
        assert_eq!(kept(&handles[2], &stream).await?, None, "round {round}");
    }
    Ok(())
}

async fn saves_beside_a_deletion_leave_no_snapshot(cx: Context) -> CaseResult {
    race(&cx, false).await?;
    Ok(())
}

async fn saves_beside_a_tombstone_leave_no_snapshot(cx: Context) -> CaseResult {
    race(&cx, true).await?;
    Ok(())
}

/// What a program remembers of one stream.
#[derive(Default)]
struct Model {
    /// The versions that are left, and those that were truncated since the last deletion.
    left: Vec<u64>,
    truncated: Vec<u64>,
    version: u64,
}

/// A random program appends, removes, and saves snapshots of states that it computed some time ago.
/// A state from a snapshot must be the sum of the events since the last deletion.
async fn the_state_is_that_of_the_events_that_are_left(cx: Context) -> CaseResult {
    let (store, mut rng) = (cx.open().await, cx.rng(0));
    let streams = ["order-1", "order-2"].map(id);
    let mut models: HashMap<StreamId, Model> = HashMap::new();
    // States that were computed and not saved yet.
    let mut states: Vec<(StreamId, Snapshot)> = Vec::new();
    for _ in 0..120 {
        let stream = &streams[rng.usize(..2)];
        let model = models.entry(stream.clone()).or_default();
        match rng.u8(..8) {
            0..3 => {
                extend(&store, stream, model.version, 1).await?;
                model.version += 1;
                model.left.push(model.version);
            }
            3 => {
                let sum: u64 = model.truncated.iter().chain(&model.left).sum();
                let state = Snapshot::new(model.version, Payload::json(&sum)?);
                states.push((stream.clone(), state));
            }
            4 if !states.is_empty() => {
                let (stream, state) = states.swap_remove(rng.usize(..states.len()));
                store.save_snapshot(&stream, state).await?;
            }
            5 if rng.bool() => {
                store.delete(stream, ExpectedVersion::Any).await?;
                (model.left, model.truncated) = (Vec::new(), Vec::new());
            }
            // Truncate only what a snapshot covers: then no state is lost.
            6 => {
                if let Some(covered) = kept(&store, stream).await? {
                    store.truncate(stream, Version::new(covered + 1)).await?;
                    let is_gone = |version: &u64| *version <= covered;
                    model.truncated.extend(model.left.iter().copied().filter(is_gone));
                    model.left.retain(|version| !is_gone(version));
                }
            }
            _ => {}
        }
        let found = store.load_snapshot(stream).await?;
        let (from, state) = match &found {
            Some(found) => (found.version.get(), found.data.decode::<u64>()?),
            None => (0, 0),
        };
        let events = store.load_stream(stream).await?;
        let after = events.iter().filter(|event| event.version.get() > from);
        let sum = state + after.map(number).sum::<u64>();
        let due: u64 = model.truncated.iter().chain(&model.left).sum();
        assert_eq!(sum, due, "the state of {stream:?} with the snapshot {found:?}");
    }
    Ok(())
}
