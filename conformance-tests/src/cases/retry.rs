//! Appends that are sent again, as after a lost answer.

use std::sync::Arc;

use annals_core::{
    Append, Appended, ErrorKind, EventStoreExt, ExpectedVersion, NewEvent, Recognition, Store,
    StreamId,
};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_holds, assert_kind, event, events, exact, extend, fill, id, ids,
        size,
    },
};

cases! { "retry":
    an_exact_append_is_recognised [5];
    a_no_stream_append_is_recognised [5];
    a_retry_is_recognised_after_later_appends [5];
    a_retry_is_recognised_by_another_handle [5];
    a_no_stream_append_is_recognised_on_a_revived_stream [5, 21] Delete;
    a_retry_of_a_part_is_a_conflict [5];
    the_same_ids_elsewhere_are_a_conflict [5];
    the_same_ids_under_an_expectation_that_holds_are_new [5];
    the_same_ids_in_another_stream_are_new [5];
    an_any_append_is_recognised_at_once [5];
    an_any_append_is_recognised_later [5] GuaranteedRecognition;
    a_retry_is_recognised_after_thousands_of_events [5];
    an_any_retry_is_recognised_after_thousands_of_appends [5] GuaranteedRecognition;
    concurrent_retries_write_once [2, 5];
    a_retry_wakes_no_subscriber [5, 15];
    removed_events_are_no_proof_of_a_retry [5, 21] Delete Truncate;
}

#[track_caller]
fn assert_replayed(store: &Arc<dyn Store>, first: &Appended, again: &Appended) {
    let told = store.capabilities().tells_retries;
    assert!(!first.replayed, "the answer says that a first append was a retry: {first:?}");
    let answer =
        |appended: &Appended| (appended.first_version, appended.last_version, appended.position);
    assert!(
        answer(first) == answer(again),
        "the append was answered {first:?}, and its retry should be; it was answered {again:?}"
    );
    assert!(again.replayed == told, "`replayed` of a retry should be {told}: {again:?}");
}

async fn an_exact_append_is_recognised(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 2).await?;
    let append = Append::new(stream.clone(), exact(2), events(3..=5));
    let first = store.append(append.clone()).await?;
    for _ in 0..3 {
        assert_replayed(&store, &first, &store.append(append.clone()).await?);
    }
    assert_eq!(store.load_stream(&stream).await?.len(), 5, "the retry has written again");
    Ok(())
}

async fn a_no_stream_append_is_recognised(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for (stream, expected) in [("order-1", ExpectedVersion::NoStream), ("order-2", exact(0))] {
        let append = Append::new(id(stream), expected, events(1..=2));
        let first = store.append(append.clone()).await?;
        assert_replayed(&store, &first, &store.append(append).await?);
        assert_eq!(store.load_stream(&id(stream)).await?.len(), 2, "the retry has written again");
    }
    Ok(())
}

async fn a_retry_is_recognised_after_later_appends(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let append = Append::new(stream.clone(), ExpectedVersion::NoStream, events(1..=2));
    let first = store.append(append.clone()).await?;
    extend(&store, &stream, 2, 30).await?;
    assert_replayed(&store, &first, &store.append(append).await?);
    assert_eq!(store.load_stream(&stream).await?.len(), 32);
    Ok(())
}

async fn a_retry_is_recognised_by_another_handle(cx: Context) -> CaseResult {
    let (one, other) = (cx.open().await, cx.open().await);
    let append = Append::new(id("order-1"), ExpectedVersion::NoStream, events(1..=2));
    let first = one.append(append.clone()).await?;
    assert_replayed(&other, &first, &other.append(append).await?);
    Ok(())
}

async fn a_no_stream_append_is_recognised_on_a_revived_stream(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 4).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    let append = Append::new(stream.clone(), ExpectedVersion::NoStream, events(5..=6));
    let first = store.append(append.clone()).await?;
    assert_eq!(first.first_version.get(), 5);
    assert_replayed(&store, &first, &store.append(append).await?);
    Ok(())
}

async fn a_retry_of_a_part_is_a_conflict(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let written = events(1..=3);
    store.append_to(&stream, exact(0), written.clone()).await?;
    let [one, two, three] = [&written[0], &written[1], &written[2]].map(NewEvent::clone);
    for retry in [
        vec![one.clone(), two.clone(), event(3)],
        vec![event(1), two.clone(), three.clone()],
        vec![one.clone(), two.clone(), three.clone(), event(4)],
        vec![three, two, one],
    ] {
        let again = store.append_to(&stream, exact(0), retry).await;
        assert_conflict(again, &stream, exact(0), 3);
    }
    assert_eq!(store.load_stream(&stream).await?.len(), 3);
    Ok(())
}

async fn the_same_ids_elsewhere_are_a_conflict(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let written = events(1..=2);
    store.append_to(&stream, exact(0), [event(0)]).await?;
    store.append_to(&stream, exact(1), written.clone()).await?;
    // The events stand at versions 2 and 3. An append that expects 0, 2 or 4 would have written
    // them elsewhere, so it is no retry.
    for expected in [0, 2, 4] {
        let again = store.append_to(&stream, exact(expected), written.clone()).await;
        assert_conflict(again, &stream, exact(expected), 3);
    }
    Ok(())
}

async fn the_same_ids_under_an_expectation_that_holds_are_new(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let written = events(1..=2);
    store.append_to(&stream, exact(0), written.clone()).await?;
    let again = store.append_to(&stream, exact(2), written).await?;
    assert!(!again.replayed, "an append whose expectation held was taken for a retry");
    assert_eq!((again.first_version.get(), again.last_version.get()), (3, 4));
    let read = ids(&store.load_stream(&stream).await?);
    assert_eq!(read[..2], read[2..]);
    Ok(())
}

async fn the_same_ids_in_another_stream_are_new(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let written = events(1..=2);
    for stream in ["order-1", "order-2", "order-3"] {
        let appended = store.append_to(stream, ExpectedVersion::NoStream, written.clone()).await?;
        assert!(!appended.replayed, "an id that another stream has was taken for a retry");
    }
    store.append_to("order-1", ExpectedVersion::Any, [event(3)]).await?;
    assert_eq!(store.load_stream(&id("order-1")).await?.len(), 3);
    Ok(())
}

/// A retry right after the append is recognised under guaranteed and under best-effort recognition.
async fn an_any_append_is_recognised_at_once(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists, ExpectedVersion::Any] {
        if expected == ExpectedVersion::StreamExists {
            extend_any(&store, &stream).await?;
        }
        let append = Append::new(stream.clone(), expected, events(1..=3));
        let first = store.append(append.clone()).await?;
        assert_replayed(&store, &first, &store.append(append).await?);
    }
    Ok(())
}

async fn extend_any(store: &Arc<dyn Store>, stream: &StreamId) -> annals_core::Result<Appended> {
    store.append_to(stream, ExpectedVersion::Any, [event(0)]).await
}

async fn an_any_append_is_recognised_later(cx: Context) -> CaseResult {
    assert_eq!(cx.open().await.capabilities().retry_recognition, Recognition::Guaranteed);
    let (store, stream) = (cx.open().await, id("order-1"));
    extend_any(&store, &stream).await?;
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        let append = Append::new(stream.clone(), expected, events(1..=3));
        let first = store.append(append.clone()).await?;
        for _ in 0..50 {
            extend_any(&store, &stream).await?;
        }
        assert_replayed(&store, &first, &store.append(append).await?);
    }
    Ok(())
}

/// More events than any store keeps in a cache.
const LATER: u64 = 3_000;

async fn a_retry_is_recognised_after_thousands_of_events(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut sent = Vec::new();
    for (base, expected) in
        [(0, ExpectedVersion::NoStream), (2, exact(2)), (4, exact(4)), (6, exact(6))]
    {
        let append = Append::new(stream.clone(), expected, events(base + 1..=base + 2));
        let answer = store.append(append.clone()).await?;
        sent.push((append, answer));
    }
    fill(&store, &stream, 9..=LATER).await?;
    fill(&store, &id("other-1"), 1..=LATER).await?;
    for store in [&store, &cx.open().await] {
        for (append, first) in &sent {
            assert_replayed(store, first, &store.append(append.clone()).await?);
        }
        // A part of one, and parts of two: neither was ever sent so.
        for (expected, wrong) in [(exact(2), 1..=2), (exact(4), 0..=1)] {
            let part = sent[*wrong.start()].0.events.iter().chain(&sent[*wrong.end()].0.events);
            let part: Vec<_> = part.skip(1).take(2).cloned().collect();
            let refused = store.append_to(&stream, expected, part).await;
            assert_conflict(refused, &stream, expected, LATER);
        }
    }
    assert_holds("after the retries", &store, &stream, 1..=LATER).await?;
    Ok(())
}

/// Each later append is one of its own, in this and in other streams.
async fn an_any_retry_is_recognised_after_thousands_of_appends(cx: Context) -> CaseResult {
    let (handles, stream) = (cx.open_many(2).await, id("order-1"));
    extend_any(&handles[0], &stream).await?;
    let mut sent = Vec::new();
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        let append = Append::new(stream.clone(), expected, events(1..=3));
        let answer = handles[0].append(append.clone()).await?;
        sent.push((append, answer));
    }
    let later = (0..LATER).map(|n| {
        let store = handles[size(n % 2)].clone();
        let stream = if n % 8 == 0 { id(format!("other-{}", n % 5)) } else { stream.clone() };
        async move { store.append_to(stream, ExpectedVersion::Any, [event(n)]).await }
    });
    stream::iter(later).buffer_unordered(8).try_collect::<Vec<_>>().await?;
    let count = handles[0].stream_info(&stream).await?.version.get();
    for store in &handles {
        for (append, first) in &sent {
            assert_replayed(store, first, &store.append(append.clone()).await?);
        }
    }
    assert_holds("after the retries", &handles[1], &stream, 1..=count).await?;
    Ok(())
}

async fn concurrent_retries_write_once(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    for round in 0..10 {
        let stream = id(format!("order-{round}"));
        let append = Append::new(stream.clone(), ExpectedVersion::NoStream, events(1..=2));
        let sent = (0..8).map(|n| {
            let (store, append) = (handles[n % 2].clone(), append.clone());
            tokio::spawn(async move { store.append(append).await })
        });
        let mut answers = Vec::new();
        for answer in try_join_all(sent).await.unwrap() {
            answers.push(answer?);
        }
        let first = answers.iter().filter(|answer| !answer.replayed).count();
        let due = if handles[0].capabilities().tells_retries { 1 } else { answers.len() };
        assert_eq!(first, due, "one append, sent 8 times at once: {answers:?}");
        assert!(answers.windows(2).all(|pair| {
            pair[0].position == pair[1].position && pair[0].last_version == pair[1].last_version
        }));
        assert_eq!(handles[0].load_stream(&stream).await?.len(), 2);
    }
    Ok(())
}

async fn a_retry_wakes_no_subscriber(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let subscribe = annals_core::Subscribe::to(stream.clone());
    let mut live = store.subscribe(subscribe).await?;
    let append = Append::new(stream.clone(), exact(0), events(1..=2));
    for _ in 0..3 {
        store.append(append.clone()).await?;
    }
    let changed = Append::new(stream.clone(), exact(0), [event(1)]);
    assert_kind(store.append(changed).await, ErrorKind::Conflict);
    let last = event(3);
    store.append_to(&stream, exact(2), [last.clone()]).await?;
    let seen = crate::tools::take_until(&cx, &mut live, last.id()).await;
    assert_eq!(seen.len(), 3, "a retry gave a subscriber events again");
    Ok(())
}

/// Whatever the answer is, an append that is answered as done can be read.
async fn removed_events_are_no_proof_of_a_retry(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let expectations = [ExpectedVersion::NoStream, exact(0), ExpectedVersion::Any];
    for (n, expected) in expectations.into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        let append = Append::new(stream.clone(), expected, events(1..=2));
        store.append(append.clone()).await?;
        store.delete(&stream, ExpectedVersion::Any).await?;
        let again = store.append(append.clone()).await?;
        assert_eq!((again.replayed, again.first_version.get()), (false, 3), "{expected}");
        let sent: Vec<_> = append.events.iter().map(NewEvent::id).collect();
        assert_eq!(ids(&store.load_stream(&stream).await?), sent, "{expected}");
    }
    let stream = id("cut-1");
    extend(&store, &stream, 0, 2).await?;
    let append = Append::new(stream.clone(), exact(2), events(3..=3));
    store.append(append.clone()).await?;
    store.truncate(&stream, 4.into()).await?;
    assert_conflict(store.append(append).await, &stream, exact(2), 3);
    Ok(())
}
