//! Many concurrent writers, through several handles, some with a concurrent reader.

use std::{
    collections::HashSet,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use annals_core::{
    Append, ErrorKind, EventStoreExt, ExpectedVersion, Position, ReadStream, Result, Store,
    Subscribe, Version,
};
use futures::{TryStreamExt, future::try_join_all, poll};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_due, assert_gapless, assert_same_events, event, events, everything,
        exact, extend, id, number, take_until,
    },
};

cases! { "concurrency":
    one_of_many_succeeds [2];
    any_never_conflicts [3, 4];
    stream_exists_never_conflicts [3];
    different_streams_never_conflict [2];
    optimistic_counters_lose_no_update [2, 13];
    readers_see_whole_appends [1, 14];
    later_appends_have_later_positions [13] GlobalOrder;
    answers_agree_with_readers [4, 13] GlobalOrder;
    a_live_reader_misses_nothing [15] GlobalOrder;
    live_readers_of_streams_miss_nothing [15];
    a_dropped_append_is_whole_or_not_at_all [8];
    aborted_writers_leave_the_store_working [8];
}

/// Runs `count` concurrent tasks, which share the handles evenly.
async fn crowd<F, T>(
    handles: &[Arc<dyn Store>],
    count: usize,
    task: impl Fn(Arc<dyn Store>, u64) -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let tasks =
        (0..count).map(|n| tokio::spawn(task(handles[n % handles.len()].clone(), n as u64)));
    try_join_all(tasks).await.unwrap().into_iter().collect()
}

async fn one_of_many_succeeds(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let stream = id("order-1");
    for base in 0..12 {
        let expected = if base == 0 { ExpectedVersion::NoStream } else { exact(base) };
        let results = crowd(&handles, 12, |store, n| {
            let append = Append::new(id("order-1"), expected, [event(n)]);
            async move { Ok((n, store.append(append).await)) }
        })
        .await?;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, r)| r.is_ok());
        assert_eq!(won.len(), 1, "of 12 appends that expect {expected}");
        for (_, result) in lost {
            assert_conflict(result, &stream, expected, base + 1);
        }
        let winner = read_one(&handles[1], base + 1).await?;
        assert_eq!(winner, won[0].0, "the event stored is not that of the append that succeeded");
    }
    Ok(())
}

async fn read_one(store: &Arc<dyn Store>, version: u64) -> Result<u64> {
    let options = ReadStream::default().with_from(version).with_limit(1);
    let event = store.read_stream(&id("order-1"), options).try_next().await?;
    Ok(number(&event.unwrap()))
}

async fn any_never_conflicts(cx: Context) -> CaseResult {
    never_conflicts(cx, ExpectedVersion::Any).await
}

async fn stream_exists_never_conflicts(cx: Context) -> CaseResult {
    never_conflicts(cx, ExpectedVersion::StreamExists).await
}

/// Checks that each version is answered to one writer only, and holds the event of that writer.
async fn never_conflicts(cx: Context, expected: ExpectedVersion) -> CaseResult {
    let handles = cx.open_many(3).await;
    let stream = id("order-1");
    extend(&handles[0], &stream, 0, 1).await?;
    let written = crowd(&handles, 24, |store, n| async move {
        let mut written = Vec::new();
        for round in 0..4 {
            let batch = events((0..=n % 3).map(|_| n * 100 + round));
            let sent: Vec<_> = batch.iter().map(annals_core::NewEvent::id).collect();
            let appended = store.append_to("order-1", expected, batch).await?;
            let versions = appended.first_version.get()..=appended.last_version.get();
            written.extend(versions.zip(sent));
        }
        Ok(written)
    })
    .await?
    .concat();
    let count = assert_gapless(&handles[1], &stream).await?;
    assert_eq!(count, 1 + written.len() as u64, "answered events are not stored");
    let stored = handles[1].load_stream(&stream).await?;
    for (version, id) in written {
        let index = usize::try_from(version - 1).unwrap();
        assert_eq!(stored[index].id, id, "version {version} holds another writer's event");
    }
    Ok(())
}

async fn different_streams_never_conflict(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    crowd(&handles, 16, |store, n| async move {
        for base in 0..10 {
            extend(&store, &id(format!("order-{n}")), base, 1).await?;
        }
        Ok(())
    })
    .await?;
    for n in 0..16 {
        assert_eq!(assert_gapless(&handles[0], &id(format!("order-{n}"))).await?, 10);
    }
    Ok(())
}

/// Each writer adds one to the number that it has read. The last number shows whether an update was
/// lost.
async fn optimistic_counters_lose_no_update(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let stream = id("order-1");
    crowd(&handles, 6, |store, _| async move {
        let mut added = 0;
        while added < 12 {
            let stored = store.load_stream(&id("order-1")).await?;
            // Let other writers append in between: a store in memory never waits by itself.
            tokio::task::yield_now().await;
            let (sum, version) = stored.last().map_or((0, 0), |e| (number(e), e.version.get()));
            match store.append_to("order-1", exact(version), [event(sum + 1)]).await {
                Ok(_) => added += 1,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "not a conflict: {e:?}"),
            }
        }
        Ok(())
    })
    .await?;
    assert_gapless(&handles[0], &stream).await?;
    let stored = handles[0].load_stream(&stream).await?;
    assert_eq!(number(stored.last().unwrap()), 6 * 12, "updates were lost");
    Ok(())
}

async fn readers_see_whole_appends(cx: Context) -> CaseResult {
    const BATCH: u64 = 7;
    let handles = cx.open_many(3).await;
    let done = Arc::new(AtomicBool::new(false));
    let reading = {
        let (store, done) = (handles[2].clone(), done.clone());
        tokio::spawn(async move {
            loop {
                // Let the writers run: a store in memory never waits, so this loop would not yield
                // to them.
                tokio::task::yield_now().await;
                let last_look = done.load(Ordering::SeqCst);
                let stored = store.load_stream(&id("order-1")).await?;
                assert_eq!(stored.len() as u64 % BATCH, 0, "a reader saw part of an append");
                for batch in stored.chunks(BATCH as usize) {
                    let writers: HashSet<_> = batch.iter().map(number).collect();
                    assert_eq!(writers.len(), 1, "the events of two appends are mixed");
                }
                if last_look {
                    return Ok::<_, annals_core::Error>(stored.len() as u64);
                }
            }
        })
    };
    crowd(&handles[..2], 6, |store, n| async move {
        for round in 0..8 {
            let batch = events((0..BATCH).map(|_| n * 100 + round));
            store.append_to("order-1", ExpectedVersion::Any, batch).await?;
        }
        Ok(())
    })
    .await?;
    done.store(true, Ordering::SeqCst);
    assert_due!(
        reading.await.unwrap()?,
        6 * 8 * BATCH,
        "the number of events that the reader saw at the end"
    );
    Ok(())
}

/// If an append had returned before another was called, its positions are smaller.
async fn later_appends_have_later_positions(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let returned = Arc::new(AtomicU64::new(0));
    crowd(&handles, 9, |store, n| {
        let returned = returned.clone();
        async move {
            for base in 0..12 {
                let before = returned.load(Ordering::SeqCst);
                let stream = id(format!("order-{n}"));
                let appended = extend(&store, &stream, base * 2, 2).await?;
                let from = ReadStream::default().with_from(appended.first_version).with_limit(1);
                let first = store.read_stream(&stream, from).try_next().await?.unwrap();
                assert!(
                    first.position.get() > before,
                    "an append got position {}, but {before} was answered before",
                    first.position
                );
                returned.fetch_max(appended.position.get(), Ordering::SeqCst);
            }
            Ok(())
        }
    })
    .await?;
    Ok(())
}

async fn answers_agree_with_readers(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let answers = crowd(&handles, 8, |store, n| async move {
        let mut answers = Vec::new();
        for round in 0..8 {
            let (stream, last) = (id(format!("order-{}", (n + round) % 3)), event(n));
            let batch = vec![event(n), last.clone()];
            let append = Append::new(stream, ExpectedVersion::Any, batch);
            answers.push((last.id(), store.append(append).await?));
        }
        Ok(answers)
    })
    .await?
    .concat();
    let all = everything(&handles[0]).await?;
    assert_due!(
        all.len(),
        answers.len() * 2,
        "the number of events of all, of 64 appends with 2 events each"
    );
    for (id, appended) in answers {
        let read = all.iter().find(|event| event.id == id).unwrap();
        assert_eq!(read.position, appended.position, "not the position that was answered");
        assert_eq!(read.version, appended.last_version, "not the version that was answered");
    }
    Ok(())
}

/// Writers succeed, lose races, and are cancelled. Every subscriber must get just the events that
/// are there at the end.
async fn a_live_reader_misses_nothing(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let reader = cx.open().await;
    let mut early = reader.subscribe(Subscribe::default()).await?;
    let last = event(0);
    let last_id = last.id();
    let reading = {
        let cx = cx.clone();
        tokio::spawn(async move { take_until(&cx, &mut early, last_id).await })
    };
    let middles = Arc::new(Mutex::new(Vec::new()));
    let seeds: Vec<_> = (0..10).map(|n| cx.rng(n)).collect();
    crowd(&handles, 10, |store, n| {
        let (mut rng, middles) = (seeds[n as usize].clone(), middles.clone());
        async move {
            for _ in 0..20 {
                let stream = id(format!("{}-{}", ["a", "b"][rng.usize(..2)], rng.u8(..4)));
                let batch = events((0..rng.u64(1..4)).map(|_| n));
                let expected = match rng.u8(..3) {
                    0 => ExpectedVersion::Any,
                    1 => ExpectedVersion::NoStream,
                    _ => ExpectedVersion::Exact(store.stream_info(&stream).await?.version),
                };
                let append = Append::new(stream, expected, batch);
                if rng.u8(..8) == 0 {
                    let mut dropped = Box::pin(store.append(append));
                    let _ = poll!(&mut dropped);
                    continue;
                }
                match store.append(append).await {
                    Ok(_) => {}
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "not a conflict: {e:?}"),
                }
                if rng.u8(..30) == 0 {
                    let live = store.subscribe(Subscribe::default()).await?;
                    middles.lock().unwrap().push(live);
                }
            }
            Ok(())
        }
    })
    .await?;
    // A dropped append may still be carried out. If it is, the subscribers must get its events,
    // too.
    let appended = handles[0].append_to("end-1", ExpectedVersion::NoStream, [last]).await?;
    let seen = reading.await.unwrap();
    let until = |events: Vec<annals_core::RecordedEvent>| -> Vec<_> {
        events.into_iter().filter(|event| event.position <= appended.position).collect()
    };
    let all = until(everything(&reader).await?);
    assert_same_events(&seen, &all);
    let middles = std::mem::take(&mut *middles.lock().unwrap());
    for mut live in middles {
        assert_same_events(&take_until(&cx, &mut live, last_id).await, &all);
    }
    let mut late = reader.subscribe(Subscribe::default()).await?;
    assert_same_events(&take_until(&cx, &mut late, last_id).await, &all);
    Ok(())
}

async fn live_readers_of_streams_miss_nothing(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let lasts: Vec<_> = (0..3).map(|_| event(0)).collect();
    let mut readings = Vec::new();
    for (n, last) in lasts.iter().enumerate() {
        let to = Subscribe::to(id(format!("order-{n}")));
        let mut live = handles[n % 2].subscribe(to).await?;
        let (cx, last) = (cx.clone(), last.id());
        readings.push(tokio::spawn(async move { take_until(&cx, &mut live, last).await }));
    }
    crowd(&handles, 9, |store, n| async move {
        for round in 0..10 {
            let stream = id(format!("order-{}", (n + round) % 3));
            store.append_to(stream, ExpectedVersion::Any, events(0..=n % 3)).await?;
        }
        Ok(())
    })
    .await?;
    for (n, (reading, last)) in readings.into_iter().zip(lasts).enumerate() {
        let stream = id(format!("order-{n}"));
        handles[0].append_to(&stream, ExpectedVersion::Any, [last]).await?;
        assert_same_events(&reading.await.unwrap(), &handles[1].load_stream(&stream).await?);
    }
    Ok(())
}

/// Polls an append a number of times, and drops it at whatever await point it has reached.
async fn a_dropped_append_is_whole_or_not_at_all(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for polls in 0..12 {
        let stream = id(format!("order-{polls}"));
        {
            let batch = events(1..=5);
            let append = Append::new(stream.clone(), ExpectedVersion::NoStream, batch);
            let mut append = pin!(store.append(append));
            for _ in 0..polls {
                if poll!(&mut append).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // The dropped append may still be carried out. An append at the version seen settles
        // whether it came first.
        let base = loop {
            tokio::task::yield_now().await;
            let base = store.stream_info(&stream).await?.version;
            assert!([0, 5].contains(&base.get()), "{base} of 5 events were written");
            match other.append_to(&stream, base, [event(6)]).await {
                Ok(_) => break base,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}"),
            }
        };
        assert_due!(
            assert_gapless(&other, &stream).await?,
            base.get() + 1,
            "the number of events after a dropped append and one more"
        );
    }
    Ok(())
}

async fn aborted_writers_leave_the_store_working(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut rng = cx.rng(0);
    for round in 0..10 {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    let stream = id(format!("order-{round}-{n}"));
                    store.append_to(stream, ExpectedVersion::NoStream, events(1..=3)).await
                })
            })
            .collect();
        for _ in 0..rng.u8(..20) {
            tokio::task::yield_now().await;
        }
        writers.iter().for_each(tokio::task::JoinHandle::abort);
        for (n, writer) in writers.into_iter().enumerate() {
            let answered = writer.await.is_ok_and(|answer| answer.is_ok());
            let stream = id(format!("order-{round}-{n}"));
            let count = assert_gapless(&store, &stream).await?;
            assert!([0, 3].contains(&count), "{count} of 3 events were written");
            assert!(!answered || count == 3, "answered events are not stored");
        }
        let appended = cx
            .within("an append after aborted ones", extend(&store, &id("after-1"), round, 1))
            .await?;
        assert_due!(
            appended.last_version,
            Version::new(round + 1),
            "the version of an append after aborted ones"
        );
        assert!(
            appended.position > Position::START || !store.capabilities().global_order,
            "{appended:?} has no position"
        );
    }
    Ok(())
}
