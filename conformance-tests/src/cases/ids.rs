//! The same event ids in several streams, and more than once in one: an id is no key of the store.

use std::sync::Arc;

use annals_core::{
    Append, Appended, EventStoreExt, ExpectedVersion, NewEvent, Position, Recognition, Result,
    Store, StreamId,
};
use chrono::DateTime;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_conflict, assert_holds, event, events, exact, extend, id, ids, show},
};

cases! { "ids":
    ids_of_another_stream_are_new_under_every_expectation [5];
    ids_of_another_stream_excuse_no_conflict [2, 5];
    ids_of_a_stream_that_differs_in_case_are_new [5, 10];
    ids_of_a_removed_stream_are_new_elsewhere [5, 21] Delete;
    ids_of_other_streams_are_new_in_a_multi_stream_append [5, 9] MultiStreamAppend;
    one_multi_stream_append_gives_two_streams_the_same_ids [5, 9] MultiStreamAppend;
    an_append_of_known_and_new_ids_is_new [3, 5];
    a_retry_is_found_among_the_same_ids [5];
    one_append_may_hold_an_id_twice [5, 10];
    ids_of_another_stream_are_new_in_an_import [5, 25];
}

fn expectations(base: u64) -> Vec<ExpectedVersion> {
    let loose = [ExpectedVersion::Any];
    match base {
        0 => [ExpectedVersion::NoStream, exact(0)].into_iter().chain(loose).collect(),
        _ => [ExpectedVersion::StreamExists, exact(base)].into_iter().chain(loose).collect(),
    }
}

#[track_caller]
fn assert_new(what: &str, appended: &Appended, base: u64, count: u64) {
    let found = (appended.replayed, appended.first_version.get(), appended.last_version.get());
    assert!(
        found == (false, base + 1, base + count),
        "{what}: a new append after version {base} was due, but the answer is {appended:?}"
    );
}

/// Checks that a stream ends with these events.
async fn assert_ends(
    what: &str,
    store: &Arc<dyn Store>,
    stream: &StreamId,
    sent: &[NewEvent],
) -> Result<()> {
    let read = store.load_stream(stream).await?;
    let sent: Vec<_> = sent.iter().map(NewEvent::id).collect();
    assert!(
        ids(&read).ends_with(&sent),
        "{what}: {stream} should end with the events {sent:?}; it is {}: {:?}",
        show(&read),
        ids(&read)
    );
    Ok(())
}

/// Sends the last append of a stream once more: every store recognises that.
async fn assert_retried(
    what: &str,
    store: &Arc<dyn Store>,
    stream: &StreamId,
    expected: ExpectedVersion,
    sent: &[NewEvent],
    first: &Appended,
) -> Result<()> {
    let again = store.append_to(stream, expected, sent.to_vec()).await?;
    assert!(
        (again.last_version, again.position) == (first.last_version, first.position),
        "{what}: the append was answered {first:?}, and its retry {again:?}"
    );
    let what = format!("{what}, and a retry");
    assert_holds(what, store, stream, 1..=first.last_version.get()).await
}

async fn ids_of_another_stream_are_new_under_every_expectation(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let sent = events(1..=2);
    store.append_to("first-1", ExpectedVersion::Any, sent.clone()).await?;
    for base in [0, 3] {
        for (n, expected) in expectations(base).into_iter().enumerate() {
            for sent in [&sent[..], &sent[..1], &sent[1..]] {
                let stream = id(format!("order-{base}-{n}-{}", sent[0].id()));
                let stream = id(format!("{stream}-{}", sent.len()));
                if base > 0 {
                    extend(&store, &stream, 0, base).await?;
                }
                let appended = other.append_to(&stream, expected, sent.to_vec()).await?;
                let what = format!("events whose ids another stream has, under {expected}");
                assert_new(&what, &appended, base, sent.len() as u64);
                assert_ends(&what, &store, &stream, sent).await?;
                assert_retried(&what, &other, &stream, expected, sent, &appended).await?;
            }
        }
    }
    let first = store.load_stream(&id("first-1")).await?;
    assert!(first.len() == 2, "the first stream has changed: {}", show(&first));
    Ok(())
}

async fn ids_of_another_stream_excuse_no_conflict(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &id("first-1"), 0, 1).await?;
    let sent = events(2..=3);
    store.append_to("first-1", exact(1), sent.clone()).await?;
    extend(&store, &stream, 0, 5).await?;
    // In the other stream these ids stand at just the versions that this append would have got.
    for expected in [exact(1), exact(0), ExpectedVersion::NoStream, exact(7)] {
        let refused = store.append_to(&stream, expected, sent.clone()).await;
        assert_conflict(refused, &stream, expected, 5);
    }
    let missing = store.append_to("missing-1", exact(1), sent.clone()).await;
    assert_conflict(missing, &id("missing-1"), exact(1), 0);
    let exists = ExpectedVersion::StreamExists;
    let missing = store.append_to("missing-1", exists, sent).await;
    assert_conflict(missing, &id("missing-1"), exists, 0);
    assert_holds("after refused appends", &store, &stream, 1..=5).await?;
    Ok(())
}

async fn ids_of_a_stream_that_differs_in_case_are_new(cx: Context) -> CaseResult {
    let (store, sent) = (cx.open().await, events(1..=2));
    let names = ["order-1", "Order-1", "order-1 ", "order_1", "órder-1", "o\u{301}rder-1"];
    for name in names {
        for expected in [ExpectedVersion::NoStream, ExpectedVersion::Any] {
            let stream =
                id(format!("{name}{}", if expected == ExpectedVersion::Any { "a" } else { "" }));
            let appended = store.append_to(&stream, expected, sent.clone()).await?;
            let what =
                format!("events whose ids a stream with a similar name has, under {expected}");
            assert_new(&what, &appended, 0, 2);
            assert_ends(&what, &store, &stream, &sent).await?;
        }
    }
    Ok(())
}

async fn ids_of_a_removed_stream_are_new_elsewhere(cx: Context) -> CaseResult {
    let (store, sent) = (cx.open().await, events(1..=2));
    store.append_to("gone-1", ExpectedVersion::NoStream, sent.clone()).await?;
    store.delete(&id("gone-1"), ExpectedVersion::Any).await?;
    for (n, expected) in expectations(0).into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        let appended = store.append_to(&stream, expected, sent.clone()).await?;
        assert_new("events whose ids a deleted stream had", &appended, 0, 2);
        assert_ends("after a deletion of the other stream", &store, &stream, &sent).await?;
    }
    // The removal of one of the streams that share ids takes nothing from the others.
    store.delete(&id("order-0"), ExpectedVersion::Any).await?;
    let retry = Append::new(id("order-1"), exact(0), sent.clone());
    let again = store.append(retry).await?;
    assert!(again.last_version.get() == 2, "a retry in a stream that is left gave {again:?}");
    assert_holds("after the retry", &store, &id("order-1"), 1..=2).await?;
    Ok(())
}

async fn ids_of_other_streams_are_new_in_a_multi_stream_append(cx: Context) -> CaseResult {
    let (store, sent) = (cx.open().await, events(1..=2));
    store.append_to("first-1", ExpectedVersion::Any, sent.clone()).await?;
    for base in [0, 3] {
        for (n, expected) in expectations(base).into_iter().enumerate() {
            let streams = ["a", "b"].map(|name| id(format!("{name}-{base}-{n}")));
            for stream in &streams {
                if base > 0 {
                    extend(&store, stream, 0, base).await?;
                }
            }
            // One part with ids that are known, or both.
            let other = if n % 2 == base as usize % 2 { events(3..=4) } else { sent.clone() };
            let appends = vec![
                Append::new(streams[0].clone(), expected, sent.clone()),
                Append::new(streams[1].clone(), expected, other),
            ];
            for (append, answer) in appends.iter().zip(store.append_multi(appends.clone()).await?) {
                let what = format!("ids of another stream in a multi-stream append, {expected}");
                assert_new(&what, &answer, base, 2);
                assert_ends(&what, &store, &append.stream, &append.events).await?;
            }
        }
    }
    Ok(())
}

async fn one_multi_stream_append_gives_two_streams_the_same_ids(cx: Context) -> CaseResult {
    let (store, sent) = (cx.open().await, events(1..=2));
    let appends = ["a-1", "b-1", "c-1"]
        .map(|stream| Append::new(id(stream), ExpectedVersion::NoStream, sent.clone()))
        .to_vec();
    let first = store.append_multi(appends.clone()).await?;
    for (append, answer) in appends.iter().zip(&first) {
        assert_new("the same ids in each stream of one append", answer, 0, 2);
        assert_ends("after that append", &store, &append.stream, &sent).await?;
    }
    let again = store.append_multi(appends.clone()).await?;
    for (first, again) in first.iter().zip(&again) {
        assert!(
            (first.last_version, first.position) == (again.last_version, again.position),
            "a retry should have the answer {first:?}; it has {again:?}"
        );
    }
    for append in &appends {
        assert_holds("after the retry", &store, &append.stream, 1..=2).await?;
    }
    Ok(())
}

async fn an_append_of_known_and_new_ids_is_new(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let known = events(1..=2);
    store.append_to(&stream, ExpectedVersion::NoStream, known.clone()).await?;
    let mut base = 2;
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        for sent in [
            vec![known[1].clone(), event(3)],
            vec![event(4), known[1].clone()],
            vec![known[0].clone(), event(5), known[1].clone()],
            vec![known[1].clone(), known[0].clone()],
        ] {
            let appended = store.append_to(&stream, expected, sent.clone()).await?;
            let what = format!("known ids that do not stand in this order, under {expected}");
            assert_new(&what, &appended, base, sent.len() as u64);
            assert_ends(&what, &store, &stream, &sent).await?;
            // Where recognition is best effort, a store may go by ids that also stand elsewhere.
            if store.capabilities().retry_recognition == Recognition::Guaranteed {
                assert_retried(&what, &store, &stream, expected, &sent, &appended).await?;
            }
            base += sent.len() as u64;
        }
    }
    assert_holds("at the end", &store, &stream, 1..=base).await?;
    Ok(())
}

async fn a_retry_is_found_among_the_same_ids(cx: Context) -> CaseResult {
    let (store, stream, sent) = (cx.open().await, id("order-1"), events(1..=2));
    let mut answers = Vec::new();
    for base in [0, 2, 4] {
        let appended = store.append_to(&stream, exact(base), sent.clone()).await?;
        assert_new("the same ids under a version that holds", &appended, base, 2);
        answers.push((base, appended));
    }
    for (base, first) in answers {
        let again = store.append_to(&stream, exact(base), sent.clone()).await?;
        assert!(
            (again.last_version, again.position) == (first.last_version, first.position)
                || base == 6,
            "the append after version {base} was answered {first:?}, and its retry {again:?}"
        );
    }
    for wrong in [1, 3, 5] {
        let refused = store.append_to(&stream, exact(wrong), sent.clone()).await;
        assert_conflict(refused, &stream, exact(wrong), 6);
    }
    assert_holds("after the retries", &store, &stream, 1..=6).await?;
    Ok(())
}

async fn one_append_may_hold_an_id_twice(cx: Context) -> CaseResult {
    let (store, one) = (cx.open().await, event(1));
    for (n, expected) in expectations(0).into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        let sent = vec![one.clone(), event(2), one.clone()];
        let append = Append::new(stream.clone(), expected, sent.clone());
        let first = store.append(append.clone()).await?;
        assert_new("an append that holds an id twice", &first, 0, 3);
        assert_ends("after that append", &store, &stream, &sent).await?;
        if expected != ExpectedVersion::Any {
            let again = store.append(append).await?;
            assert!(
                (first.last_version, first.position) == (again.last_version, again.position),
                "the retry should have the answer {first:?}; it has {again:?}"
            );
        }
        assert_holds("after the retry", &store, &stream, 1..=3).await?;
    }
    Ok(())
}

async fn ids_of_another_stream_are_new_in_an_import(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let sent = events(1..=3);
    store.append_to("first-1", ExpectedVersion::NoStream, sent.clone()).await?;
    let time = DateTime::from_timestamp(1_600_000_000, 0).unwrap();
    let imported = |stream: &str| -> Vec<_> {
        let recorded = |(n, event): (u64, NewEvent)| {
            event.recorded(id(stream), n.into(), Position::new(n), time)
        };
        (1..).zip(sent.clone()).map(recorded).collect()
    };
    for stream in ["order-1", "order-2"] {
        for _ in 0..2 {
            store.import(imported(stream)).await?;
            assert_ends("after an import of ids of another stream", &store, &id(stream), &sent)
                .await?;
            assert_holds("after the import", &store, &id(stream), 1..=3).await?;
        }
    }
    let appended = store.append_to("order-1", exact(3), [sent[0].clone()]).await?;
    assert_new("an id of this and of other streams", &appended, 3, 1);
    Ok(())
}
