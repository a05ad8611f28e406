//! Opening a store: for the first time, again, and many times at once.

use annals_core::{
    ErrorKind, EventStoreExt, ExpectedVersion, Payload, Snapshot, SubscriberId, Version,
};
use futures::future::join_all;

use crate::{
    Fault,
    case::{CaseResult, Context, cases},
    child::Death,
    tools::{
        assert_due, assert_events, assert_gapless, assert_holds, event, everything, extend, id,
    },
};

cases! { "lifecycle":
    many_open_an_empty_database_at_once [23];
    namespaces_are_kept_apart [23];
    what_was_written_outlives_every_handle [10, 23] Durable;
    a_retry_is_recognised_after_a_restart [5, 23] Durable;
    what_a_dying_process_appended_stays [1, 8] Durable;
    a_newer_schema_is_refused [23] Durable / NewerSchema;
}

async fn many_open_an_empty_database_at_once(cx: Context) -> CaseResult {
    for _ in 0..3 {
        let cx = cx.another();
        let opening = (0..10).map(|n| {
            let cx = cx.clone();
            tokio::spawn(async move {
                let store = cx.open().await;
                extend(&store, &id(format!("order-{n}")), 0, 2).await
            })
        });
        for opened in join_all(opening).await {
            assert_due!(
                opened.unwrap()?.last_version,
                Version::new(2),
                "the last version of two events in a new store"
            );
        }
        let store = cx.open().await;
        for n in 0..10 {
            let stream = id(format!("order-{n}"));
            assert_holds("after ten handles opened the store at once", &store, &stream, 1..=2)
                .await?;
        }
        drop(store);
        cx.clean_up().await.unwrap();
    }
    Ok(())
}

async fn namespaces_are_kept_apart(cx: Context) -> CaseResult {
    let (one, other) = (cx.another(), cx.another());
    {
        let (first, second) = (one.open().await, other.open().await);
        extend(&first, &id("order-1"), 0, 3).await?;
        assert!(second.load_stream(&id("order-1")).await?.is_empty());
        second.append_to("order-1", ExpectedVersion::NoStream, [event(1)]).await?;
        assert_holds("beside another store", &first, &id("order-1"), 1..=3).await?;
    }
    one.clean_up().await.unwrap();
    let what = "after the other store was removed";
    assert_holds(what, &other.open().await, &id("order-1"), 1..=1).await?;
    other.clean_up().await.unwrap();
    Ok(())
}

async fn what_was_written_outlives_every_handle(cx: Context) -> CaseResult {
    let (stream, report) = (id("order-1"), SubscriberId::new("report")?);
    let snapshot = Snapshot::new(2, Payload::json("state")?);
    let (before, all) = {
        let store = cx.open().await;
        extend(&store, &stream, 0, 5).await?;
        if store.capabilities().snapshots {
            store.save_snapshot(&stream, snapshot.clone()).await?;
        }
        if store.capabilities().checkpoints {
            store.save_checkpoint(&report, 3.into()).await?;
        }
        let ordered = store.capabilities().global_order;
        let all = if ordered { Some(everything(&store).await?) } else { None };
        (store.load_stream(&stream).await?, all)
    };
    let store = cx.open().await;
    assert_events("the stream after a reopen", &store.load_stream(&stream).await?, &before);
    if let Some(all) = all {
        assert_events("all after a reopen", &everything(&store).await?, &all);
    }
    if store.capabilities().snapshots {
        assert_due!(
            store.load_snapshot(&stream).await?,
            Some(snapshot),
            "the snapshot that was saved before the reopen"
        );
    }
    if store.capabilities().checkpoints {
        assert_due!(
            store.load_checkpoint(&report).await?,
            Some(3.into()),
            "the checkpoint that was saved before the reopen"
        );
    }
    let appended = extend(&store, &stream, 5, 1).await?;
    assert!(
        appended.position >= before[4].position,
        "{appended:?} came after position {}",
        before[4].position
    );
    Ok(())
}

async fn a_retry_is_recognised_after_a_restart(cx: Context) -> CaseResult {
    let append = annals_core::Append::new(id("order-1"), ExpectedVersion::NoStream, [event(1)]);
    let first = cx.open().await.append(append.clone()).await?;
    let store = cx.open().await;
    let again = store.append(append).await?;
    assert_eq!(again.position, first.position, "the retry has another answer");
    assert_eq!(again.replayed, store.capabilities().tells_retries, "{first:?}, then {again:?}");
    assert_holds("after a retry and a reopen", &store, &id("order-1"), 1..=1).await?;
    Ok(())
}

/// A child process appends. It aborts as soon as it has its last answer, or is killed in the middle.
async fn what_a_dying_process_appended_stays(cx: Context) -> CaseResult {
    for (stream, death) in [("order-1", Death::Abort), ("order-2", Death::Kill)] {
        let stream = id(stream);
        let answers = cx.child_dies(&stream, death).await?;
        let store = cx.open().await;
        let events = store.load_stream(&stream).await?;
        let there = events.iter().map(|event| (event.version.get(), event.position.get()));
        assert!(
            there.clone().take(answers.len()).eq(answers.iter().copied()),
            "after {death:?} the child had these answers (version, position): {answers:?}; \
             the stream has {:?}",
            there.collect::<Vec<_>>()
        );
        let version = assert_gapless(&store, &stream).await?;
        extend(&store, &stream, version, 1).await?;
    }
    Ok(())
}

async fn a_newer_schema_is_refused(cx: Context) -> CaseResult {
    extend(&cx.open().await, &id("order-1"), 0, 1).await?;
    cx.inject(Fault::NewerSchema).await;
    let refused = cx.try_open().await.expect_err("a newer schema was opened");
    let error =
        refused.downcast::<annals_core::Error>().expect("the error must be one of `annals_core`");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    Ok(())
}
