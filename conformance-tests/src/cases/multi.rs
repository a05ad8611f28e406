//! Appends to several streams at once.

use annals_core::{
    Append, ErrorKind, EventStoreExt, ExpectedVersion, Store, StreamId, StreamState,
};
use futures::future::try_join_all;
use std::sync::Arc;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_gapless, assert_kind, done, event, events, everything, exact,
        extend, id,
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
        assert_eq!((last.version, last.position), (appended.last_version, appended.position));
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
    assert_eq!(store.load_stream(&b).await?.len(), 2);
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
        assert_eq!((first.last_version, first.position), (again.last_version, again.position));
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
        assert_eq!(assert_gapless(&handles[0], stream).await?, 8 * 6);
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
    assert_eq!(total, 9 * 5 * 3);
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
            assert_eq!(count, 40 * 3);
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
        assert_eq!(store.stream_info(&revived).await?.state, StreamState::Deleted);
        assert_eq!(store.stream_info(&new).await?.state, StreamState::Missing);
    }
    let appends = vec![
        Append::new(revived.clone(), none, events(4..=5)),
        Append::new(new.clone(), none, events(1..=1)),
        Append::new(old.clone(), exact(2), events(3..=3)),
    ];
    let answers = store.append_multi(appends.clone()).await?;
    let first: Vec<_> = answers.iter().map(|answer| answer.first_version.get()).collect();
    assert_eq!(first, [4, 1, 3]);
    for append in appends {
        let read = store.load_stream(&append.stream).await?;
        let sent: Vec<_> = append.events.iter().map(annals_core::NewEvent::id).collect();
        assert!(crate::tools::ids(&read).ends_with(&sent), "{:?}", append.stream);
    }
    assert_eq!(store.load_stream(&revived).await?.len(), 2);
    Ok(())
}
