//! Reads of one stream and of all: from every start, in both directions.

use std::sync::Arc;

use annals_core::{
    Direction, EventStoreExt, EventStream, ExpectedVersion, NewEvent, Payload, Position, ReadAll,
    ReadStream, RecordedEvent, Store, StreamState,
};
use futures::TryStreamExt;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_due, assert_events, assert_gapless, assert_same_events, assert_versions, event,
        events, everything, extend, id, ids, read, read_all,
    },
};

cases! { "read":
    a_stream_from_every_version [11];
    a_stream_that_does_not_exist_is_empty [11];
    a_long_stream_is_not_cut [11, 14];
    all_from_every_position [12] GlobalOrder;
    all_of_a_long_store_is_not_cut [12, 14] GlobalOrder;
    position_order_is_version_order [13] GlobalOrder;
    every_handle_sees_what_was_answered [4, 11];
    an_open_read_blocks_no_append [14];
    an_open_read_of_all_blocks_no_append [14] GlobalOrder;
    a_dropped_read_leaves_the_store_working [14];
    reads_do_not_disturb_each_other [14];
    conveniences_agree_with_reads [11, 12] GlobalOrder;
}

/// Computes from all events what a read must give.
fn expected(
    all: &[RecordedEvent],
    place: impl Fn(&RecordedEvent) -> u64,
    from: Option<u64>,
    included: bool,
    direction: Direction,
    limit: Option<u64>,
) -> Vec<RecordedEvent> {
    let wanted = |event: &&RecordedEvent| {
        let place = place(event);
        match (from, direction) {
            (None, _) => true,
            (Some(from), _) if from == place => included,
            (Some(from), Direction::Forwards) => place > from,
            (Some(from), Direction::Backwards) => place < from,
        }
    };
    let mut events: Vec<_> = all.iter().filter(wanted).cloned().collect();
    if direction == Direction::Backwards {
        events.reverse();
    }
    events.truncate(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap()));
    events
}

const LIMITS: [Option<u64>; 6] = [None, Some(0), Some(1), Some(3), Some(12), Some(100)];
const DIRECTIONS: [Direction; 2] = [Direction::Forwards, Direction::Backwards];

async fn a_stream_from_every_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 12).await?;
    extend(&store, &id("order-2"), 0, 3).await?;
    let all = store.load_stream(&stream).await?;
    assert_versions("the whole stream", &all, 1..=12);
    let froms = (0..=14).chain([1_000, i64::MAX as u64, u64::MAX]).map(Some).chain([None]);
    for from in froms {
        for direction in DIRECTIONS {
            for limit in LIMITS {
                let mut options = ReadStream::default();
                options.from = from.map(Into::into);
                options.direction = direction;
                options.limit = limit;
                let got = read(&store, &stream, options.clone()).await?;
                let version = |e: &RecordedEvent| e.version.get();
                let due = expected(&all, version, from, true, direction, limit);
                assert_events(format_args!("a read with {options:?}"), &got, &due);
            }
        }
    }
    Ok(())
}

async fn a_stream_that_does_not_exist_is_empty(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &id("order-10"), 0, 1).await?;
    for options in [ReadStream::default(), ReadStream::default().backwards().with_from(7)] {
        assert_events("a read of a missing stream", &read(&store, &stream, options).await?, &[]);
    }
    let info = store.stream_info(&stream).await?;
    assert_due!(
        (info.state, info.version.get()),
        (StreamState::Missing, 0),
        "the state and the version of a missing stream"
    );
    assert_due!(info.first_version, None, "the first version of a missing stream");
    assert!(!info.exists(), "a missing stream must not be said to exist: {info:?}");
    Ok(())
}

/// Appends more than any store reads in one page: 3,000 events, about two megabytes.
async fn fill(cx: &Context) -> Result<u64, crate::case::Stop> {
    let store = cx.open().await;
    let most = store.capabilities().max_append_events.min(100) as u64;
    let mut base = 0;
    while base < 3_000 {
        let batch = (base..base + most).map(|n| {
            let data = Payload::binary(format!("{n} {}", "x".repeat(700)));
            NewEvent::new("Long".try_into().unwrap(), data)
        });
        store
            .append_to("order-1", annals_core::Version::new(base), batch.collect::<Vec<_>>())
            .await?;
        base += most;
    }
    Ok(base)
}

async fn a_long_stream_is_not_cut(cx: Context) -> CaseResult {
    let count = fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("order-1"));
    assert_eq!(assert_gapless(&store, &stream).await?, count, "the read of the stream ended early");
    let mut backwards = read(&store, &stream, ReadStream::default().backwards()).await?;
    backwards.reverse();
    assert_due!(
        ids(&backwards),
        ids(&store.load_stream(&stream).await?),
        "the ids of a backward read, reversed"
    );
    let late = ReadStream::default().with_from(count - 1_500).with_limit(1_400);
    let late = read(&store, &stream, late).await?;
    assert_due!(late.len(), 1_400, "the number of events of a read with the limit 1,400");
    assert_due!(late[0].version.get(), count - 1_500, "the first version of a read from there");
    Ok(())
}

async fn all_of_a_long_store_is_not_cut(cx: Context) -> CaseResult {
    let count = fill(&cx).await?;
    let store = cx.open().await;
    let all = everything(&store).await?;
    assert_eq!(all.len() as u64, count, "the read of all ended early");
    let mut backwards = read_all(&store, ReadAll::default().backwards()).await?;
    backwards.reverse();
    assert_due!(ids(&backwards), ids(&all), "the ids of a backward read of all, reversed");
    let limited = read_all(&store, ReadAll::default().with_limit(count - 10)).await?;
    assert_due!(limited.len() as u64, count - 10, "the number of events of a read with this limit");
    Ok(())
}

async fn all_from_every_position(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for round in 0..3 {
        for stream in ["a-1", "b-1", "plain"] {
            extend(&store, &id(stream), round * 2, 2).await?;
        }
    }
    let all = everything(&store).await?;
    assert_due!(all.len(), 18, "the number of events of all");
    // Beyond the last position there is no place: see the theme `resume`.
    let last = all.last().unwrap().position.get();
    let places = all.iter().flat_map(|e| [e.position.get(), e.position.get() + 1]);
    let froms = places.filter(|at| *at <= last).chain([0]).map(Some).chain([None]);
    for from in froms {
        for direction in DIRECTIONS {
            for limit in LIMITS {
                let mut options = ReadAll::default();
                options.from = from.map(Into::into);
                options.direction = direction;
                options.limit = limit;
                let got = read_all(&store, options.clone()).await?;
                let position = |e: &RecordedEvent| e.position.get();
                let due = expected(&all, position, from, false, direction, limit);
                assert_events(format_args!("a read with {options:?}"), &got, &due);
            }
        }
    }
    Ok(())
}

async fn position_order_is_version_order(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for round in 0..10 {
        for stream in 0..5 {
            let stream = id(format!("order-{stream}"));
            store.append_to(stream, ExpectedVersion::Any, events(0..=round % 3)).await?;
        }
    }
    let all = everything(&store).await?;
    assert!(all[0].position > Position::START, "an event has the position that means the start");
    for stream in 0..5 {
        let stream = id(format!("order-{stream}"));
        let of_all: Vec<_> = all.iter().filter(|e| e.stream == stream).cloned().collect();
        assert_same_events(&of_all, &store.load_stream(&stream).await?);
    }
    Ok(())
}

async fn every_handle_sees_what_was_answered(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let stream = id("order-1");
    for base in 0..30 {
        let [writer, reader] = [0, 1].map(|n| &handles[(base as usize + n) % 3]);
        extend(writer, &stream, base, 1).await?;
        assert_due!(
            reader.load_stream(&stream).await?.len() as u64,
            base + 1,
            "the number of events that another handle reads after {base} and one appends"
        );
        assert_due!(
            reader.stream_info(&stream).await?.version.get(),
            base + 1,
            "the version that another handle is told after {base} and one appends"
        );
    }
    Ok(())
}

async fn an_open_read_blocks_no_append(cx: Context) -> CaseResult {
    append_beside(cx, |store| store.read_stream(&id("order-1"), ReadStream::default())).await
}

async fn an_open_read_of_all_blocks_no_append(cx: Context) -> CaseResult {
    append_beside(cx, |store| store.read_all(ReadAll::default())).await
}

async fn append_beside(cx: Context, read: fn(&Arc<dyn Store>) -> EventStream) -> CaseResult {
    let count = fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut open = read(&store);
    assert!(open.try_next().await?.is_some(), "the first event of the open read");
    for (writer, base) in [(cx.open().await, count), (store.clone(), count + 1)] {
        let append = extend(&writer, &stream, base, 1);
        cx.within("an append beside an open read", append).await?;
    }
    let rest: Vec<_> = open.try_collect().await?;
    assert!(rest.len() as u64 >= count - 1, "the open read ended after {} events", rest.len() + 1);
    Ok(())
}

async fn a_dropped_read_leaves_the_store_working(cx: Context) -> CaseResult {
    let count = fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("order-1"));
    // More reads than a pool has connections: a dropped read has to give its connection back.
    for _ in 0..40 {
        let mut open = store.read_stream(&stream, ReadStream::default());
        assert!(open.try_next().await?.is_some(), "the first event of the open read");
    }
    let append = extend(&store, &stream, count, 1);
    cx.within("an append after dropped reads", append).await?;
    let read = cx.within("a read after dropped reads", store.load_stream(&stream)).await?;
    assert_due!(
        read.len() as u64,
        count + 1,
        "the number of events after 40 dropped reads and an append"
    );
    Ok(())
}

async fn reads_do_not_disturb_each_other(cx: Context) -> CaseResult {
    let count = fill(&cx).await? as usize;
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut open: Vec<_> =
        (0..20).map(|_| store.read_stream(&stream, ReadStream::default())).collect();
    let mut counts = vec![0; open.len()];
    // The reads advance in turns, so that all of them are open while each goes on.
    while counts.iter().any(|&n| n < count) {
        for (events, n) in open.iter_mut().zip(&mut counts) {
            for _ in 0..500 {
                let next = cx.within("one of many open reads", events.try_next()).await?;
                let Some(event) = next else { break };
                *n += 1;
                assert_due!(
                    event.version.get(),
                    *n as u64,
                    "the version of the next event of one of many open reads"
                );
            }
        }
    }
    assert!(
        counts.iter().all(|&n| n == count),
        "each of the open reads should give {count} events: {counts:?}"
    );
    Ok(())
}

async fn conveniences_agree_with_reads(cx: Context) -> CaseResult {
    let store = cx.open().await;
    assert_due!(
        store.last_position().await?,
        Position::START,
        "the last position of an empty store"
    );
    let appended = store.append_to("order-1", ExpectedVersion::Any, [event(1), event(2)]).await?;
    assert_due!(store.last_position().await?, appended.position, "the last position of the store");
    assert_same_events(&store.load_stream(&id("order-1")).await?, &everything(&store).await?);
    Ok(())
}
