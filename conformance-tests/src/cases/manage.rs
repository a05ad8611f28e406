//! Truncated, deleted and tombstoned streams.

use std::sync::Arc;

use annals_core::{
    ErrorKind, EventStoreExt, ExpectedVersion, Payload, ReadStream, Removal, Result, Snapshot,
    Store, StreamId, StreamState, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_kind, event, events, everything, exact, extend, id, number, read,
    },
};

cases! { "manage":
    truncated_events_are_gone [21] Truncate;
    truncation_keeps_the_version [21] Truncate;
    truncation_never_goes_back [21] Truncate;
    a_stream_can_be_truncated_whole [21] Truncate;
    a_deleted_stream_is_gone [21] Delete;
    a_deleted_stream_is_expected_in_two_ways [21] Delete;
    a_revived_stream_continues_its_numbering [21] Delete;
    a_stream_says_where_it_was_deleted [21] Truncate Delete;
    deletion_checks_the_version [2, 21] Delete;
    a_deleted_stream_can_be_deleted_again [21] Delete;
    positions_are_never_used_again [13, 21] Delete GlobalOrder;
    a_tombstoned_stream_is_closed [21] Tombstone;
    a_missing_stream_can_be_tombstoned [21] Tombstone;
    a_tombstone_keeps_the_version [15, 21] Tombstone;
    a_tombstoned_stream_has_no_snapshot [21, 22] Tombstone Snapshots;
    snapshots_of_removed_streams_are_not_refused [22] Tombstone Delete Snapshots;
    a_tombstone_checks_the_version [2, 21] Tombstone;
    removed_events_are_gone_from_all [21] Truncate Delete Tombstone GlobalOrder;
    removal_touches_no_other_stream [21] Truncate Delete Tombstone;
    a_deleted_stream_has_no_snapshot [21, 22] Delete Snapshots;
    streams_of_the_backend_are_not_touched [7, 21] Delete;
    deletions_and_appends_race_cleanly [2, 21] Delete;
    events_are_never_changed [21];
}

async fn versions(store: &Arc<dyn Store>, stream: &StreamId) -> Result<Vec<u64>> {
    Ok(store.load_stream(stream).await?.iter().map(|event| event.version.get()).collect())
}

async fn truncated_events_are_gone(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 10).await?;
    store.truncate(&stream, Version::new(7)).await?;
    assert_eq!(versions(&store, &stream).await?, [7, 8, 9, 10]);
    let info = store.stream_info(&stream).await?;
    assert_eq!((info.state, info.version.get()), (StreamState::Live, 10));
    assert_eq!(info.first_version, Some(Version::new(7)));
    for (options, due) in [
        (ReadStream::default().with_from(3).with_limit(2), vec![7, 8]),
        (ReadStream::default().with_from(8).backwards(), vec![8, 7]),
        (ReadStream::default().with_from(6).backwards(), vec![]),
        (ReadStream::default().backwards().with_limit(9), vec![10, 9, 8, 7]),
    ] {
        let read = read(&store, &stream, options.clone()).await?;
        assert_eq!(read.iter().map(number).collect::<Vec<_>>(), due, "{options:?}");
    }
    Ok(())
}

async fn truncation_keeps_the_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 5).await?;
    store.truncate(&stream, Version::new(4)).await?;
    let wrong = store.append_to(&stream, exact(2), [event(1)]).await;
    assert_conflict(wrong, &stream, exact(2), 5);
    let wrong = store.append_to(&stream, ExpectedVersion::NoStream, [event(1)]).await;
    assert_conflict(wrong, &stream, ExpectedVersion::NoStream, 5);
    assert_eq!(extend(&store, &stream, 5, 1).await?.last_version.get(), 6);
    assert_eq!(versions(&store, &stream).await?, [4, 5, 6]);
    Ok(())
}

async fn truncation_never_goes_back(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 5).await?;
    for (before, first) in [(3, 3), (3, 3), (1, 3), (0, 3), (4, 4)] {
        store.truncate(&stream, Version::new(before)).await?;
        assert_eq!(versions(&store, &stream).await?[0], first);
    }
    store.truncate(&id("missing-1"), Version::new(3)).await?;
    assert_eq!(store.stream_info(&id("missing-1")).await?.state, StreamState::Missing);
    Ok(())
}

async fn a_stream_can_be_truncated_whole(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for (n, before) in [6, 7, 1_000_000].into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        extend(&store, &stream, 0, 5).await?;
        store.truncate(&stream, Version::new(before)).await?;
        assert!(versions(&store, &stream).await?.is_empty());
        let info = store.stream_info(&stream).await?;
        assert_eq!((info.state, info.version.get()), (StreamState::Live, 5));
        assert_eq!(info.first_version, None);
        let wrong = store.append_to(&stream, ExpectedVersion::NoStream, [event(1)]).await;
        assert_conflict(wrong, &stream, ExpectedVersion::NoStream, 5);
        store.append_to(&stream, ExpectedVersion::StreamExists, [event(6)]).await?;
        assert_eq!(versions(&store, &stream).await?, [6]);
    }
    Ok(())
}

async fn a_deleted_stream_is_gone(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 5).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    for store in [&store, &other] {
        assert!(versions(store, &stream).await?.is_empty());
        let backwards = ReadStream::default().backwards();
        assert!(read(store, &stream, backwards).await?.is_empty());
        let info = store.stream_info(&stream).await?;
        assert_eq!((info.state, info.version.get()), (StreamState::Deleted, 5));
        assert_eq!(info.first_version, None);
        assert!(!info.exists());
    }
    Ok(())
}

async fn a_deleted_stream_is_expected_in_two_ways(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let holding = [ExpectedVersion::NoStream, exact(0), exact(3), ExpectedVersion::Any];
    for (n, expected) in holding.into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        extend(&store, &stream, 0, 3).await?;
        store.delete(&stream, ExpectedVersion::Any).await?;
        for wrong in [exact(1), exact(4)] {
            let refused = store.append_to(&stream, wrong, [event(1)]).await;
            assert_conflict(refused, &stream, wrong, 3);
        }
        let appended = store.append_to(&stream, expected, events(4..=5)).await?;
        assert!(!appended.replayed);
        assert_eq!(appended.first_version.get(), 4, "{expected} did not continue the numbering");
    }
    Ok(())
}

async fn a_revived_stream_continues_its_numbering(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut version = 0;
    for _ in 0..3 {
        extend(&store, &stream, version, 2).await?;
        version += 2;
        assert_eq!(versions(&store, &stream).await?, [version - 1, version]);
        let info = store.stream_info(&stream).await?;
        assert_eq!((info.state, info.version.get()), (StreamState::Live, version));
        assert_eq!(info.first_version, Some(Version::new(version - 1)));
        let again = store.append_to(&stream, ExpectedVersion::NoStream, [event(1)]).await;
        assert_conflict(again, &stream, ExpectedVersion::NoStream, version);
        store.delete(&stream, ExpectedVersion::Exact(version.into())).await?;
    }
    Ok(())
}

/// By this a reader tells a stream that was deleted, whose first events are not missed, from one that
/// was truncated.
async fn a_stream_says_where_it_was_deleted(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let deleted_at = async || store.stream_info(&stream).await.map(|info| info.deleted_at.get());
    assert_eq!(deleted_at().await?, 0, "of a stream that does not exist");
    extend(&store, &stream, 0, 3).await?;
    store.truncate(&stream, Version::new(3)).await?;
    assert_eq!(deleted_at().await?, 0, "after a truncation");
    store.delete(&stream, ExpectedVersion::Any).await?;
    assert_eq!(deleted_at().await?, 3, "after the deletion");
    extend(&store, &stream, 3, 4).await?;
    assert_eq!(deleted_at().await?, 3, "after the next append");
    store.truncate(&stream, Version::new(6)).await?;
    let info = store.stream_info(&stream).await?;
    assert_eq!((info.deleted_at.get(), info.first_version), (3, Some(Version::new(6))));
    store.truncate(&stream, Version::new(8)).await?;
    assert_eq!(deleted_at().await?, 3, "after all events were truncated");
    Ok(())
}

async fn deletion_checks_the_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    for wrong in [exact(2), exact(4), ExpectedVersion::NoStream] {
        assert_conflict(store.delete(&stream, wrong).await, &stream, wrong, 3);
    }
    assert_eq!(versions(&store, &stream).await?.len(), 3, "a refused call has deleted");
    store.delete(&stream, exact(3)).await?;
    assert!(versions(&store, &stream).await?.is_empty());
    Ok(())
}

async fn a_deleted_stream_can_be_deleted_again(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.delete(&stream, ExpectedVersion::Any).await?;
    assert_eq!(store.stream_info(&stream).await?.state, StreamState::Missing);
    extend(&store, &stream, 0, 3).await?;
    for _ in 0..3 {
        store.delete(&stream, ExpectedVersion::Any).await?;
        let info = store.stream_info(&stream).await?;
        assert_eq!((info.state, info.version.get()), (StreamState::Deleted, 3));
    }
    let gone = store.delete(&stream, ExpectedVersion::StreamExists).await;
    assert_conflict(gone, &stream, ExpectedVersion::StreamExists, 3);
    Ok(())
}

/// Removes the last events of the store: the next append must not get their positions again.
async fn positions_are_never_used_again(cx: Context) -> CaseResult {
    let store = cx.open().await;
    extend(&store, &id("order-1"), 0, 1).await?;
    let mut last = extend(&store, &id("gone-1"), 0, 5).await?.position;
    for round in 0..3 {
        store.delete(&id("gone-1"), ExpectedVersion::Any).await?;
        let next = cx.open().await;
        let appended = extend(&next, &id("order-1"), 1 + round, 1).await?;
        assert!(appended.position > last, "{} was given after {last}", appended.position);
        last = store.append_to("gone-1", ExpectedVersion::NoStream, [event(1)]).await?.position;
    }
    Ok(())
}

async fn a_tombstoned_stream_is_closed(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    store.tombstone(&stream, ExpectedVersion::Any).await?;
    for store in [&store, &other] {
        assert!(versions(store, &stream).await?.is_empty());
        let info = store.stream_info(&stream).await?;
        assert_eq!(info.state, StreamState::Tombstoned);
        assert_eq!(info.first_version, None);
        for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, exact(3), exact(1)] {
            let refused = store.append_to(&stream, expected, [event(4)]).await;
            let error = assert_kind(refused, ErrorKind::StreamClosed);
            assert_eq!(error.stream(), Some(&stream));
            assert_kind(store.tombstone(&stream, expected).await, ErrorKind::StreamClosed);
            if store.capabilities().delete {
                assert_kind(store.delete(&stream, expected).await, ErrorKind::StreamClosed);
            }
        }
    }
    assert!(versions(&store, &stream).await?.is_empty(), "a tombstoned stream was written to");
    Ok(())
}

async fn a_missing_stream_can_be_tombstoned(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.tombstone(&stream, ExpectedVersion::NoStream).await?;
    let refused = store.append_to(&stream, ExpectedVersion::Any, [event(1)]).await;
    assert_kind(refused, ErrorKind::StreamClosed);
    assert_eq!(store.stream_info(&stream).await?.state, StreamState::Tombstoned);
    Ok(())
}

async fn a_tombstone_keeps_the_version(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (n, version) in [1, 5, 12].into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        extend(&store, &stream, 0, version).await?;
        store.tombstone(&stream, exact(version)).await?;
        for store in [&store, &other] {
            let info = store.stream_info(&stream).await?;
            let found = (info.state, info.version.get(), info.deleted_at.get(), info.first_version);
            assert!(
                found == (StreamState::Tombstoned, version, version, None),
                "the stream was tombstoned at version {version}, and is said to be {info:?}"
            );
        }
    }
    Ok(())
}

async fn a_tombstoned_stream_has_no_snapshot(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (n, version) in [3, 2, 9].into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        extend(&store, &stream, 0, 3).await?;
        store.save_snapshot(&stream, Snapshot::new(version, Payload::json(&version)?)).await?;
        store.tombstone(&stream, ExpectedVersion::Any).await?;
        for store in [&store, &other] {
            let kept = store.load_snapshot(&stream).await?;
            assert!(
                kept.is_none(),
                "a snapshot of version {version} was saved, and the stream tombstoned: {kept:?}"
            );
        }
        store.delete_snapshot(&stream).await?;
    }
    Ok(())
}

/// To save a snapshot of a stream that was removed meanwhile is no mistake of the caller: it is
/// answered as done, and not kept.
async fn snapshots_of_removed_streams_are_not_refused(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for closes in [false, true] {
        let stream = id(format!("order-{closes}"));
        extend(&store, &stream, 0, 3).await?;
        match closes {
            true => store.tombstone(&stream, ExpectedVersion::Any).await?,
            false => store.delete(&stream, ExpectedVersion::Any).await?,
        }
        for version in [1, 3] {
            let saved =
                other.save_snapshot(&stream, Snapshot::new(version, Payload::json(&1)?)).await;
            let what = if closes { "tombstoned" } else { "deleted" };
            assert!(saved.is_ok(), "a snapshot of a stream that was {what}: {saved:?}");
            let kept = store.load_snapshot(&stream).await;
            assert!(matches!(kept, Ok(None)), "the snapshot of a stream that was {what}: {kept:?}");
        }
    }
    Ok(())
}

async fn a_tombstone_checks_the_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    for wrong in [exact(2), ExpectedVersion::NoStream] {
        assert_conflict(store.tombstone(&stream, wrong).await, &stream, wrong, 3);
    }
    extend(&store, &stream, 3, 1).await?;
    store.tombstone(&stream, exact(4)).await?;
    assert_kind(extend(&store, &stream, 4, 1).await, ErrorKind::StreamClosed);
    Ok(())
}

async fn removed_events_are_gone_from_all(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for round in 0..3 {
        for stream in ["kept-1", "cut-1", "deleted-1", "closed-1"] {
            extend(&store, &id(stream), round * 2, 2).await?;
        }
    }
    let before = everything(&store).await?;
    store.truncate(&id("cut-1"), Version::new(4)).await?;
    store.delete(&id("deleted-1"), ExpectedVersion::Any).await?;
    store.tombstone(&id("closed-1"), ExpectedVersion::Any).await?;
    let left: Vec<_> = before
        .into_iter()
        .filter(|event| match event.stream.as_str() {
            "kept-1" => true,
            "cut-1" => event.version.get() >= 4,
            _ => false,
        })
        .collect();
    let after = everything(&store).await?;
    match store.capabilities().removal {
        Removal::AtOnce => assert_eq!(after, left, "a read of all still gives removed events"),
        // Removed events may still be there until a clean-up, but all other events must be.
        _ => assert!(
            left.iter().all(|event| after.contains(event)),
            "events were removed that should have stayed"
        ),
    }
    Ok(())
}

async fn removal_touches_no_other_stream(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names = ["order-1", "order-10", "order", "Order-1", "order_1", "order-1 "];
    let removals = ["truncate", "delete", "tombstone"];
    for removal in removals {
        for name in names {
            extend(&store, &id(format!("{removal}{name}")), 0, 3).await?;
        }
    }
    store.truncate(&id("truncateorder-1"), Version::new(9)).await?;
    store.delete(&id("deleteorder-1"), ExpectedVersion::Any).await?;
    store.tombstone(&id("tombstoneorder-1"), ExpectedVersion::Any).await?;
    for removal in removals {
        for name in names {
            let left = versions(&store, &id(format!("{removal}{name}"))).await?.len();
            assert_eq!(left, if name == "order-1" { 0 } else { 3 }, "{removal} of {name:?}");
        }
    }
    Ok(())
}

/// If the snapshot stayed, the state from before the deletion would come back with the stream.
async fn a_deleted_stream_has_no_snapshot(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    store.save_snapshot(&stream, Snapshot::new(3, Payload::json(&3)?)).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    assert_eq!(store.load_snapshot(&stream).await?, None);
    Ok(())
}

async fn streams_of_the_backend_are_not_touched(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("$settings"));
    assert_kind(store.delete(&stream, ExpectedVersion::Any).await, ErrorKind::InvalidInput);
    if store.capabilities().truncate {
        assert_kind(store.truncate(&stream, 1.into()).await, ErrorKind::InvalidInput);
    }
    if store.capabilities().tombstone {
        let refused = store.tombstone(&stream, ExpectedVersion::Any).await;
        assert_kind(refused, ErrorKind::InvalidInput);
    }
    Ok(())
}

/// A deletion and an append race for the same version. If the append wins, the deletion is a
/// conflict.
async fn deletions_and_appends_race_cleanly(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    for round in 0..12 {
        let stream = id(format!("order-{round}"));
        extend(&handles[0], &stream, 0, 3).await?;
        let append = extend(&handles[0], &stream, 3, 1);
        let delete = handles[1].delete(&stream, exact(3));
        let (appended, deleted) = tokio::join!(append, delete);
        // If the deletion wins, the append succeeds too: `Exact` of the last version still holds.
        let due: &[u64] = match (&appended, &deleted) {
            (Ok(_), Ok(())) => &[4],
            (Ok(_), Err(e)) if e.kind() == ErrorKind::Conflict => &[1, 2, 3, 4],
            other => panic!("the race must not end with {other:?}"),
        };
        assert_eq!(versions(&handles[1], &stream).await?, due);
    }
    Ok(())
}

async fn events_are_never_changed(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 3).await?;
    let before = store.load_stream(&stream).await?;
    for base in 3..10 {
        extend(&other, &stream, base, 1).await?;
        let same_ids: Vec<_> = before.iter().map(|e| event(99).with_id(e.id)).collect();
        store.append_to("other-1", ExpectedVersion::Any, same_ids).await?;
        assert_eq!(store.load_stream(&stream).await?[..3], before[..], "a past event changed");
    }
    Ok(())
}
