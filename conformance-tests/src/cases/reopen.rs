//! What a store must not forget when its last handle is dropped and it is opened again.

use annals_core::{
    Append, Appended, ErrorKind, EventStoreExt, ExpectedVersion, NewEvent, Payload, Position,
    ReadAll, Recognition, Result, Snapshot, Source, StreamState, Subscribe, SubscriberId,
};

use super::resume::first;
use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_events, assert_holds, assert_kind, assert_versions, catch_up,
        event, events, everything, exact, extend, id, ids, read_all, take,
    },
};

cases! { "reopen":
    positions_of_a_deleted_end_are_not_given_again [13, 21, 23] Delete GlobalOrder Durable;
    positions_of_a_truncated_end_are_not_given_again [13, 21, 23] Truncate GlobalOrder Durable;
    positions_of_a_tombstoned_end_are_not_given_again [13, 21, 23] Tombstone GlobalOrder Durable;
    an_emptied_store_goes_on_behind_its_end [12, 13, 15, 21] Delete GlobalOrder Durable;
    versions_of_removed_events_are_not_given_again [21, 23] Truncate Delete Durable;
    a_closed_stream_stays_closed [21, 23] Tombstone Durable;
    a_deletion_is_remembered_by_snapshots [21, 22] Delete Snapshots Durable;
    retries_are_recognised [5, 23] Durable;
    multi_stream_retries_are_recognised [5, 9, 23] MultiStreamAppend Durable;
    a_told_position_stays_a_place [15, 16, 23] GlobalOrder Durable;
    a_stored_checkpoint_misses_nothing [15, 22, 23] GlobalOrder Checkpoints Durable;
}

/// How the end of a store is removed.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Delete,
    Truncate,
    Tombstone,
}

/// Fills a store whose last positions belong to a stream, and takes that stream away. Each step has
/// handles of its own, and nothing is open between them.
async fn after_removal(cx: &Context, removal: Removal) -> Result<()> {
    let (mut used, mut base) = (Position::START, 0);
    for round in 0..3 {
        let end = id(format!("end-{round}"));
        {
            let store = cx.open().await;
            extend(&store, &id("order-1"), base, 2).await?;
            used = extend(&store, &end, 0, 3).await?.position.max(used);
        }
        let before = { cx.open().await.last_position().await? };
        assert!(before == used, "the last event has position {before}; {used} was answered");
        {
            let store = cx.open().await;
            match removal {
                Removal::Delete => store.delete(&end, ExpectedVersion::Any).await?,
                Removal::Truncate => store.truncate(&end, u64::MAX.into()).await?,
                Removal::Tombstone => store.tombstone(&end, ExpectedVersion::Any).await?,
            }
        }
        let appended = {
            let store = cx.open().await;
            extend(&store, &id("order-1"), base + 2, 1).await?
        };
        assert!(
            appended.position > used,
            "position {used} was given before the end was removed and the store opened again; the \
             next append got {}",
            appended.position
        );
        base += 3;
        let store = cx.open().await;
        for source in [Source::default(), id("order-1").into()] {
            let mut live = store.subscribe(Subscribe::to(source.clone()).after(used)).await?;
            let got = catch_up(cx, &mut live).await.0;
            let what = format!("a subscription to {source:?} from the checkpoint {used}");
            assert_versions(what, &got, [base]);
        }
        let got = read_all(&store, ReadAll::default().after(used)).await?;
        assert_versions(format!("a read from the checkpoint {used}"), &got, [base]);
        used = appended.position;
    }
    Ok(())
}

async fn positions_of_a_deleted_end_are_not_given_again(cx: Context) -> CaseResult {
    Ok(after_removal(&cx, Removal::Delete).await?)
}

async fn positions_of_a_truncated_end_are_not_given_again(cx: Context) -> CaseResult {
    Ok(after_removal(&cx, Removal::Truncate).await?)
}

async fn positions_of_a_tombstoned_end_are_not_given_again(cx: Context) -> CaseResult {
    Ok(after_removal(&cx, Removal::Tombstone).await?)
}

async fn an_emptied_store_goes_on_behind_its_end(cx: Context) -> CaseResult {
    let streams = ["a-1", "b-1", "c-1"].map(id);
    let all = {
        let store = cx.open().await;
        for stream in &streams {
            extend(&store, stream, 0, 3).await?;
        }
        everything(&store).await?
    };
    {
        let store = cx.open().await;
        for stream in &streams {
            store.delete(stream, ExpectedVersion::Any).await?;
        }
    }
    let end = all[all.len() - 1].position;
    {
        // The store is empty, but it has given these positions.
        let store = cx.open().await;
        for event in &all {
            let mut live = store.subscribe(Subscribe::default().after(event.position)).await?;
            catch_up(&cx, &mut live).await;
        }
        let mut live = store.subscribe(Subscribe::default().after(end)).await?;
        let told = catch_up(&cx, &mut live).await.1;
        let beyond = Subscribe::default().after(told.max(end).plus(1 << 40));
        assert_kind(first(&cx, &store, beyond).await, ErrorKind::BeyondEnd);
    }
    let appended = { extend(&cx.open().await, &streams[1], 3, 2).await? };
    assert!(
        appended.position > end.plus(1),
        "the store gave {end} before it was emptied and opened again; two new events end at {}",
        appended.position
    );
    let store = cx.open().await;
    for event in &all {
        let mut live = store.subscribe(Subscribe::default().after(event.position)).await?;
        let got = catch_up(&cx, &mut live).await.0;
        let got: Vec<_> = got.into_iter().filter(|e| e.position > end).collect();
        assert_versions(format!("a subscription from {}", event.position), &got, 4..=5);
    }
    Ok(())
}

async fn versions_of_removed_events_are_not_given_again(cx: Context) -> CaseResult {
    let (cut, gone, whole) = (id("cut-1"), id("gone-1"), id("whole-1"));
    for round in 0..3 {
        let base = round * 4;
        {
            let store = cx.open().await;
            for stream in [&cut, &gone, &whole] {
                extend(&store, stream, base, 4).await?;
            }
        }
        {
            let store = cx.open().await;
            store.truncate(&cut, (base + 3).into()).await?;
            store.delete(&gone, ExpectedVersion::Any).await?;
            store.truncate(&whole, (base + 100).into()).await?;
        }
        let store = cx.open().await;
        for (stream, first, deleted_at) in
            [(&cut, Some(base + 3), 0), (&gone, None, base + 4), (&whole, None, 0)]
        {
            let info = store.stream_info(stream).await?;
            let found = (info.version.get(), info.first_version, info.deleted_at.get());
            let due = (base + 4, first.map(Into::into), deleted_at);
            assert!(
                found == due,
                "{stream} was removed in part or whole after version {}; opened again it is {info:?}",
                base + 4
            );
            let wrong = store.append_to(stream, exact(base + 2), [event(0)]).await;
            assert_conflict(wrong, stream, exact(base + 2), base + 4);
        }
    }
    Ok(())
}

async fn a_closed_stream_stays_closed(cx: Context) -> CaseResult {
    let (closed, missing) = (id("order-1"), id("missing-1"));
    {
        let store = cx.open().await;
        extend(&store, &closed, 0, 3).await?;
    }
    {
        let store = cx.open().await;
        store.tombstone(&closed, ExpectedVersion::Any).await?;
        store.tombstone(&missing, ExpectedVersion::NoStream).await?;
    }
    for _ in 0..2 {
        let store = cx.open().await;
        for (stream, version) in [(&closed, 3), (&missing, 0)] {
            let info = store.stream_info(stream).await?;
            assert!(
                (info.state, info.version.get()) == (StreamState::Tombstoned, version),
                "{stream} was tombstoned at version {version}; opened again it is {info:?}"
            );
            for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, exact(3)] {
                let refused = store.append_to(stream, expected, [event(4)]).await;
                assert_kind(refused, ErrorKind::StreamClosed);
            }
            assert_holds("a tombstoned stream", &store, stream, []).await?;
        }
    }
    Ok(())
}

async fn a_deletion_is_remembered_by_snapshots(cx: Context) -> CaseResult {
    let stream = id("order-1");
    let snapshot = |version: u64| Snapshot::new(version, Payload::json(&version).unwrap());
    let kept = async || -> Result<Option<u64>> {
        let loaded = cx.open().await.load_snapshot(&stream).await?;
        Ok(loaded.map(|snapshot| snapshot.version.get()))
    };
    extend(&cx.open().await, &stream, 0, 4).await?;
    cx.open().await.save_snapshot(&stream, snapshot(4)).await?;
    assert_eq!(kept().await?, Some(4), "the snapshot that was saved before the reopen");
    cx.open().await.delete(&stream, ExpectedVersion::Any).await?;
    assert_eq!(kept().await?, None, "the snapshot of a stream that was deleted before the reopen");
    for old in [4, 1] {
        cx.open().await.save_snapshot(&stream, snapshot(old)).await?;
        assert_eq!(kept().await?, None, "a snapshot of version {old}, after the deletion at 4");
    }
    extend(&cx.open().await, &stream, 4, 2).await?;
    cx.open().await.save_snapshot(&stream, snapshot(3)).await?;
    assert_eq!(kept().await?, None, "a snapshot of version 3, after the deletion at 4");
    cx.open().await.save_snapshot(&stream, snapshot(6)).await?;
    assert_eq!(kept().await?, Some(6), "a snapshot of the revived stream");
    Ok(())
}

#[track_caller]
fn assert_same_answer(expected: ExpectedVersion, first: &Appended, again: &Appended) {
    let place = |answer: &Appended| (answer.first_version, answer.last_version, answer.position);
    assert!(
        place(first) == place(again),
        "the append under {expected} had the answer {first:?}; after a reopen its retry had {again:?}"
    );
}

async fn retries_are_recognised(cx: Context) -> CaseResult {
    let guaranteed = cx.open().await.capabilities().retry_recognition == Recognition::Guaranteed;
    let mut expectations = vec![ExpectedVersion::NoStream, exact(0), exact(2)];
    if guaranteed {
        expectations.extend([ExpectedVersion::Any, ExpectedVersion::StreamExists]);
    }
    let mut sent = Vec::new();
    for (n, expected) in expectations.into_iter().enumerate() {
        let (store, stream) = (cx.open().await, id(format!("order-{n}")));
        let base = match expected {
            ExpectedVersion::NoStream => 0,
            ExpectedVersion::Exact(version) => version.get(),
            _ => 3,
        };
        if base > 0 {
            extend(&store, &stream, 0, base).await?;
        }
        let append = Append::new(stream.clone(), expected, events(1..=3));
        let answer = store.append(append.clone()).await?;
        // Later appends, so that the retry does not stand at the end of its stream.
        extend(&store, &stream, base + 3, 4).await?;
        sent.push((base, append, answer));
    }
    for _ in 0..2 {
        for (base, append, first) in &sent {
            let store = cx.open().await;
            assert_same_answer(append.expected, first, &store.append(append.clone()).await?);
            let what = format!("after a retry under {}", append.expected);
            assert_holds(what, &store, &append.stream, 1..=base + 7).await?;
        }
    }
    Ok(())
}

async fn multi_stream_retries_are_recognised(cx: Context) -> CaseResult {
    let appends: Vec<_> = ["a-1", "b-1", "c-1"]
        .into_iter()
        .zip([ExpectedVersion::NoStream, exact(0), ExpectedVersion::NoStream])
        .map(|(stream, expected)| Append::new(id(stream), expected, events(1..=2)))
        .collect();
    let first = cx.open().await.append_multi(appends.clone()).await?;
    for stream in ["a-1", "b-1"] {
        extend(&cx.open().await, &id(stream), 2, 3).await?;
    }
    let again = cx.open().await.append_multi(appends.clone()).await?;
    for ((append, first), again) in appends.iter().zip(&first).zip(&again) {
        assert_same_answer(append.expected, first, again);
    }
    let store = cx.open().await;
    for (stream, last) in [("a-1", 5), ("b-1", 5), ("c-1", 2)] {
        assert_holds("after a retry and a reopen", &store, &id(stream), 1..=last).await?;
    }
    Ok(())
}

/// A position that a subscription told before the reopen, perhaps of no event, goes on being a place.
async fn a_told_position_stays_a_place(cx: Context) -> CaseResult {
    let category = Source::category("a".try_into()?);
    let sources = [Source::default(), category, id("a-1").into()];
    for base in 0..4 {
        let mut told = Vec::new();
        {
            let store = cx.open().await;
            store.append_to("b-1", ExpectedVersion::Any, events(0..3)).await?;
            for source in &sources {
                let mut live = store.subscribe(Subscribe::to(source.clone())).await?;
                told.push(catch_up(&cx, &mut live).await.1);
            }
        }
        let appended = { extend(&cx.open().await, &id("a-1"), base, 1).await? };
        for (source, told) in sources.iter().zip(told) {
            assert!(
                appended.position > told,
                "a subscription to {source:?} had everything up to {told}; the next append, after a \
                 reopen, got {}",
                appended.position
            );
            let store = cx.open().await;
            let mut live = store.subscribe(Subscribe::to(source.clone()).after(told)).await?;
            let got = catch_up(&cx, &mut live).await.0;
            assert_versions(format!("{source:?} after {told}"), &got, [base + 1]);
        }
    }
    Ok(())
}

/// A subscriber handles a few events, stores its checkpoint and dies, again and again.
async fn a_stored_checkpoint_misses_nothing(cx: Context) -> CaseResult {
    let subscriber = SubscriberId::new("report")?;
    let mut handled = Vec::new();
    for round in 0..6 {
        let sent = {
            let store = cx.open().await;
            let batch = events(0..3);
            let sent: Vec<_> = batch.iter().map(NewEvent::id).collect();
            let stream = format!("order-{}", round % 2);
            store.append_to(stream, ExpectedVersion::Any, batch).await?;
            sent
        };
        let store = cx.open().await;
        let from = store.load_checkpoint(&subscriber).await?.unwrap_or_default();
        let mut live = store.subscribe(Subscribe::default().after(from)).await?;
        let mut got = take(&cx, &mut live, 2).await;
        // Every second time it also handles the last event that is there.
        if round % 2 == 1 {
            got.extend(crate::tools::take_until(&cx, &mut live, sent[2]).await);
        }
        store.save_checkpoint(&subscriber, got[got.len() - 1].position).await?;
        handled.extend(got);
    }
    let store = cx.open().await;
    let all = everything(&store).await?;
    let what = "a subscriber that was started six times";
    assert_events(what, &handled, &all[..handled.len()]);
    assert!(handled.len() == all.len(), "it handled {:?} of {:?}", ids(&handled), ids(&all));
    Ok(())
}
