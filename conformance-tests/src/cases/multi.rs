//! Appends to several streams at once.

use annals_core::{
    Append, Appended, ErrorKind, EventStoreExt, ExpectedVersion, Store, StreamId, StreamState,
};
use futures::{future::try_join_all, poll};
use std::sync::Arc;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_due, assert_gapless, assert_holds, assert_kind, done, event,
        events, everything, exact, extend, fill, id,
    },
};

cases! { "multi-stream":
    writes_all_streams [1, 4, 9] MultiStreamAppend;
    one_conflict_writes_nothing [2, 9] MultiStreamAppend;
    one_closed_stream_writes_nothing [9, 21] MultiStreamAppend Tombstone;
    refuses_invalid_appends [7, 9] MultiStreamAppend;
    a_retry_is_recognised_as_a_whole [5, 9] MultiStreamAppend;
    crossed_writers_only_conflict [2, 9] MultiStreamAppend;
    any_writers_never_conflict [3, 9] MultiStreamAppend;
    readers_see_all_streams_or_none [1, 9] MultiStreamAppend GlobalOrder;
    new_and_revived_streams_are_written_together [9, 21] MultiStreamAppend Delete;
    positions_have_the_order_of_the_appends [9, 13] MultiStreamAppend GlobalOrder;
    the_first_conflict_is_reported [2, 9] MultiStreamAppend;
    a_conflict_behind_a_retry_is_reported [2, 5, 9] MultiStreamAppend;
    a_retry_beside_a_new_append_is_a_conflict [5, 9] MultiStreamAppend;
    a_retry_of_each_part_alone_is_recognised [5, 9] MultiStreamAppend;
    a_retry_in_another_order_is_recognised [5, 9] MultiStreamAppend;
    a_retry_is_recognised_after_thousands_of_events [5, 9] MultiStreamAppend;
    a_retry_under_any_is_recognised [5, 9] MultiStreamAppend GuaranteedRecognition;
    an_append_to_one_stream_may_be_multi [4, 5, 9] MultiStreamAppend;
    hundreds_of_streams_are_written_together [1, 9] MultiStreamAppend;
    as_many_streams_as_declared_are_written [7, 9] MultiStreamAppend;
    refuses_too_many_streams [7, 9] MultiStreamAppend;
    one_of_many_multi_stream_appends_succeeds [2, 9] MultiStreamAppend;
    concurrent_retries_write_once [2, 5, 9] MultiStreamAppend;
    a_dropped_append_is_whole_or_not_at_all [8, 9] MultiStreamAppend;
    a_closed_stream_behind_a_retry_is_reported [5, 9, 21] MultiStreamAppend Tombstone;
}

fn pair(one: &StreamId, other: &StreamId, expected: ExpectedVersion) -> Vec<Append> {
    let append =
        |stream: &StreamId, count| Append::new(stream.clone(), expected, events(1..=count));
    vec![append(one, 2), append(other, 1)]
}

async fn writes_all_streams(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    extend(&store, &b, 0, 3).await?;
    let appends = vec![
        Append::new(b.clone(), exact(3), events(4..=5)),
        Append::new(a.clone(), ExpectedVersion::NoStream, events(1..=3)),
        Append::new(id("c-1"), ExpectedVersion::Any, events(1..=1)),
    ];
    let appended = store.append_multi(appends).await?;
    let versions: Vec<_> =
        appended.iter().map(|a| (a.first_version.get(), a.last_version.get())).collect();
    assert_eq!(versions, [(4, 5), (1, 3), (1, 1)], "answers have the order of the appends");
    for (stream, appended) in [(&b, appended[0]), (&a, appended[1]), (&id("c-1"), appended[2])] {
        let last = store.load_stream(stream).await?.pop().unwrap();
        assert_due!(
            (last.version, last.position),
            (appended.last_version, appended.position),
            "version and position of the last event"
        );
        assert_gapless(&store, stream).await?;
    }
    Ok(())
}

async fn one_conflict_writes_nothing(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    extend(&store, &b, 0, 2).await?;
    for order in [[&a, &b], [&b, &a]] {
        let written = store.append_multi(pair(order[0], order[1], ExpectedVersion::NoStream)).await;
        assert_conflict(written, &b, ExpectedVersion::NoStream, 2);
    }
    assert_eq!(store.stream_info(&a).await?.state, StreamState::Missing, "a part was written");
    assert_due!(
        store.load_stream(&b).await?.len(),
        2,
        "the number of events in the stream of the conflict"
    );
    Ok(())
}

async fn one_closed_stream_writes_nothing(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    store.tombstone(&b, ExpectedVersion::Any).await?;
    let written = store.append_multi(pair(&a, &b, ExpectedVersion::Any)).await;
    assert_kind(written, ErrorKind::StreamClosed);
    assert_eq!(store.stream_info(&a).await?.state, StreamState::Missing, "a part was written");
    Ok(())
}

async fn refuses_invalid_appends(cx: Context) -> CaseResult {
    let (store, a) = (cx.open().await, id("a-1"));
    assert_kind(store.append_multi(Vec::new()).await, ErrorKind::InvalidInput);
    let twice = pair(&a, &a, ExpectedVersion::Any);
    assert_kind(store.append_multi(twice).await, ErrorKind::InvalidInput);
    let half_empty = vec![
        Append::new(a.clone(), ExpectedVersion::Any, [event(1)]),
        Append::new(id("b-1"), ExpectedVersion::Any, []),
    ];
    assert_kind(store.append_multi(half_empty).await, ErrorKind::InvalidInput);
    let most = store.capabilities().max_append_events as u64;
    let too_many = vec![
        Append::new(a.clone(), ExpectedVersion::Any, events(1..=most)),
        Append::new(id("b-1"), ExpectedVersion::Any, [event(1)]),
    ];
    assert_kind(store.append_multi(too_many).await, ErrorKind::LimitExceeded);
    assert_eq!(
        store.stream_info(&a).await?.state,
        StreamState::Missing,
        "a refused call has written"
    );
    Ok(())
}

async fn a_retry_is_recognised_as_a_whole(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    let appends = pair(&a, &b, ExpectedVersion::NoStream);
    let first = store.append_multi(appends.clone()).await?;
    let again = store.append_multi(appends.clone()).await?;
    let told = store.capabilities().tells_retries;
    assert!(again.iter().all(|appended| appended.replayed == told), "a retry was not recognised");
    for (first, again) in first.iter().zip(&again) {
        assert_due!(
            (first.last_version, first.position),
            (again.last_version, again.position),
            "version and position in the first answer, and in that to the retry"
        );
    }
    // One half was written before and the other was not: this is no retry.
    let mut half = appends;
    half[1] = Append::new(id("c-1"), ExpectedVersion::NoStream, [event(1)]);
    assert_kind(store.append_multi(half).await, ErrorKind::Conflict);
    assert_eq!(store.stream_info(&id("c-1")).await?.state, StreamState::Missing);
    Ok(())
}

/// Writers that lock two streams in opposite orders deadlock in some databases.
async fn crossed_writers_only_conflict(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let (a, b) = (id("a-1"), id("b-1"));
    let writers = (0..8).map(|writer| {
        let store: Arc<dyn Store> = handles[writer % 2].clone();
        let (a, b) = if writer % 4 < 2 { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        tokio::spawn(async move {
            let mut written = 0;
            while written < 6 {
                tokio::task::yield_now().await;
                let version = |info: annals_core::StreamInfo| info.version;
                let (at_a, at_b) =
                    (version(store.stream_info(&a).await?), version(store.stream_info(&b).await?));
                let appends = vec![
                    Append::new(a.clone(), at_a, [event(0)]),
                    Append::new(b.clone(), at_b, [event(0)]),
                ];
                match store.append_multi(appends).await {
                    Ok(_) => written += 1,
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Conflict, "not a conflict: {e:?}");
                        assert!(e.conflict().is_some(), "a conflict without versions: {e:?}");
                    }
                }
            }
            done()
        })
    });
    for writer in try_join_all(writers).await.unwrap() {
        writer?;
    }
    for stream in [&a, &b] {
        assert_due!(
            assert_gapless(&handles[0], stream).await?,
            8 * 6,
            "the number of events after 48 appends to two streams"
        );
    }
    Ok(())
}

async fn any_writers_never_conflict(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let streams = [id("a-1"), id("b-1"), id("c-1")];
    let writers = (0..9).map(|writer: usize| {
        let store: Arc<dyn Store> = handles[writer % 2].clone();
        let (one, other) = (streams[writer % 3].clone(), streams[(writer + 1) % 3].clone());
        tokio::spawn(async move {
            for _ in 0..5 {
                store.append_multi(pair(&one, &other, ExpectedVersion::Any)).await?;
            }
            done()
        })
    });
    for writer in try_join_all(writers).await.unwrap() {
        writer?;
    }
    let mut total = 0;
    for stream in &streams {
        total += assert_gapless(&handles[0], stream).await?;
    }
    assert_due!(total, 9 * 5 * 3, "the number of events of 45 appends with 3 events each");
    Ok(())
}

async fn readers_see_all_streams_or_none(cx: Context) -> CaseResult {
    let (writer, reader) = (cx.open().await, cx.open().await);
    let writing = tokio::spawn(async move {
        for round in 0..40 {
            let (a, b) = (id(format!("a-{round}")), id(format!("b-{round}")));
            writer.append_multi(pair(&a, &b, ExpectedVersion::NoStream)).await?;
        }
        done()
    });
    loop {
        // Let the writer run: a store in memory never waits, so this loop would not yield to it.
        tokio::task::yield_now().await;
        let done = writing.is_finished();
        let count = everything(&reader).await?.len();
        assert_eq!(count % 3, 0, "a reader saw part of an append");
        if done {
            assert_due!(count, 40 * 3, "the number of events at the end");
            break;
        }
    }
    writing.await.unwrap()?;
    Ok(())
}

async fn new_and_revived_streams_are_written_together(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let [revived, old, new] = ["a-1", "b-1", "c-1"].map(id);
    extend(&store, &revived, 0, 3).await?;
    extend(&store, &old, 0, 2).await?;
    store.delete(&revived, ExpectedVersion::Any).await?;
    let none = ExpectedVersion::NoStream;
    for wrong in [exact(1), exact(3)] {
        let appends = vec![
            Append::new(revived.clone(), none, events(4..=5)),
            Append::new(new.clone(), none, events(1..=1)),
            Append::new(old.clone(), wrong, events(3..=3)),
        ];
        assert_conflict(store.append_multi(appends).await, &old, wrong, 2);
        assert_due!(
            store.stream_info(&revived).await?.state,
            StreamState::Deleted,
            "the state of the deleted stream after a refused append"
        );
        assert_due!(
            store.stream_info(&new).await?.state,
            StreamState::Missing,
            "the state of the missing stream after a refused append"
        );
    }
    let appends = vec![
        Append::new(revived.clone(), none, events(4..=5)),
        Append::new(new.clone(), none, events(1..=1)),
        Append::new(old.clone(), exact(2), events(3..=3)),
    ];
    let answers = store.append_multi(appends.clone()).await?;
    let first: Vec<_> = answers.iter().map(|answer| answer.first_version.get()).collect();
    assert_due!(
        first,
        [4, 1, 3],
        "the first versions in the answers for a revived, a new and an old stream"
    );
    for append in appends {
        let read = store.load_stream(&append.stream).await?;
        let sent: Vec<_> = append.events.iter().map(annals_core::NewEvent::id).collect();
        assert!(crate::tools::ids(&read).ends_with(&sent), "{:?}", append.stream);
    }
    assert_due!(
        store.load_stream(&revived).await?.len(),
        2,
        "the number of events of the revived stream"
    );
    Ok(())
}

/// The events of the first append come first, whatever the names of the streams are.
async fn positions_have_the_order_of_the_appends(cx: Context) -> CaseResult {
    let store = cx.open().await;
    extend(&store, &id("m-1"), 0, 3).await?;
    let orders = [
        ["z-1", "a-1", "m-1"],
        ["a-1", "m-1", "z-1"],
        ["m-1", "z-1", "a-1"],
        ["z-1", "m-1", "a-1"],
    ];
    for (round, order) in orders.into_iter().enumerate() {
        let before = everything(&store).await?.len();
        let appends: Vec<_> = (1..)
            .zip(order)
            .map(|(count, stream)| Append::new(id(stream), ExpectedVersion::Any, events(1..=count)))
            .collect();
        let answers = store.append_multi(appends.clone()).await?;
        let mut due = Vec::new();
        for append in &appends {
            due.extend(append.events.iter().map(annals_core::NewEvent::id));
        }
        let new = everything(&store).await?.split_off(before);
        assert!(
            crate::tools::ids(&new) == due,
            "round {round}: one append to {order:?}, with 1, 2 and 3 events; all gives {}",
            crate::tools::show(&new)
        );
        assert!(
            answers.windows(2).all(|pair| pair[0].position < pair[1].position),
            "round {round}: the answers should have rising positions: {answers:?}"
        );
    }
    Ok(())
}

async fn the_first_conflict_is_reported(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let streams = ["b-1", "a-1", "c-1"].map(id);
    for (n, stream) in (2..).zip(&streams) {
        extend(&store, stream, 0, n).await?;
    }
    let new = || Append::new(id("new-1"), ExpectedVersion::NoStream, events(1..=2));
    let wrong = [ExpectedVersion::NoStream, exact(1), exact(9)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        for wrong in wrong {
            for place in 0..3 {
                let mut appends: Vec<_> = order
                    .map(|n: usize| Append::new(streams[n].clone(), wrong, events(1..=1)))
                    .to_vec();
                appends.insert(place, new());
                let first = order[0];
                let refused = store.append_multi(appends).await;
                assert_conflict(refused, &streams[first], wrong, first as u64 + 2);
            }
        }
    }
    assert_holds("after refused appends", &store, &id("new-1"), []).await?;
    for (n, stream) in (2..).zip(&streams) {
        assert_holds("after refused appends", &store, stream, 1..=n).await?;
    }
    Ok(())
}

/// A retry beside it does not hide a conflict, and is not what is reported.
async fn a_conflict_behind_a_retry_is_reported(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    extend(&store, &b, 0, 3).await?;
    for (n, expected) in [ExpectedVersion::NoStream, exact(2)].into_iter().enumerate() {
        let known = Append::new(a.clone(), expected, events(1..=2));
        store.append(known.clone()).await?;
        for wrong in [ExpectedVersion::NoStream, exact(2), exact(5)] {
            let refused = || Append::new(b.clone(), wrong, events(1..=2));
            for appends in [vec![known.clone(), refused()], vec![refused(), known.clone()]] {
                assert_conflict(store.append_multi(appends).await, &b, wrong, 3);
            }
        }
        let last = 2 * (n as u64 + 1);
        assert_holds("after refused appends", &store, &a, 1..=last).await?;
        assert_holds("after refused appends", &store, &b, 1..=3).await?;
    }
    Ok(())
}

/// One part was written before, the others were not: they were never one append.
async fn a_retry_beside_a_new_append_is_a_conflict(cx: Context) -> CaseResult {
    let (store, a) = (cx.open().await, id("a-1"));
    extend(&store, &id("old-1"), 0, 2).await?;
    for (n, expected) in [ExpectedVersion::NoStream, exact(3), exact(6)].into_iter().enumerate() {
        let known = Append::new(a.clone(), expected, events(1..=3));
        store.append(known.clone()).await?;
        let version = 3 * (n as u64 + 1);
        let new = || Append::new(id("new-1"), ExpectedVersion::NoStream, events(1..=1));
        let old = || Append::new(id("old-1"), exact(2), events(3..=3));
        let any = || Append::new(id("old-1"), ExpectedVersion::Any, events(3..=3));
        for appends in [
            vec![known.clone(), new()],
            vec![new(), known.clone()],
            vec![new(), known.clone(), old()],
            vec![old(), known.clone()],
            vec![known.clone(), any()],
        ] {
            assert_conflict(store.append_multi(appends).await, &a, expected, version);
        }
        assert_holds("after refused appends", &store, &a, 1..=version).await?;
        assert_holds("after refused appends", &store, &id("old-1"), 1..=2).await?;
        assert_holds("after refused appends", &store, &id("new-1"), []).await?;
    }
    Ok(())
}

#[track_caller]
fn assert_answered(store: &Arc<dyn Store>, what: &str, first: &Appended, again: &Appended) {
    let place = |answer: &Appended| (answer.first_version, answer.last_version, answer.position);
    assert!(place(first) == place(again), "{what} was answered {first:?}, and again {again:?}");
    let told = store.capabilities().tells_retries;
    assert!(again.replayed == told, "`replayed` of {what} should be {told}: {again:?}");
}

fn three() -> Vec<Append> {
    let expected = [ExpectedVersion::NoStream, exact(0), ExpectedVersion::NoStream];
    let append = |((stream, expected), count): ((&str, ExpectedVersion), u64)| {
        Append::new(id(stream), expected, events(1..=count))
    };
    ["b-1", "a-1", "c-1"].into_iter().zip(expected).zip(1..).map(append).collect()
}

async fn a_retry_of_each_part_alone_is_recognised(cx: Context) -> CaseResult {
    let (store, appends) = (cx.open().await, three());
    let first = store.append_multi(appends.clone()).await?;
    for (append, first) in appends.iter().zip(&first) {
        let again = store.append(append.clone()).await?;
        assert_answered(&store, "one part of three", first, &again);
    }
    for left_out in 0..3 {
        let (mut some, mut due) = (appends.clone(), first.clone());
        some.remove(left_out);
        due.remove(left_out);
        for (due, again) in due.iter().zip(store.append_multi(some).await?) {
            assert_answered(&store, "two parts of three", due, &again);
        }
    }
    for append in &appends {
        assert_holds("after the retries", &store, &append.stream, 1..=append.count()).await?;
    }
    Ok(())
}

async fn a_retry_in_another_order_is_recognised(cx: Context) -> CaseResult {
    let (store, appends) = (cx.open().await, three());
    let first = store.append_multi(appends.clone()).await?;
    for order in [[2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let again = store.append_multi(order.map(|n: usize| appends[n].clone()).to_vec()).await?;
        for (n, again) in order.into_iter().zip(&again) {
            assert_answered(&store, "an append in another order", &first[n], again);
        }
    }
    Ok(())
}

async fn a_retry_is_recognised_after_thousands_of_events(cx: Context) -> CaseResult {
    let (store, appends) = (cx.open().await, three());
    let first = store.append_multi(appends.clone()).await?;
    for append in &appends {
        fill(&store, &append.stream, append.count() + 1..=1_200).await?;
    }
    for store in [&store, &cx.open().await] {
        for (first, again) in first.iter().zip(store.append_multi(appends.clone()).await?) {
            assert_answered(store, "an append before thousands of events", first, &again);
        }
    }
    for append in &appends {
        assert_holds("after the retries", &store, &append.stream, 1..=1_200).await?;
    }
    Ok(())
}

async fn a_retry_under_any_is_recognised(cx: Context) -> CaseResult {
    let (store, streams) = (cx.open().await, ["a-1", "b-1", "c-1"].map(id));
    let mut sent = Vec::new();
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists, ExpectedVersion::Any] {
        let append = |stream: &StreamId| Append::new(stream.clone(), expected, events(1..=2));
        let appends: Vec<_> = streams.iter().map(append).collect();
        sent.push((appends.clone(), store.append_multi(appends).await?));
    }
    for stream in &streams {
        fill(&store, stream, 7..=1_200).await?;
    }
    for (appends, first) in &sent {
        for (first, again) in first.iter().zip(store.append_multi(appends.clone()).await?) {
            assert_answered(&store, "an append under `Any` to three streams", first, &again);
        }
    }
    for stream in &streams {
        assert_holds("after the retries", &store, stream, 1..=1_200).await?;
    }
    Ok(())
}

async fn an_append_to_one_stream_may_be_multi(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("a-1"));
    let append = Append::new(stream.clone(), ExpectedVersion::NoStream, events(1..=2));
    let first = store.append_multi(vec![append.clone()]).await?;
    assert!(first.len() == 1, "one append got the answers {first:?}");
    // The same append is the same, however it is sent.
    let again = store.append(append.clone()).await?;
    assert_answered(&store, "an append to one stream", &first[0], &again);
    let again = store.append_multi(vec![append]).await?;
    assert_answered(&store, "an append to one stream", &first[0], &again[0]);
    let wrong = Append::new(stream.clone(), exact(1), [event(3)]);
    assert_conflict(store.append_multi(vec![wrong]).await, &stream, exact(1), 2);
    assert_holds("after the retries", &store, &stream, 1..=2).await?;
    Ok(())
}

/// More streams than the parameters of one statement. A database that takes fewer in a transaction says
/// so, and writes nothing.
async fn hundreds_of_streams_are_written_together(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let streams = store.capabilities().max_append_streams.min(400);
    let streams: Vec<_> = (0..streams).map(|n| id(format!("order-{n}"))).collect();
    let none = ExpectedVersion::NoStream;
    let appends = streams.iter().map(|stream| Append::new(stream.clone(), none, events(1..=1)));
    store.append_multi(appends.collect()).await?;
    let (count, last) = (streams.len(), streams.len() - 1);
    for base in 1..3 {
        let append = |stream: &StreamId| Append::new(stream.clone(), exact(base), events(1..=1));
        let mut appends: Vec<_> = streams.iter().map(append).collect();
        let answers = store.append_multi(appends.clone()).await?;
        let wrong = answers.iter().position(|answer| answer.last_version.get() != base + 1);
        assert!(answers.len() == count && wrong.is_none(), "answer {wrong:?} of {}", answers.len());
        appends.iter_mut().for_each(|append| append.events = events(9..=9));
        appends[last].expected = exact(base + 2);
        appends[..last].iter_mut().for_each(|append| append.expected = exact(base + 1));
        let refused = store.append_multi(appends).await;
        assert_conflict(refused, &streams[last], exact(base + 2), base + 1);
    }
    for stream in streams.iter().step_by(57) {
        assert_holds(format!("after three appends to {count} streams"), &store, stream, 1..=3)
            .await?;
    }
    if store.capabilities().global_order {
        let all = everything(&store).await?.len();
        assert!(all == 3 * count, "after three appends to {count} streams there are {all} events");
    }
    Ok(())
}

/// One event for each of so many streams.
fn to_streams(count: usize) -> Vec<Append> {
    let append =
        |n| Append::new(id(format!("order-{n}")), ExpectedVersion::NoStream, [event(n as u64)]);
    (0..count).map(append).collect()
}

async fn as_many_streams_as_declared_are_written(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let most = store.capabilities().max_append_streams;
    let answers = store.append_multi(to_streams(most)).await?;
    assert_due!(answers.len(), most, "the number of answers to an append to most streams");
    for n in [0, most / 2, most - 1] {
        let stream = id(format!("order-{n}"));
        assert_due!(
            store.load_stream(&stream).await?.len(),
            1,
            "the number of events of one of the streams"
        );
    }
    Ok(())
}

async fn refuses_too_many_streams(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let most = store.capabilities().max_append_streams;
    let error =
        assert_kind(store.append_multi(to_streams(most + 1)).await, ErrorKind::LimitExceeded);
    assert!(error.to_string().contains(&most.to_string()), "the limit must be named: {error}");
    for n in [0, most] {
        assert_holds("after a refused append", &store, &id(format!("order-{n}")), []).await?;
    }
    Ok(())
}

async fn one_of_many_multi_stream_appends_succeeds(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let (a, b) = (id("a-1"), id("b-1"));
    for base in 0..8 {
        let appending = (0..9).map(|n| {
            let store = handles[n % 3].clone();
            let mut appends = pair(&a, &b, exact(base));
            appends.iter_mut().for_each(|append| append.events.truncate(1));
            if n % 2 == 1 {
                appends.reverse();
            }
            tokio::spawn(async move { store.append_multi(appends).await })
        });
        let answers = try_join_all(appending).await.unwrap();
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(won == 1, "{won} of 9 appends to two streams at version {base}: {answers:?}");
        for lost in answers.into_iter().filter(Result::is_err) {
            let error = assert_kind(lost, ErrorKind::Conflict);
            let conflict = error.conflict().expect("a conflict has versions");
            let found = (conflict.expected, conflict.actual.get());
            assert!(found == (exact(base), base + 1), "after {base} came {}: {error:?}", base + 1);
        }
        for stream in [&a, &b] {
            assert_holds("after a race", &handles[1], stream, 1..=base + 1).await?;
        }
    }
    Ok(())
}

async fn concurrent_retries_write_once(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    for round in 0..8 {
        let streams = ["a", "b"].map(|name| id(format!("{name}-{round}")));
        let appends = pair(&streams[0], &streams[1], ExpectedVersion::NoStream);
        let sending = (0..9).map(|n| {
            let (store, appends) = (handles[n % 3].clone(), appends.clone());
            tokio::spawn(async move { store.append_multi(appends).await })
        });
        let mut answers = Vec::new();
        for answer in try_join_all(sending).await.unwrap() {
            answers.push(answer?);
        }
        let place = |all: &[Appended]| -> Vec<_> {
            all.iter().map(|answer| (answer.last_version, answer.position)).collect()
        };
        assert!(
            answers.windows(2).all(|pair| place(&pair[0]) == place(&pair[1])),
            "one append to two streams, sent 9 times at once, should get one answer: {answers:?}"
        );
        assert_holds("after 9 retries at once", &handles[0], &streams[0], 1..=2).await?;
        assert_holds("after 9 retries at once", &handles[1], &streams[1], 1..=1).await?;
    }
    Ok(())
}

/// Polls the append a number of times, and drops it at whatever await point it has reached.
async fn a_dropped_append_is_whole_or_not_at_all(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for polls in 0..12 {
        let streams = ["a", "b"].map(|name| id(format!("{name}-{polls}")));
        {
            let appends = pair(&streams[0], &streams[1], ExpectedVersion::NoStream);
            let mut append = std::pin::pin!(store.append_multi(appends));
            for _ in 0..polls {
                if poll!(&mut append).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // The dropped append may still be carried out. An append to both streams at the versions
        // seen settles whether it came first.
        let versions = loop {
            tokio::task::yield_now().await;
            let mut versions = [0, 0];
            for (version, stream) in versions.iter_mut().zip(&streams) {
                *version = other.stream_info(stream).await?.version.get();
            }
            let appends = versions.iter().zip(&streams);
            let appends =
                appends.map(|(v, stream)| Append::new(stream.clone(), exact(*v), [event(9)]));
            match other.append_multi(appends.collect()).await {
                Ok(_) => break versions,
                Err(e) => assert!(e.kind() == ErrorKind::Conflict, "not a conflict: {e:?}"),
            }
        };
        assert!(
            [[0, 0], [2, 1]].contains(&versions),
            "an append of 2 and 1 events to two streams was dropped; their versions are {versions:?}"
        );
        for (version, stream) in versions.into_iter().zip(&streams) {
            assert_holds("after a dropped append", &other, stream, 1..=version + 1).await?;
        }
    }
    Ok(())
}

async fn a_closed_stream_behind_a_retry_is_reported(cx: Context) -> CaseResult {
    let (store, a, b) = (cx.open().await, id("a-1"), id("b-1"));
    let known = Append::new(a.clone(), ExpectedVersion::NoStream, events(1..=2));
    store.append(known.clone()).await?;
    store.tombstone(&b, ExpectedVersion::Any).await?;
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream] {
        let closed = || Append::new(b.clone(), expected, events(1..=1));
        let new = || Append::new(id("new-1"), ExpectedVersion::NoStream, events(1..=1));
        for appends in [
            vec![known.clone(), closed()],
            vec![closed(), known.clone()],
            vec![new(), known.clone(), closed()],
        ] {
            let error = assert_kind(store.append_multi(appends).await, ErrorKind::StreamClosed);
            assert!(error.stream() == Some(&b), "{b} is closed, and not {:?}", error.stream());
        }
    }
    assert_holds("after refused appends", &store, &a, 1..=2).await?;
    assert_holds("after refused appends", &store, &id("new-1"), []).await?;
    Ok(())
}
