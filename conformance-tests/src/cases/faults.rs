//! Faults outside the store: lost answers, cut connections, corrupt events. Each case needs a
//! harness that can inject the fault.

use annals_core::{
    Append, ErrorKind, EventStoreExt, ExpectedVersion, Filter, NewEvent, ReadStream, StreamId,
    Subscribe, Version,
};
use futures::TryStreamExt;

use crate::{
    CORRUPT_EVENT, Fault,
    case::{CaseResult, Context, cases},
    tools::{
        assert_gapless, assert_holds, assert_same_events, assert_versions, catch_up, event, events,
        everything, exact, extend, id, take_until,
    },
};

cases! { "faults":
    a_lost_answer_is_said_to_be_unknown [6] / LoseNextAnswer;
    an_append_with_a_lost_answer_can_be_retried [5, 6] / LoseNextAnswer;
    an_any_append_with_a_lost_answer_can_be_retried [5, 6] / LoseNextAnswer;
    a_multi_stream_append_with_a_lost_answer_can_be_retried [5, 6, 9] MultiStreamAppend / LoseNextAnswer;
    subscriptions_survive_cut_connections [15, 19] GlobalOrder / CutConnections;
    filtered_subscriptions_survive_cut_connections [15, 19] GlobalOrder / CutConnections;
    subscriptions_survive_a_restart [15, 19] GlobalOrder Durable / RestartServer;
    appends_succeed_after_cut_connections [6, 8] / CutConnections;
    a_corrupt_event_ends_a_read_as_an_error [14] / CorruptEvent;
    a_corrupt_event_ends_a_read_of_all_as_an_error [14] GlobalOrder / CorruptEvent;
}

async fn a_lost_answer_is_said_to_be_unknown(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 1).await?;
    cx.inject(Fault::LoseNextAnswer).await;
    let append = Append::new(stream.clone(), exact(1), events(2..=3));
    match store.append(append).await {
        Err(error) => {
            assert!(error.outcome_unknown(), "the outcome must be unknown: {error:?}");
            assert!(error.is_retryable(), "the error must allow a retry: {error:?}");
        }
        // The store has sent the append again itself, and the server has recognised it.
        Ok(appended) => assert_eq!(appended.last_version, Version::new(3)),
    }
    assert_eq!(assert_gapless(&store, &stream).await?, 3);
    Ok(())
}

async fn an_append_with_a_lost_answer_can_be_retried(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for (n, expected) in [exact(0), ExpectedVersion::NoStream, exact(0)].into_iter().enumerate() {
        let stream = id(format!("order-{n}"));
        cx.inject(Fault::LoseNextAnswer).await;
        let append = Append::new(stream.clone(), expected, events(1..=3));
        let lost = store.append(append.clone()).await;
        let again = store.append(append).await?;
        let untold = !store.capabilities().tells_retries;
        assert!(again.replayed || untold || lost.is_ok(), "{lost:?}, then {again:?}");
        assert_eq!(again.last_version, Version::new(3));
        assert_eq!(assert_gapless(&store, &stream).await?, 3, "the retry has written again");
    }
    Ok(())
}

/// Even by best effort the retry is recognised: nothing was appended in between.
async fn an_any_append_with_a_lost_answer_can_be_retried(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut base = 1;
    extend(&store, &stream, 0, base).await?;
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        cx.inject(Fault::LoseNextAnswer).await;
        let append = Append::new(stream.clone(), expected, events(1..=3));
        let lost = store.append(append.clone()).await;
        let again = store.append(append).await?;
        base += 3;
        let untold = !store.capabilities().tells_retries;
        assert!(again.replayed || untold || lost.is_ok(), "{lost:?}, then {again:?}");
        assert_holds(
            format!("after a lost answer under {expected} and a retry"),
            &store,
            &stream,
            1..=base,
        )
        .await?;
    }
    Ok(())
}

async fn a_multi_stream_append_with_a_lost_answer_can_be_retried(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for round in 0..3 {
        let streams = ["a", "b", "c"].map(|name| id(format!("{name}-{round}")));
        let append = |stream: &StreamId| {
            Append::new(stream.clone(), ExpectedVersion::NoStream, events(1..=2))
        };
        let appends: Vec<_> = streams.iter().map(append).collect();
        cx.inject(Fault::LoseNextAnswer).await;
        match store.append_multi(appends.clone()).await {
            Err(error) => assert!(
                error.outcome_unknown() && error.is_retryable(),
                "the outcome is unknown, and a retry allowed; the error is {error:?}"
            ),
            Ok(answers) => assert!(answers.len() == 3, "three streams got {answers:?}"),
        }
        let answers = store.append_multi(appends).await?;
        for (stream, answer) in streams.iter().zip(answers) {
            assert!(answer.last_version.get() == 2, "{stream} got {answer:?}");
            assert_holds("after a lost answer and a retry", &store, stream, 1..=2).await?;
        }
    }
    Ok(())
}

/// What the filter leaves out comes before and after each cut.
async fn filtered_subscriptions_survive_cut_connections(cx: Context) -> CaseResult {
    let (reader, writer) = (cx.open().await, cx.open().await);
    let filter = Filter::default().with_category("order".try_into()?);
    let mut live = reader.subscribe(Subscribe::to(filter)).await?;
    let mut seen = catch_up(&cx, &mut live).await.0;
    for round in 0..4 {
        let last = event(round);
        insist(&cx, &writer, &format!("other-{round}"), 0, events(0..20)).await?;
        cx.inject(Fault::CutConnections).await;
        insist(&cx, &writer, "order-1", round, vec![last.clone()]).await?;
        insist(&cx, &writer, &format!("more-{round}"), 0, events(0..20)).await?;
        seen.extend(take_until(&cx, &mut live, last.id()).await);
    }
    assert_versions("a filtered subscription whose connection was cut", &seen, 1..=4);
    Ok(())
}

async fn subscriptions_survive_cut_connections(cx: Context) -> CaseResult {
    survive(cx, Fault::CutConnections).await
}

async fn subscriptions_survive_a_restart(cx: Context) -> CaseResult {
    survive(cx, Fault::RestartServer).await
}

async fn survive(cx: Context, fault: Fault) -> CaseResult {
    let (reader, writer) = (cx.open().await, cx.open().await);
    let mut all = reader.subscribe(Subscribe::default()).await?;
    let mut one = reader.subscribe(Subscribe::to(id("order-1"))).await?;
    let (mut seen, mut seen_of_one) = (Vec::new(), Vec::new());
    let mut version = 0;
    for round in 0..5 {
        if round == 1 {
            seen.extend(catch_up(&cx, &mut all).await.0);
            seen_of_one.extend(catch_up(&cx, &mut one).await.0);
        }
        let mut batch = events(0..4);
        let last = batch.last().map(NewEvent::id).unwrap();
        insist(&cx, &writer, "order-1", version, std::mem::take(&mut batch)).await?;
        version += 4;
        cx.inject(fault).await;
        if round > 0 {
            seen.extend(take_until(&cx, &mut all, last).await);
            seen_of_one.extend(take_until(&cx, &mut one, last).await);
        }
    }
    let reader = cx.open().await;
    assert_same_events(&seen, &everything(&reader).await?);
    assert_same_events(&seen_of_one, &reader.load_stream(&id("order-1")).await?);
    Ok(())
}

/// Appends, and tries again as long as the error allows it.
async fn insist(
    cx: &Context,
    store: &std::sync::Arc<dyn annals_core::Store>,
    stream: &str,
    version: u64,
    batch: Vec<NewEvent>,
) -> annals_core::Result<()> {
    let append = Append::new(id(stream), Version::new(version), batch);
    let trying = async {
        loop {
            match store.append(append.clone()).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_retryable() || e.outcome_unknown() => tokio::task::yield_now().await,
                Err(e) => return Err(e),
            }
        }
    };
    cx.within("an append to succeed after a fault", trying).await
}

async fn appends_succeed_after_cut_connections(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for version in 0..10 {
        cx.inject(Fault::CutConnections).await;
        insist(&cx, &store, "order-1", version, vec![event(version)]).await?;
    }
    assert_eq!(assert_gapless(&store, &id("order-1")).await?, 10);
    Ok(())
}

async fn a_corrupt_event_ends_a_read_as_an_error(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id(CORRUPT_EVENT.0));
    extend(&store, &stream, 0, 10).await?;
    cx.inject(Fault::CorruptEvent).await;
    let reader = cx.open().await;
    check_corrupt(reader.read_stream(&stream, ReadStream::default())).await;
    Ok(())
}

async fn a_corrupt_event_ends_a_read_of_all_as_an_error(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id(CORRUPT_EVENT.0));
    extend(&store, &stream, 0, 10).await?;
    cx.inject(Fault::CorruptEvent).await;
    let reader = cx.open().await;
    check_corrupt(reader.read_all(annals_core::ReadAll::default())).await;
    Ok(())
}

/// Checks that a read gives no event at or after the corrupt one, then an error, and then nothing.
async fn check_corrupt(mut read: annals_core::EventStream) {
    let mut versions = Vec::new();
    let error = loop {
        match read.try_next().await {
            Ok(Some(event)) => versions.push(event.version.get()),
            Ok(None) => panic!(
                "the read ended at a corrupt event as if the stream ended, after {versions:?}"
            ),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    let due: Vec<u64> = (1..=versions.len() as u64).collect();
    assert!(versions == due && (versions.len() as u64) < CORRUPT_EVENT.1, "read {versions:?}");
    assert!(read.try_next().await.is_ok_and(|next| next.is_none()), "nothing may follow the error");
}
