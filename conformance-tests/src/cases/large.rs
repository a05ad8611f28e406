//! Removals of thousands of events, from every place where an event can be found.

use std::{ops::RangeInclusive, sync::Arc};

use annals_core::{
    Append, EventStoreExt, ExpectedVersion, Filter, NewEvent, ReadAll, ReadStream, RecordedEvent,
    Removal, Result, Source, Start, Store, StreamId, StreamInfo, StreamState, Subscribe, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_events, assert_versions, catch_up, event, everything, exact, fill, fill_with, id,
        ids, read, read_all, typed,
    },
};

cases! { "large":
    a_truncation_of_thousands_leaves_just_the_rest [11, 12, 15, 21] Truncate;
    a_truncation_beyond_the_end_leaves_nothing_of_thousands [11, 12, 15, 21] Truncate;
    a_deletion_leaves_nothing_of_thousands [11, 12, 15, 21] Delete;
    a_second_deletion_leaves_nothing_of_thousands [11, 12, 21] Delete;
    a_tombstone_leaves_nothing_of_thousands [11, 12, 15, 21] Tombstone;
    the_ids_of_thousands_of_deleted_events_prove_no_retry [5, 21] Delete;
    the_ids_of_thousands_of_truncated_events_prove_no_retry [5, 21] Truncate;
    a_long_truncated_stream_is_followed_from_every_page [11, 15, 21] Truncate;
    thousands_of_streams_are_listed [25] ListStreams;
}

/// More events than a store removes in one batch.
const MANY: u64 = 2_600;

/// The versions that are left of a stream of [`MANY`] events when all were removed.
#[allow(clippy::reversed_empty_ranges, reason = "it is empty")]
const NOTHING: RangeInclusive<u64> = MANY + 1..=MANY;

/// Streams beside the one that is removed.
const NEIGHBOURS: [&str; 4] = ["big-10", "big", "Big-1", "big_1"];

/// Fills a stream between its neighbours. Returns all events, or none on a store without an order over
/// all streams.
async fn filled(store: &Arc<dyn Store>, stream: &StreamId) -> Result<Vec<RecordedEvent>> {
    let odd = |n: u64| typed(if n.is_multiple_of(2) { "Even" } else { "Odd" }, n);
    for (n, neighbour) in NEIGHBOURS.into_iter().enumerate() {
        if n == 2 {
            fill_with(store, stream, 1..=MANY, odd).await?;
        }
        fill_with(store, &id(neighbour), 1..=10, odd).await?;
    }
    if store.capabilities().global_order { everything(store).await } else { Ok(Vec::new()) }
}

/// What is read of a stream that holds these versions.
fn window(left: &RangeInclusive<u64>, options: &ReadStream) -> Vec<u64> {
    let from = options.from.map(Version::get);
    let limit = options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    match options.direction {
        annals_core::Direction::Forwards => {
            left.clone().filter(|v| from.is_none_or(|from| *v >= from)).take(limit).collect()
        }
        annals_core::Direction::Backwards => {
            left.clone().rev().filter(|v| from.is_none_or(|from| *v <= from)).take(limit).collect()
        }
    }
}

/// Looks for the events of a stream wherever they could still be found.
async fn look(
    cx: &Context,
    stream: &StreamId,
    all: &[RecordedEvent],
    left: RangeInclusive<u64>,
    after: &str,
) -> Result<()> {
    let store = cx.open().await;
    let froms = [1, 20, 21, 100, 101, 500, 501, 1_000, 1_024, 1_025, 2_000, 2_001, 2_500, MANY];
    let froms = froms.into_iter().chain([*left.start(), left.start() - 1, *left.end()]);
    for from in froms.map(Some).chain([None]) {
        for limit in [Some(3), None] {
            let mut options = ReadStream::default();
            (options.from, options.limit) = (from.map(Version::new), limit);
            for options in [options.clone(), options.backwards()] {
                let got = read(&store, stream, options.clone()).await?;
                let what = format!("{after}, reading {stream} with {options:?}");
                assert_versions(what, &got, window(&left, &options));
            }
        }
    }
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    let got = catch_up(cx, &mut live).await.0;
    assert_versions(format!("{after}, a subscription to {stream}"), &got, left.clone());
    for neighbour in NEIGHBOURS {
        let got = store.load_stream(&id(neighbour)).await?;
        assert_versions(format!("{after}, reading {neighbour}"), &got, 1..=10);
    }
    if store.capabilities().global_order && store.capabilities().removal == Removal::AtOnce {
        look_at_all(cx, &store, stream, all, left, after).await?;
    }
    Ok(())
}

async fn look_at_all(
    cx: &Context,
    store: &Arc<dyn Store>,
    stream: &StreamId,
    all: &[RecordedEvent],
    left: RangeInclusive<u64>,
    after: &str,
) -> Result<()> {
    let is_left = |e: &&RecordedEvent| e.stream != *stream || left.contains(&e.version.get());
    let left: Vec<RecordedEvent> = all.iter().filter(is_left).cloned().collect();
    let filters = [
        Filter::default(),
        Filter::default().with_category("big".try_into()?),
        Filter::default().with_prefix("big-1".try_into()?),
        Filter::default().with_event_types(["Odd".try_into()?]),
        Filter::default().with_category("big".try_into()?).with_event_types(["Even".try_into()?]),
    ];
    for filter in filters {
        let source = Source::from(filter.clone());
        let due: Vec<_> = left.iter().filter(|e| source.matches(e)).cloned().collect();
        let options = ReadAll::default().with_filter(filter.clone());
        let got = read_all(store, options.clone()).await?;
        assert_events(format!("{after}, a read of all with {filter:?}"), &got, &due);
        let mut got = read_all(store, options.clone().backwards()).await?;
        got.reverse();
        assert_events(format!("{after}, a backward read of all with {filter:?}"), &got, &due);
        let few: Vec<_> = due.iter().rev().take(15).cloned().collect();
        let got = read_all(store, options.backwards().with_limit(15)).await?;
        assert_events(format!("{after}, the last 15 of all with {filter:?}"), &got, &few);
        let mut live = store.subscribe(Subscribe::to(source)).await?;
        let got = catch_up(cx, &mut live).await.0;
        assert_events(format!("{after}, a subscription with {filter:?}"), &got, &due);
    }
    for removed in all.iter().step_by(371) {
        let place = removed.position;
        let due: Vec<_> = left.iter().filter(|e| e.position > place).cloned().collect();
        let got = read_all(store, ReadAll::default().after(place)).await?;
        assert_events(format!("{after}, a read of all after {place}"), &got, &due);
    }
    Ok(())
}

#[track_caller]
fn assert_info(
    after: &str,
    info: StreamInfo,
    state: StreamState,
    first: Option<u64>,
    deleted: u64,
) {
    let due = StreamInfo::new(state, MANY.into(), first.map(Version::new));
    let due = due.with_deleted_at(deleted.into());
    assert!(info == due, "{after}, the stream should be {due:?}; it is {info:?}");
}

async fn a_truncation_of_thousands_leaves_just_the_rest(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("big-1"));
    let all = filled(&store, &stream).await?;
    for before in [2_501, 2_600] {
        store.truncate(&stream, before.into()).await?;
        let after = format!("after a truncation of {MANY} events before {before}");
        look(&cx, &stream, &all, before..=MANY, &after).await?;
        let info = store.stream_info(&stream).await?;
        assert_info(&after, info, StreamState::Live, Some(before), 0);
    }
    Ok(())
}

async fn a_truncation_beyond_the_end_leaves_nothing_of_thousands(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("big-1"));
    let all = filled(&store, &stream).await?;
    store.truncate(&stream, (MANY + 100).into()).await?;
    let after = format!("after a truncation of {MANY} events before {}", MANY + 100);
    look(&cx, &stream, &all, NOTHING, &after).await?;
    assert_info(&after, store.stream_info(&stream).await?, StreamState::Live, None, 0);
    // Whatever is appended later is not removed, although its version is before the one above.
    fill(&store, &stream, MANY + 1..=MANY + 5).await?;
    let got = store.load_stream(&stream).await?;
    assert_versions(format!("{after}, and an append"), &got, MANY + 1..=MANY + 5);
    Ok(())
}

async fn a_deletion_leaves_nothing_of_thousands(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("big-1"));
    let all = filled(&store, &stream).await?;
    store.delete(&stream, exact(MANY)).await?;
    let after = format!("after a deletion of {MANY} events");
    look(&cx, &stream, &all, NOTHING, &after).await?;
    assert_info(&after, store.stream_info(&stream).await?, StreamState::Deleted, None, MANY);
    Ok(())
}

async fn a_second_deletion_leaves_nothing_of_thousands(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("big-1"));
    fill(&store, &stream, 1..=MANY).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    fill(&store, &stream, MANY + 1..=2 * MANY).await?;
    let got = store.load_stream(&stream).await?;
    assert_versions("the stream after its revival", &got, MANY + 1..=2 * MANY);
    store.delete(&stream, ExpectedVersion::Any).await?;
    let got = store.load_stream(&stream).await?;
    assert_versions("the stream after its second deletion", &got, []);
    fill(&store, &stream, 2 * MANY + 1..=2 * MANY + 1).await?;
    let got = store.load_stream(&stream).await?;
    assert_versions("the stream after its second revival", &got, [2 * MANY + 1]);
    if store.capabilities().global_order && store.capabilities().removal == Removal::AtOnce {
        for options in [ReadAll::default(), ReadAll::default().backwards()] {
            let all = read_all(&store, options).await?;
            assert_versions("all after the second revival", &all, [2 * MANY + 1]);
        }
    }
    Ok(())
}

async fn a_tombstone_leaves_nothing_of_thousands(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("big-1"));
    let all = filled(&store, &stream).await?;
    store.tombstone(&stream, ExpectedVersion::Any).await?;
    let after = format!("after a tombstone over {MANY} events");
    look(&cx, &stream, &all, NOTHING, &after).await?;
    assert_info(&after, store.stream_info(&stream).await?, StreamState::Tombstoned, None, MANY);
    Ok(())
}

/// Sends events of these versions once more, under `Any`. Each must be read afterwards.
async fn send_again(store: &Arc<dyn Store>, stream: &StreamId, sent: &[NewEvent]) -> Result<()> {
    let mut version = store.stream_info(stream).await?.version.get();
    for removed in [0, 19, 20, 99, 100, 499, 500, 999, 1_023, 1_024, 2_000, sent.len() - 1] {
        let again = [sent[removed].clone()];
        let append = Append::new(stream.clone(), ExpectedVersion::Any, again);
        let appended = store.append(append).await?;
        version += 1;
        let found = (appended.replayed, appended.last_version.get());
        assert!(
            found == (false, version),
            "version {} was removed, so sending its event again should give version {version}; \
             the answer is {appended:?}",
            removed + 1
        );
    }
    Ok(())
}

fn many_events() -> Vec<NewEvent> {
    (1..=MANY).map(event).collect()
}

async fn append_all(store: &Arc<dyn Store>, stream: &StreamId, sent: &[NewEvent]) -> Result<()> {
    let of_version = |version: u64| sent[usize::try_from(version - 1).unwrap()].clone();
    fill_with(store, stream, 1..=sent.len() as u64, of_version).await?;
    Ok(())
}

async fn the_ids_of_thousands_of_deleted_events_prove_no_retry(cx: Context) -> CaseResult {
    let (store, stream, sent) = (cx.open().await, id("big-1"), many_events());
    append_all(&store, &stream, &sent).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    send_again(&store, &stream, &sent).await?;
    assert_versions("the stream", &store.load_stream(&stream).await?, MANY + 1..=MANY + 12);
    Ok(())
}

async fn the_ids_of_thousands_of_truncated_events_prove_no_retry(cx: Context) -> CaseResult {
    let (store, stream, sent) = (cx.open().await, id("big-1"), many_events());
    append_all(&store, &stream, &sent).await?;
    store.truncate(&stream, (MANY + 1).into()).await?;
    send_again(&store, &stream, &sent).await?;
    assert_versions("the stream", &store.load_stream(&stream).await?, MANY + 1..=MANY + 12);
    Ok(())
}

async fn a_long_truncated_stream_is_followed_from_every_page(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("big-1"));
    fill(&store, &id("other-1"), 1..=3).await?;
    fill(&store, &stream, 1..=MANY).await?;
    let whole = store.load_stream(&stream).await?;
    store.truncate(&stream, 701.into()).await?;
    let left = &whole[700..];
    for version in
        [0, 1, 2, 255, 256, 511, 512, 699, 700, 701, 1_211, 1_212, 1_724, 2_048, MANY - 1]
    {
        let due: Vec<_> = left.iter().filter(|e| e.version.get() > version).cloned().collect();
        let start = Start::AfterVersion(version.into());
        let mut starts = vec![start];
        if store.capabilities().global_order && version > 0 {
            let place = whole[usize::try_from(version - 1).unwrap()].position;
            starts.push(Start::After(place));
        }
        for start in starts {
            let mut live = store.subscribe(Subscribe::to(stream.clone()).with_start(start)).await?;
            let got = catch_up(&cx, &mut live).await.0;
            let what = format!("the stream, truncated before 701, followed from {start:?}");
            assert_events(what, &got, &due);
        }
    }
    Ok(())
}

async fn thousands_of_streams_are_listed(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names: Vec<String> = (0..MANY).map(|n| format!("order-{n:05}")).collect();
    let most = store.capabilities().max_append_events;
    for names in names.chunks(most.min(1_000)) {
        let time = chrono::DateTime::from_timestamp(1_600_000_000, 0).unwrap();
        let first = |name| event(1).recorded(id(name), 1.into(), 1.into(), time);
        store.import(names.iter().map(first).collect()).await?;
    }
    for limit in [999, usize::try_from(MANY).unwrap(), usize::MAX] {
        let mut listed: Vec<StreamId> = Vec::new();
        loop {
            let page = store.list_streams(listed.last(), limit).await?;
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|(stream, _)| stream));
        }
        let differs = listed.iter().map(StreamId::as_str).zip(&names).find(|(got, due)| got != due);
        assert!(
            differs.is_none() && listed.len() == names.len(),
            "{} streams were listed in pages of {limit}, and {} are there; the first that differs \
             (listed, due): {differs:?}",
            listed.len(),
            names.len()
        );
    }
    let all = store.load_stream(&id("order-02599")).await?;
    assert!(ids(&all).len() == 1, "the last stream holds {all:?}");
    Ok(())
}
