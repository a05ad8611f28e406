//! Long stretches without a matching event: before, between and after those that match.

use std::sync::Arc;

use annals_core::{
    Category, EventStoreExt, EventType, ExpectedVersion, Filter, Message, NewEvent, ReadAll,
    ReadStream, RecordedEvent, Result, Source, Store, StreamId, StreamPrefix, Subscribe,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_events, assert_versions, catch_up, event, everything, fill_with, id, read, read_all,
        show, take, take_until, typed,
    },
};

cases! { "stretch":
    reads_cross_thousands_of_misses [12, 14] GlobalOrder;
    a_stream_is_read_across_thousands_of_other_events [11, 14, 15];
    subscriptions_cross_thousands_of_misses [15, 16] GlobalOrder;
    live_subscriptions_cross_thousands_of_misses [15, 16, 17] GlobalOrder;
    waiting_subscribers_cross_thousands_of_misses [15, 17] GlobalOrder;
    thousands_of_removed_events_are_crossed [12, 14, 15, 21] Delete GlobalOrder;
    hundreds_of_event_types_are_filtered_by [12, 15] GlobalOrder;
}

/// More misses than any store looks at in one page, or scans in one request.
const MISSES: u64 = 9_200;

fn hit(number: u64) -> NewEvent {
    typed("Hit", number)
}

async fn append_hit(store: &Arc<dyn Store>, number: u64) -> Result<NewEvent> {
    let hit = hit(number);
    store.append_to("hit-1", ExpectedVersion::Any, [hit.clone()]).await?;
    Ok(hit)
}

async fn append_misses(store: &Arc<dyn Store>, stream: &str) -> Result<()> {
    let base = store.stream_info(&id(stream)).await?.version.get();
    fill_with(store, &id(stream), base + 1..=base + MISSES, |n| typed("Miss", n)).await?;
    Ok(())
}

/// The filters that let only the hits through.
fn filters() -> [Filter; 5] {
    let category = Filter::default().with_category(Category::new("hit").unwrap());
    let prefix = Filter::default().with_prefix(StreamPrefix::new("hit-").unwrap());
    let types = Filter::default().with_event_types([EventType::new("Hit").unwrap()]);
    let both = category.clone().with_event_types([EventType::new("Hit").unwrap()]);
    let all = both.clone().with_prefix(StreamPrefix::new("hit-1").unwrap());
    [category, prefix, types, both, all]
}

/// Filters that let nothing through.
fn empty() -> [Filter; 3] {
    let category = Filter::default().with_category(Category::new("none").unwrap());
    let prefix = Filter::default().with_prefix(StreamPrefix::new("none").unwrap());
    [category, prefix, Filter::default().with_event_types([EventType::new("None").unwrap()])]
}

/// A hit, thousands of misses, two hits, and a miss. Returns all events, and the hits.
async fn filled(store: &Arc<dyn Store>) -> Result<(Vec<RecordedEvent>, Vec<RecordedEvent>)> {
    append_hit(store, 1).await?;
    append_misses(store, "miss-1").await?;
    append_hit(store, 2).await?;
    append_hit(store, 3).await?;
    store.append_to("miss-2", ExpectedVersion::Any, [typed("Miss", 0)]).await?;
    let all = everything(store).await?;
    let is_hit = |event: &&RecordedEvent| event.stream.as_str() == "hit-1";
    let hits: Vec<_> = all.iter().filter(is_hit).cloned().collect();
    assert_versions("the read of all", &hits, 1..=3);
    Ok((all, hits))
}

async fn reads_cross_thousands_of_misses(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let (all, hits) = filled(&store).await?;
    let middle = all[all.len() / 2].position;
    for filter in filters() {
        let options = ReadAll::default().with_filter(filter.clone());
        for limit in [None, Some(1), Some(2), Some(3)] {
            let options = limit.map_or(options.clone(), |limit| options.clone().with_limit(limit));
            let count = |limit: Option<u64>| limit.map_or(3, |n| usize::try_from(n).unwrap());
            let due: Vec<_> = hits.iter().take(count(limit)).cloned().collect();
            let what = |way: &str| {
                format!("a read {way} across {MISSES} misses with {filter:?}, limit {limit:?}")
            };
            assert_events(what("forwards"), &read_all(&store, options.clone()).await?, &due);
            let due: Vec<_> = hits.iter().rev().take(count(limit)).cloned().collect();
            let got = read_all(&store, options.clone().backwards()).await?;
            assert_events(what("backwards"), &got, &due);
            let due: Vec<_> = hits[1..].iter().take(count(limit)).cloned().collect();
            for place in [hits[0].position, middle] {
                let got = read_all(&store, options.clone().after(place)).await?;
                assert_events(what(&format!("after {place}")), &got, &due);
            }
            let due: Vec<_> = hits[..1].iter().take(count(limit)).cloned().collect();
            for place in [hits[1].position, middle] {
                let got = read_all(&store, options.clone().before(place)).await?;
                assert_events(what(&format!("before {place}")), &got, &due);
            }
        }
    }
    for filter in empty() {
        let options = ReadAll::default().with_filter(filter.clone());
        for options in [options.clone(), options.backwards()] {
            let got = read_all(&store, options).await?;
            assert_events(format!("a read with {filter:?}"), &got, &[]);
        }
    }
    Ok(())
}

async fn a_stream_is_read_across_thousands_of_other_events(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("hit-1"));
    for n in 1..=3 {
        append_hit(&store, n).await?;
        if n < 3 {
            append_misses(&store, "hit-10").await?;
        }
    }
    for limit in 1..=4 {
        let options = ReadStream::default().with_limit(limit);
        let what = format!("the first {limit} events of a stream among {MISSES} others");
        assert_versions(what, &read(&store, &stream, options.clone()).await?, 1..=limit.min(3));
        let got = read(&store, &stream, options.backwards()).await?;
        let what = format!("the last {limit} events of a stream among {MISSES} others");
        assert_versions(what, &got, (1..=3).rev().take(usize::try_from(limit).unwrap()));
    }
    for version in 0..=3 {
        let start = annals_core::Start::AfterVersion(version.into());
        let mut live = store.subscribe(Subscribe::to(stream.clone()).with_start(start)).await?;
        let got = catch_up(&cx, &mut live).await.0;
        assert_versions(format!("a subscription after version {version}"), &got, version + 1..=3);
        append_misses_of(&store, "hit-10", 10).await?;
    }
    Ok(())
}

async fn append_misses_of(store: &Arc<dyn Store>, stream: &str, count: u64) -> Result<()> {
    let misses: Vec<_> = (0..count).map(|n| typed("Miss", n)).collect();
    store.append_to(stream, ExpectedVersion::Any, misses).await?;
    Ok(())
}

/// Follows to the end. Resuming after any message gives just what was not delivered before it.
async fn subscriptions_cross_thousands_of_misses(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let (all, hits) = filled(&store).await?;
    let last = all[all.len() - 1].position;
    for filter in filters() {
        let mut live = store.subscribe(Subscribe::to(filter.clone())).await?;
        let (mut got, mut told) = (Vec::new(), Vec::new());
        loop {
            let what = format!("a subscription with {filter:?} to catch up, after {}", show(&got));
            let message = cx.within(&what, live.next()).await?;
            told.push((message.position(), got.len()));
            match message {
                Message::Event(event) => got.push(event),
                Message::CaughtUp(_) => break,
                _ => {}
            }
        }
        assert_events(format!("a subscription with {filter:?}"), &got, &hits);
        let (end, _) = told[told.len() - 1];
        assert!(end >= last, "{filter:?} has caught up at {end}, and the end is {last}");
        let places = [all[1].position, all[all.len() / 2].position, hits[0].position];
        let places = places.into_iter().map(|place| (place, 1));
        // Of the checkpoints in between a few are enough.
        let step = told.len().div_ceil(3);
        let told = told.iter().step_by(step).filter(|(_, count)| *count > 0).copied();
        for (place, _) in places.chain(told) {
            let due: Vec<_> = hits.iter().filter(|e| e.position > place).cloned().collect();
            let mut resumed = store.subscribe(Subscribe::to(filter.clone()).after(place)).await?;
            let got = catch_up(&cx, &mut resumed).await.0;
            assert_events(format!("a subscription with {filter:?} after {place}"), &got, &due);
        }
    }
    for filter in empty() {
        let mut live = store.subscribe(Subscribe::to(filter.clone())).await?;
        let (got, end) = catch_up(&cx, &mut live).await;
        assert_events(format!("a subscription with {filter:?}"), &got, &[]);
        assert!(end >= last, "{filter:?} has caught up at {end}, and the end is {last}");
    }
    Ok(())
}

fn sources() -> Vec<Source> {
    let stream = Source::from(StreamId::new("hit-1").unwrap());
    filters().into_iter().map(Source::from).chain([stream]).collect()
}

/// The misses come while nobody polls.
async fn live_subscriptions_cross_thousands_of_misses(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut lives = Vec::new();
    for source in sources() {
        let mut live = store.subscribe(Subscribe::to(source.clone())).await?;
        catch_up(&cx, &mut live).await;
        lives.push((source, live));
    }
    append_misses(&store, "miss-1").await?;
    let hit = append_hit(&store, 1).await?;
    for (source, live) in &mut lives {
        let got = take_until(&cx, live, hit.id()).await;
        assert_versions(format!("a live subscription to {source:?}"), &got, [1]);
    }
    let hit = append_hit(&store, 2).await?;
    for (source, live) in &mut lives {
        let got = take_until(&cx, live, hit.id()).await;
        assert_versions(format!("a live subscription to {source:?}"), &got, [2]);
    }
    Ok(())
}

/// The misses come while each subscriber waits: all of them wake it for nothing.
async fn waiting_subscribers_cross_thousands_of_misses(cx: Context) -> CaseResult {
    let (store, writer) = (cx.open().await, cx.open().await);
    let mut waiting = Vec::new();
    for source in sources() {
        let mut live = store.subscribe(Subscribe::to(source.clone())).await?;
        catch_up(&cx, &mut live).await;
        let cx = cx.clone();
        let events = tokio::spawn(async move { take(&cx, &mut live, 1).await });
        waiting.push((source, events));
    }
    for _ in 0..MISSES / 460 {
        append_misses_of(&writer, "miss-1", 460).await?;
        tokio::task::yield_now().await;
    }
    append_hit(&writer, 1).await?;
    for (source, events) in waiting {
        let got = events.await.unwrap();
        assert_versions(format!("a waiting subscription to {source:?}"), &got, [1]);
    }
    Ok(())
}

/// Where thousands of events were removed, positions are left that no event has.
async fn thousands_of_removed_events_are_crossed(cx: Context) -> CaseResult {
    let store = cx.open().await;
    filled(&store).await?;
    let mut live = store.subscribe(Subscribe::to(filters()[0].clone())).await?;
    store.delete(&id("miss-1"), ExpectedVersion::Any).await?;
    let left: Vec<_> = read_all(&store, ReadAll::default()).await?;
    let left = |source: &Source| -> Vec<_> {
        left.iter().filter(|e| source.matches(e)).cloned().collect()
    };
    let due = left(&id("hit-1").into());
    assert_versions("what is left", &due, 1..=3);
    let hits = filters().into_iter().chain([Filter::default()]);
    for filter in hits {
        let source = Source::from(filter.clone());
        let due = left(&source);
        for limit in [1, 2, u64::MAX] {
            let options = ReadAll::default().with_filter(filter.clone()).with_limit(limit);
            let few = |due: Vec<RecordedEvent>| -> Vec<_> {
                due.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
            };
            let what = |way: &str| format!("a read {way} across removed events with {filter:?}");
            let got = read_all(&store, options.clone()).await?;
            assert_events(what("forwards"), &got, &few(due.clone()));
            let got = read_all(&store, options.clone().backwards()).await?;
            assert_events(what("backwards"), &got, &few(due.iter().rev().cloned().collect()));
            let got = read_all(&store, options.after(due[0].position)).await?;
            assert_events(what("after the first"), &got, &few(due[1..].to_vec()));
        }
        let mut live = store.subscribe(Subscribe::to(source)).await?;
        let got = catch_up(&cx, &mut live).await.0;
        assert_events(format!("a subscription across them with {filter:?}"), &got, &due);
    }
    let got = catch_up(&cx, &mut live).await.0;
    assert_events("a subscription that began before the deletion", &got, &due);
    Ok(())
}

async fn hundreds_of_event_types_are_filtered_by(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names: Vec<String> = (0..300).map(|n| format!("Type{n}")).collect();
    for names in names.chunks(60) {
        let events: Vec<_> = names.iter().map(|name| typed(name, 1)).collect();
        store.append_to("order-1", ExpectedVersion::Any, events).await?;
        store.append_to("order-1", ExpectedVersion::Any, [event(0)]).await?;
    }
    let all = everything(&store).await?;
    for count in [1, 99, 101, 300] {
        let types = names.iter().rev().take(count).map(|name| EventType::new(name).unwrap());
        let filter = Filter::default().with_event_types(types.collect::<Vec<_>>());
        let source = Source::from(filter.clone());
        let due: Vec<_> = all.iter().filter(|e| source.matches(e)).cloned().collect();
        assert!(due.len() == count, "{count} types match {} events", due.len());
        let options = ReadAll::default().with_filter(filter);
        let got = read_all(&store, options.clone()).await?;
        assert_events(format!("a read by {count} event types"), &got, &due);
        let mut got = read_all(&store, options.backwards()).await?;
        got.reverse();
        assert_events(format!("a backward read by {count} event types"), &got, &due);
        let mut live = store.subscribe(Subscribe::to(source)).await?;
        let got = catch_up(&cx, &mut live).await.0;
        assert_events(format!("a subscription to {count} event types"), &got, &due);
    }
    Ok(())
}
