//! The ends of the number line, for each number that a caller can choose.

use annals_core::{
    Append, Direction, ErrorKind, EventStoreExt, ExpectedVersion, Payload, Position, ReadAll,
    ReadStream, Result, Snapshot, Start, Store, StreamState, Subscribe, SubscriberId, Version,
};
use chrono::DateTime;
use std::sync::Arc;

use super::resume::first;
use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_holds, assert_kind, assert_versions, catch_up, event, events,
        everything, exact, extend, id, read, read_all, size,
    },
};

cases! { "ends":
    reads_of_a_stream_at_the_ends [11];
    reads_of_all_at_the_ends [12] GlobalOrder;
    truncations_at_the_ends [21] Truncate;
    expected_versions_at_the_ends [2];
    removals_expect_versions_at_the_ends [2, 21] Truncate Delete;
    multi_stream_appends_expect_versions_at_the_ends [2, 9] MultiStreamAppend;
    versions_of_removed_streams_at_the_ends [15, 21] Truncate Delete;
    checkpoints_at_the_ends [22] Checkpoints;
    snapshots_at_the_ends [22] Snapshots;
    lists_at_the_ends [25] ListStreams;
    a_stream_may_begin_at_a_great_version [11, 25] ExactImport Truncate;
}

/// Numbers that wrap or overflow in smaller or signed types. Some end in the bits of small numbers.
const GREAT: [u64; 10] = [
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 2,
    (1 << 53) + 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 2,
    u64::MAX - 1,
    u64::MAX,
];

async fn reads_of_a_stream_at_the_ends(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 5).await?;
    let froms = GREAT.into_iter().chain([0, 1, 3, 5, 6]).map(Some).chain([None]);
    for from in froms {
        for limit in GREAT.into_iter().chain([0, 1, 2, 5]).map(Some).chain([None]) {
            for direction in [Direction::Forwards, Direction::Backwards] {
                let mut options = ReadStream::default();
                (options.from, options.limit) = (from.map(Version::new), limit);
                options.direction = direction;
                let most = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
                let due: Vec<u64> = match direction {
                    Direction::Forwards => (from.unwrap_or(1).max(1)..=5).take(most).collect(),
                    Direction::Backwards => {
                        (1..=from.unwrap_or(5).min(5)).rev().take(most).collect()
                    }
                };
                let got = read(&store, &stream, options.clone()).await?;
                assert_versions(format!("reading 5 events with {options:?}"), &got, due);
            }
        }
    }
    Ok(())
}

async fn reads_of_all_at_the_ends(cx: Context) -> CaseResult {
    let store = cx.open().await;
    extend(&store, &id("order-1"), 0, 5).await?;
    let all = everything(&store).await?;
    for limit in GREAT.into_iter().chain([0, 1, 2, 5]) {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        for (n, event) in all.iter().enumerate() {
            let options = ReadAll::default().after(event.position).with_limit(limit);
            let got = read_all(&store, options.clone()).await?;
            let due = all[n + 1..].iter().map(|e| e.version.get()).take(most);
            assert_versions(format!("reading all with {options:?}"), &got, due);
            let options = ReadAll::default().before(event.position).with_limit(limit);
            let got = read_all(&store, options.clone()).await?;
            let due = all[..n].iter().rev().map(|e| e.version.get()).take(most);
            assert_versions(format!("reading all with {options:?}"), &got, due);
        }
        let got = read_all(&store, ReadAll::default().after(0).with_limit(limit)).await?;
        assert_versions(format!("reading {limit} after the start"), &got, (1..=5).take(most));
        let got = read_all(&store, ReadAll::default().before(0).with_limit(limit)).await?;
        assert_versions(format!("reading {limit} before the start"), &got, []);
        let got = read_all(&store, ReadAll::default().backwards().with_limit(limit)).await?;
        assert_versions(format!("the last {limit} of all"), &got, (1..=5).rev().take(most));
    }
    let end = everything(&store).await?.last().map_or(Position::START, |e| e.position);
    for place in GREAT.into_iter().rev().take(5).map(Position::new).filter(|place| *place > end) {
        for limit in [1, u64::MAX] {
            let options = ReadAll::default().with_limit(limit);
            for options in [options.clone().after(place), options.before(place)] {
                assert_kind(read_all(&store, options).await, ErrorKind::BeyondEnd);
            }
        }
        let to = Subscribe::default().after(place);
        assert_kind(first(&cx, &store, to).await, ErrorKind::BeyondEnd);
    }
    Ok(())
}

async fn truncations_at_the_ends(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let small = [(0, 1), (1, 1), (2, 2), (4, 4), (5, 5), (6, 6), (7, 6)];
    for (before, first) in small.into_iter().chain(GREAT.map(|before| (before, 6))) {
        let stream = id(format!("order-{before}"));
        extend(&store, &stream, 0, 5).await?;
        store.truncate(&stream, before.into()).await?;
        let after = format!("after 5 events and a truncation before {before}");
        assert_holds(&after, &store, &stream, first..=5).await?;
        let info = store.stream_info(&stream).await?;
        let due = (StreamState::Live, 5, (first < 6).then(|| Version::new(first)));
        let found = (info.state, info.version.get(), info.first_version);
        assert!(found == due, "{after} the stream is {info:?}");
        extend(&store, &stream, 5, 2).await?;
        // An event that came after the truncation is not before it, whatever its number says.
        assert_holds(format!("{after} and 2 more events"), &store, &stream, first..=7).await?;
        store.truncate(&stream, before.min(6).into()).await?;
        assert_holds(format!("{after}, made again"), &store, &stream, first..=7).await?;
    }
    store.truncate(&id("missing-1"), u64::MAX.into()).await?;
    let info = store.stream_info(&id("missing-1")).await?;
    assert!(info.state == StreamState::Missing, "a truncation made a missing stream {info:?}");
    extend(&store, &id("missing-1"), 0, 2).await?;
    assert_holds("a stream that was truncated before it was", &store, &id("missing-1"), 1..=2)
        .await?;
    Ok(())
}

async fn expected_versions_at_the_ends(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    for wrong in GREAT {
        let refused = store.append_to(&stream, exact(wrong), [event(1)]).await;
        assert_conflict(refused, &stream, exact(wrong), 0);
    }
    extend(&store, &stream, 0, 2).await?;
    for wrong in GREAT {
        // With events that stand in the stream, and with new ones.
        let stored = store.load_stream(&stream).await?;
        let known: Vec<_> = stored.iter().map(|e| event(e.version.get()).with_id(e.id)).collect();
        for sent in [known, events(1..=2)] {
            let refused = store.append_to(&stream, exact(wrong), sent).await;
            assert_conflict(refused, &stream, exact(wrong), 2);
        }
    }
    assert_holds("after refused appends", &store, &stream, 1..=2).await?;
    Ok(())
}

async fn removals_expect_versions_at_the_ends(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 2).await?;
    let tombstones = store.capabilities().tombstone;
    for wrong in GREAT.into_iter().chain([0, 1, 3]) {
        assert_conflict(store.delete(&stream, exact(wrong)).await, &stream, exact(wrong), 2);
        if tombstones {
            let refused = store.tombstone(&stream, exact(wrong)).await;
            assert_conflict(refused, &stream, exact(wrong), 2);
        }
    }
    assert_holds("after refused removals", &store, &stream, 1..=2).await?;
    // A stream whose events were all truncated, and one that never was.
    store.truncate(&stream, u64::MAX.into()).await?;
    for (stream, version) in [(&stream, 2), (&id("missing-1"), 0)] {
        for wrong in [1, 3, u64::MAX] {
            let refused = store.delete(stream, exact(wrong)).await;
            assert_conflict(refused, stream, exact(wrong), version);
        }
    }
    store.delete(&stream, exact(2)).await?;
    for wrong in [1, 3, u64::MAX] {
        assert_conflict(store.delete(&stream, exact(wrong)).await, &stream, exact(wrong), 2);
    }
    let exists = ExpectedVersion::StreamExists;
    assert_conflict(store.delete(&stream, exists).await, &stream, exists, 2);
    for holds in [ExpectedVersion::NoStream, exact(0), exact(2), ExpectedVersion::Any] {
        store.delete(&stream, holds).await?;
    }
    Ok(())
}

async fn multi_stream_appends_expect_versions_at_the_ends(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    extend(&store, &b, 0, 2).await?;
    for wrong in GREAT {
        let good = || Append::new(a.clone(), ExpectedVersion::NoStream, events(1..=2));
        let bad = || Append::new(b.clone(), exact(wrong), events(1..=2));
        for appends in [vec![good(), bad()], vec![bad(), good()]] {
            assert_conflict(store.append_multi(appends).await, &b, exact(wrong), 2);
        }
    }
    assert_holds("after refused appends", &store, &a, []).await?;
    assert_holds("after refused appends", &store, &b, 1..=2).await?;
    Ok(())
}

async fn versions_of_removed_streams_at_the_ends(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for name in ["cut-1", "whole-1", "gone-1", "new-1"] {
        extend(&store, &id(name), 0, 3).await?;
    }
    store.truncate(&id("cut-1"), 3.into()).await?;
    store.truncate(&id("whole-1"), u64::MAX.into()).await?;
    for name in ["gone-1", "new-1"] {
        store.delete(&id(name), ExpectedVersion::Any).await?;
    }
    extend(&store, &id("new-1"), 3, 2).await?;
    for (name, last) in [("cut-1", 3), ("whole-1", 3), ("gone-1", 3), ("new-1", 5)] {
        let after = |version: u64| {
            let start = Start::AfterVersion(version.into());
            Subscribe::to(id(name)).with_start(start)
        };
        for version in GREAT.into_iter().chain([last + 1]) {
            let refused = first(&cx, &store, after(version)).await;
            assert_kind(refused, ErrorKind::BeyondEnd);
        }
        let got = catch_up(&cx, &mut store.subscribe(after(last)).await?).await.0;
        assert_versions(format!("{name} after its version {last}"), &got, []);
        for options in [
            ReadStream::default().with_from(u64::MAX),
            ReadStream::default().with_from(last + 1).with_limit(u64::MAX),
        ] {
            let got = read(&store, &id(name), options.clone()).await?;
            assert_versions(format!("{name} with {options:?}"), &got, []);
        }
        let options = ReadStream::default().with_from(u64::MAX).backwards().with_limit(u64::MAX);
        let mut got = read(&store, &id(name), options).await?;
        got.reverse();
        let left = store.load_stream(&id(name)).await?;
        assert_versions(
            format!("{name} backwards from the greatest version"),
            &got,
            left.iter().map(|event| event.version.get()),
        );
    }
    Ok(())
}

/// A number that a store cannot keep is refused: the store never keeps another one.
async fn checkpoints_at_the_ends(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (n, place) in GREAT.into_iter().chain([0, 1]).map(Position::new).enumerate() {
        let [saved, swapped, reset] = ["saved", "swapped", "reset"]
            .map(|how| SubscriberId::new(format!("{how}-{n}")).unwrap());
        let answers = [
            (&saved, store.save_checkpoint(&saved, place).await.map(|kept| kept == place)),
            (&swapped, store.swap_checkpoint(&swapped, None, place).await),
            (&reset, store.reset_checkpoint(&reset, Some(place)).await.map(|()| true)),
        ];
        for (subscriber, answer) in answers {
            let kept = other.load_checkpoint(subscriber).await?;
            match answer {
                Ok(done) => assert!(
                    done && kept == Some(place),
                    "the checkpoint {place} was {subscriber}, and the store keeps {kept:?}"
                ),
                Err(error) => {
                    assert!(place.get() > i64::MAX as u64, "{place} was refused: {error:?}");
                    assert_kind(Err::<(), _>(error), ErrorKind::InvalidInput);
                    assert!(kept.is_none(), "{place} was refused, but {kept:?} is kept");
                }
            }
        }
        // The greatest checkpoint never moves back, and is reset like any other.
        if let Some(kept) = other.load_checkpoint(&saved).await? {
            assert!(store.save_checkpoint(&saved, 1.into()).await? >= kept, "{kept} moved back");
            store.reset_checkpoint(&saved, Some(1.into())).await?;
            assert_eq!(other.load_checkpoint(&saved).await?, Some(1.into()), "reset from {kept}");
        }
    }
    Ok(())
}

async fn snapshots_at_the_ends(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for version in GREAT.into_iter().chain([0, 1]) {
        let stream = id(format!("order-{version}"));
        extend(&store, &stream, 0, 1).await?;
        let snapshot = Snapshot::new(version, Payload::json(&version)?);
        let saved = store.save_snapshot(&stream, snapshot.clone()).await;
        let kept = other.load_snapshot(&stream).await?;
        match saved {
            Ok(()) => assert!(
                kept.as_ref() == Some(&snapshot),
                "a snapshot of version {version} was saved, and the store keeps {kept:?}"
            ),
            Err(error) => {
                assert!(version > i64::MAX as u64, "version {version} was refused: {error:?}");
                assert_kind(Err::<(), _>(error), ErrorKind::InvalidInput);
                assert!(kept.is_none(), "version {version} was refused, but {kept:?} is kept");
            }
        }
    }
    Ok(())
}

async fn lists_at_the_ends(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names = ["a", "a-1", "b", "z", "\u{10ffff}"];
    for name in names {
        extend(&store, &id(name), 0, 1).await?;
    }
    let list = async |after: Option<&str>, limit: usize| -> Result<Vec<String>> {
        let listed = store.list_streams(after.map(id).as_ref(), limit).await?;
        Ok(listed.into_iter().map(|(stream, _)| stream.to_string()).collect())
    };
    let limits = GREAT.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for limit in limits.into_iter().chain([0, 1, 4, 5, 6]) {
        for (after, from) in
            [(None, 0), (Some("a"), 1), (Some("a-0"), 1), (Some("b"), 3), (Some("\u{10ffff}"), 5)]
        {
            let due: Vec<_> = names[from..].iter().take(limit).copied().collect();
            let got = list(after, limit).await?;
            assert!(got == due, "{limit} streams after {after:?} should be {due:?}; got {got:?}");
        }
    }
    Ok(())
}

/// An import begins late, at versions that do not fit into smaller numbers.
async fn a_stream_may_begin_at_a_great_version(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let time = DateTime::from_timestamp(1_600_000_000, 0).unwrap();
    for base in [(1 << 31) - 2, (1 << 32) - 2, (1 << 53) - 2, 1 << 62] {
        let stream = id(format!("order-{base}"));
        let imported: Vec<_> = (base + 1..=base + 3)
            .map(|n| event(n).recorded(stream.clone(), n.into(), Position::new(n), time))
            .collect();
        store.import(imported.clone()).await?;
        store.import(imported).await?;
        extend(&store, &stream, base + 3, 2).await?;
        assert_great(&cx, &store, &stream, base).await?;
    }
    Ok(())
}

async fn assert_great(
    cx: &Context,
    store: &Arc<dyn Store>,
    stream: &annals_core::StreamId,
    base: u64,
) -> Result<()> {
    let after = format!("after an import that begins at version {}", base + 1);
    assert_holds(&after, store, stream, base + 1..=base + 5).await?;
    let options = ReadStream::default().with_from(base + 3).backwards().with_limit(2);
    let got = read(store, stream, options.clone()).await?;
    assert_versions(format!("{after}, {options:?}"), &got, [base + 3, base + 2]);
    let wrong = store.append_to(stream, exact(5), [event(1)]).await;
    assert_conflict(wrong, stream, exact(5), base + 5);
    let start = Start::AfterVersion((base + 3).into());
    let to = Subscribe::to(stream.clone()).with_start(start);
    let got = catch_up(cx, &mut store.subscribe(to).await?).await.0;
    assert_versions(format!("{after}, a subscription from {start:?}"), &got, base + 4..=base + 5);
    store.truncate(stream, (base + 4).into()).await?;
    let all = store.load_stream(stream).await?;
    assert!(all.len() == size(2), "{after}, truncated before {}: {all:?}", base + 4);
    Ok(())
}
