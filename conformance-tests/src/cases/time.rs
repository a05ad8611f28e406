//! Reads and subscriptions that begin at a time.

use std::sync::Arc;

use annals_core::{
    Category, EventStoreExt, ExpectedVersion, Position, ReadAll, RecordedEvent, Removal, Source,
    Start, Store, Subscribe,
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_same_events, catch_up, event, everything, extend, id, read_all},
};

cases! { "time":
    all_begins_at_a_time [12, 15] GlobalOrder;
    a_stream_begins_at_a_time [15];
    a_time_before_the_first_and_after_the_last [12, 15] GlobalOrder;
    a_time_of_removed_events_is_a_place [12, 15, 21] Truncate Delete GlobalOrder;
    clocks_that_disagree_hide_nothing [12, 15] GlobalOrder ExactImport;
    clocks_that_disagree_hide_nothing_of_a_stream [15] ExactImport;
}

/// Appends to three streams in turns.
async fn fill(store: &Arc<dyn Store>) -> annals_core::Result<()> {
    for round in 0..10 {
        for stream in ["a-1", "b-1", "a-2"] {
            extend(store, &id(stream), round, 1).await?;
        }
    }
    Ok(())
}

/// Imports events that were recorded 7 seconds after each other, by clocks that disagree by up to 59
/// seconds.
async fn import(store: &Arc<dyn Store>, streams: &[&str]) -> annals_core::Result<()> {
    let mut versions = vec![0; streams.len()];
    let events = (0..400_usize).map(|number| {
        let stream = number % streams.len();
        versions[stream] += 1;
        let version = versions[stream];
        let ahead = (number * 31) % 60;
        let seconds = 1_600_000_000 + i64::try_from(number * 7 + ahead).unwrap();
        let time = DateTime::from_timestamp(seconds, 0).unwrap();
        event(version).recorded(id(streams[stream]), version.into(), Position::START, time)
    });
    store.import(events.collect()).await
}

/// The events from the first one that was recorded at `time` or later.
fn since(events: &[RecordedEvent], time: DateTime<Utc>) -> &[RecordedEvent] {
    let first = events.iter().position(|event| event.recorded_at >= time);
    &events[first.unwrap_or(events.len())..]
}

/// Checks what is read from a time, and what is delivered to a subscription that begins there.
async fn assert_begins(
    cx: &Context,
    store: &Arc<dyn Store>,
    source: Source,
    all: &[RecordedEvent],
    time: DateTime<Utc>,
) -> annals_core::Result<()> {
    let due = since(all, time);
    if source == Source::default() {
        let place = store.position_before(time).await?;
        let last =
            all.len().checked_sub(due.len() + 1).map_or(Position::START, |i| all[i].position);
        assert_eq!(place, last, "the position before {time}");
        assert_same_events(&read_all(store, ReadAll::default().after(place)).await?, due);
    }
    let due: Vec<_> = due.iter().filter(|event| source.matches(event)).cloned().collect();
    let mut live = store.subscribe(Subscribe::to(source).with_start(Start::At(time))).await?;
    let (delivered, _) = catch_up(cx, &mut live).await;
    assert_same_events(&delivered, &due);
    Ok(())
}

async fn all_begins_at_a_time(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store).await?;
    let all = everything(&store).await?;
    for event in all.iter().step_by(7) {
        let category = Source::category(Category::new("a")?);
        for source in [Source::default(), category] {
            assert_begins(&cx, &store, source, &all, event.recorded_at).await?;
        }
    }
    Ok(())
}

async fn a_stream_begins_at_a_time(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("a-2"));
    fill(&store).await?;
    let events = store.load_stream(&stream).await?;
    for event in events.iter().step_by(3) {
        assert_begins(&cx, &store, stream.clone().into(), &events, event.recorded_at).await?;
    }
    Ok(())
}

async fn a_time_before_the_first_and_after_the_last(cx: Context) -> CaseResult {
    let store = cx.open().await;
    assert_begins(&cx, &store, Source::default(), &[], Utc::now()).await?;
    fill(&store).await?;
    let all = everything(&store).await?;
    let (hour, last) = (TimeDelta::hours(1), all[all.len() - 1].recorded_at);
    for time in [all[0].recorded_at - hour, last + hour, DateTime::UNIX_EPOCH] {
        assert_begins(&cx, &store, Source::default(), &all, time).await?;
    }
    let later = Subscribe::default().with_start(Start::At(last + hour));
    let mut live = store.subscribe(later).await?;
    extend(&store, &id("a-1"), 10, 1).await?;
    let live = crate::tools::take(&cx, &mut live, 1).await;
    assert_same_events(&live, &everything(&store).await?[all.len()..]);
    Ok(())
}

/// The events that were recorded at these times are gone. What is left later is still due.
async fn a_time_of_removed_events_is_a_place(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store).await?;
    let all = everything(&store).await?;
    store.truncate(&id("a-1"), 7.into()).await?;
    store.delete(&id("b-1"), ExpectedVersion::Any).await?;
    store.truncate(&id("a-2"), 3.into()).await?;
    extend(&store, &id("b-1"), 10, 2).await?;
    if store.capabilities().removal == Removal::AtOnce {
        let left = everything(&store).await?;
        for event in all.iter().step_by(7) {
            assert_begins(&cx, &store, Source::default(), &left, event.recorded_at).await?;
        }
    }
    for stream in ["a-1", "a-2", "b-1"].map(id) {
        let left = store.load_stream(&stream).await?;
        for event in all.iter().filter(|event| event.stream == stream).step_by(3) {
            assert_begins(&cx, &store, stream.clone().into(), &left, event.recorded_at).await?;
        }
    }
    Ok(())
}

async fn clocks_that_disagree_hide_nothing(cx: Context) -> CaseResult {
    let store = cx.open().await;
    import(&store, &["a-1", "b-1", "a-2"]).await?;
    let all = everything(&store).await?;
    for event in all.iter().step_by(13) {
        assert_begins(&cx, &store, Source::default(), &all, event.recorded_at).await?;
    }
    Ok(())
}

async fn clocks_that_disagree_hide_nothing_of_a_stream(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("a-1"));
    import(&store, &["a-1"]).await?;
    let events = store.load_stream(&stream).await?;
    for event in events.iter().step_by(13) {
        assert_begins(&cx, &store, stream.clone().into(), &events, event.recorded_at).await?;
    }
    Ok(())
}
