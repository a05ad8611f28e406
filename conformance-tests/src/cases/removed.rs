//! Places whose events were removed since: they are places all the same.

use std::sync::Arc;

use annals_core::{
    Category, ErrorKind, EventStoreExt, ExpectedVersion, Filter, Position, ReadAll, RecordedEvent,
    Result, Source, Start, Store, StreamId, Subscribe, Version,
};

use super::resume::{fill, first};
use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_due, assert_events, assert_kind, assert_same_events, catch_up, everything, extend,
        id, ids, read_all, take,
    },
};

cases! { "removed":
    the_positions_of_a_deleted_stream_are_places [12, 15, 21] Delete GlobalOrder;
    the_positions_of_truncated_events_are_places [12, 15, 21] Truncate GlobalOrder;
    the_positions_of_a_closed_stream_are_places [12, 15, 21] Tombstone GlobalOrder;
    an_emptied_store_keeps_its_end [12, 15, 21] Delete GlobalOrder;
    places_between_positions_lie_between [12, 15] GlobalOrder;
    a_deleted_stream_keeps_its_versions [15, 21] Delete;
    a_truncated_stream_keeps_its_versions [15, 21] Truncate;
    a_closed_stream_keeps_its_versions [15, 21] Tombstone;
    a_revived_stream_resumes_from_its_old_places [15, 21] Delete GlobalOrder;
}

fn sources() -> [Source; 5] {
    let category = Source::category(Category::new("b").unwrap());
    let typed = Filter::default().with_event_types(["Numbered".try_into().unwrap()]);
    [Source::default(), category, id("b-1").into(), id("a-1").into(), typed.into()]
}

/// Checks that reads and subscriptions go on exactly after, and before, each of these places.
async fn assert_places(
    cx: &Context,
    places: impl IntoIterator<Item = Position>,
    left: &[RecordedEvent],
) -> Result<()> {
    let store = cx.open().await;
    // A store that removes events after a clean-up may still give removed ones.
    let is_left = |event: &RecordedEvent| left.iter().any(|kept| kept.id == event.id);
    let kept =
        |events: Vec<RecordedEvent>| -> Vec<_> { events.into_iter().filter(is_left).collect() };
    for place in places {
        let (before, after): (Vec<_>, Vec<_>) =
            left.iter().cloned().partition(|event| event.position <= place);
        let got = kept(read_all(&store, ReadAll::default().after(place)).await?);
        assert_events(format_args!("a read after {place}"), &got, &after);
        let mut got = kept(read_all(&store, ReadAll::default().before(place)).await?);
        got.reverse();
        let before: Vec<_> = before.into_iter().filter(|event| event.position < place).collect();
        assert_events(format_args!("a read before {place}"), &got, &before);
        for source in sources() {
            let mut live = store.subscribe(Subscribe::to(source.clone()).after(place)).await?;
            let got = kept(catch_up(cx, &mut live).await.0);
            let due: Vec<_> = after.iter().filter(|e| source.matches(e)).cloned().collect();
            assert_same_events(&got, &due);
        }
    }
    Ok(())
}

/// A store whose last positions were given to a stream that is removed whole.
async fn filled(cx: &Context) -> Result<(Arc<dyn Store>, StreamId, Vec<RecordedEvent>)> {
    let (store, stream) = (cx.open().await, id("b-1"));
    fill(&store, 2).await?;
    extend(&store, &stream, 4, 3).await?;
    let all = everything(&store).await?;
    Ok((store, stream, all))
}

/// Checks the positions of all events, of which those of a stream were removed.
async fn after_removal(cx: &Context, stream: &StreamId, all: &[RecordedEvent]) -> Result<()> {
    let store = cx.open().await;
    let mut left: Vec<_> = all.iter().filter(|event| event.stream != *stream).cloned().collect();
    let places: Vec<_> = all.iter().map(|event| event.position).collect();
    assert_places(cx, places.clone(), &left).await?;
    // The same after the next append, which has a position beyond all of them.
    extend(&store, &id("a-1"), 4, 2).await?;
    left.extend(store.load_stream(&id("a-1")).await?.into_iter().skip(4));
    assert_places(cx, places, &left).await
}

async fn the_positions_of_a_deleted_stream_are_places(cx: Context) -> CaseResult {
    let (store, stream, all) = filled(&cx).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    after_removal(&cx, &stream, &all).await?;
    Ok(())
}

async fn the_positions_of_truncated_events_are_places(cx: Context) -> CaseResult {
    let (store, stream, all) = filled(&cx).await?;
    store.truncate(&stream, Version::new(100)).await?;
    after_removal(&cx, &stream, &all).await?;
    Ok(())
}

async fn the_positions_of_a_closed_stream_are_places(cx: Context) -> CaseResult {
    let (store, stream, all) = filled(&cx).await?;
    store.tombstone(&stream, ExpectedVersion::Any).await?;
    after_removal(&cx, &stream, &all).await?;
    Ok(())
}

async fn an_emptied_store_keeps_its_end(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 2).await?;
    let all = everything(&store).await?;
    for stream in ["plain", "b-1", "a-1"] {
        store.delete(&id(stream), ExpectedVersion::Any).await?;
    }
    let places: Vec<_> = all.iter().map(|event| event.position).collect();
    assert_places(&cx, places, &[]).await?;
    let last = all.last().unwrap().position;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let (_, end) = catch_up(&cx, &mut live).await;
    // A store may say how far it has come, or only which events it has left.
    let beyond = Subscribe::default().after(end.max(last).plus(1 << 40));
    assert_kind(first(&cx, &store, beyond).await, ErrorKind::BeyondEnd);
    let mut live = store.subscribe(Subscribe::default().after(last)).await?;
    catch_up(&cx, &mut live).await;
    extend(&store, &id("a-1"), 4, 1).await?;
    assert_due!(
        take(&cx, &mut live, 1).await[0].version,
        Version::new(5),
        "the version of the first event after the store was emptied"
    );
    Ok(())
}

/// Numbers between two positions, whether no event ever had them or their events were removed.
async fn places_between_positions_lie_between(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 3).await?;
    if store.capabilities().delete {
        store.delete(&id("b-1"), ExpectedVersion::Any).await?;
    }
    let all = everything(&store).await?;
    for pair in all.windows(2) {
        let [low, high] = [0, 1].map(|n| pair[n].position.get());
        let middle = low + (high - low) / 2;
        for place in [low + 1, middle, high - 1].into_iter().filter(|at| *at > low && *at < high) {
            let after = |at: u64| read_all(&store, ReadAll::default().after(at));
            let before = |at: u64| read_all(&store, ReadAll::default().before(at));
            for (got, due) in [
                (after(place).await, after(low).await?),
                (before(place).await, before(high).await?),
            ] {
                match got {
                    Ok(got) => assert_eq!(ids(&got), ids(&due), "{place} is not between"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}"),
                }
            }
            let mut live = store.subscribe(Subscribe::default().after(place)).await?;
            assert_due!(
                ids(&catch_up(&cx, &mut live).await.0),
                ids(&after(low).await?),
                "the ids after the place {place}"
            );
        }
    }
    Ok(())
}

/// Checks that a stream at version 3 can be followed after each of its versions, and after no other.
async fn assert_versions(cx: &Context, stream: &StreamId, left: &[u64]) -> Result<()> {
    let store = cx.open().await;
    let after = |version: u64| {
        Subscribe::to(stream.clone()).with_start(Start::AfterVersion(version.into()))
    };
    for version in 0..=3 {
        let mut live = store.subscribe(after(version)).await?;
        let got = catch_up(cx, &mut live).await.0;
        let got: Vec<_> = got.iter().map(|event| event.version.get()).collect();
        let due: Vec<_> = left.iter().copied().filter(|left| *left > version).collect();
        assert_due!(got, due, "the versions of {stream} after its version {version}");
    }
    for version in [4, 5, 1_000, u64::MAX] {
        assert_kind(first(cx, &store, after(version)).await, ErrorKind::BeyondEnd);
    }
    Ok(())
}

async fn a_deleted_stream_keeps_its_versions(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("a-1"));
    extend(&store, &stream, 0, 3).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    assert_versions(&cx, &stream, &[]).await?;
    let start = Start::AfterVersion(Version::new(3));
    let mut live = store.subscribe(Subscribe::to(stream.clone()).with_start(start)).await?;
    extend(&store, &stream, 3, 2).await?;
    let events = take(&cx, &mut live, 2).await;
    assert_due!(
        events[0].version,
        Version::new(4),
        "the version of the first event after the deletion"
    );
    Ok(())
}

async fn a_truncated_stream_keeps_its_versions(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for (stream, before, left) in [("a-1", 3, &[3][..]), ("a-2", 9, &[])] {
        let stream = id(stream);
        extend(&store, &stream, 0, 3).await?;
        store.truncate(&stream, Version::new(before)).await?;
        assert_versions(&cx, &stream, left).await?;
    }
    Ok(())
}

async fn a_closed_stream_keeps_its_versions(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("a-1"));
    extend(&store, &stream, 0, 3).await?;
    store.tombstone(&stream, ExpectedVersion::Any).await?;
    assert_versions(&cx, &stream, &[]).await?;
    Ok(())
}

async fn a_revived_stream_resumes_from_its_old_places(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("b-1"));
    fill(&store, 2).await?;
    let old = store.load_stream(&stream).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    extend(&store, &stream, 4, 2).await?;
    let new = store.load_stream(&stream).await?;
    assert_due!(new.len(), 2, "the number of events after the revival");
    for event in &old {
        let starts = [Start::After(event.position), Start::AfterVersion(event.version)];
        for start in starts {
            let mut live = store.subscribe(Subscribe::to(stream.clone()).with_start(start)).await?;
            assert_same_events(&catch_up(&cx, &mut live).await.0, &new);
        }
    }
    Ok(())
}
