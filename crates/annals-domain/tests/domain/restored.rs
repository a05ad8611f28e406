//! Places and snapshots of a past that the store does not have any more.

use annals_core::{CheckpointStore, ErrorKind, EventStoreExt, ExpectedVersion, SubscriberId};
use annals_domain::{
    CommandHandler, Context, SnapshotPolicy,
    projection::{Projection, ProjectionError, Sink},
};
use annals_sqlite::SqliteSink;
use annals_test_stores::{Fresh, Kind};

use crate::{
    account::Command,
    execute::accounts,
    projection::{Log, Rows, TABLE, fill, quick, rows, within},
};

/// A position that no store of these tests comes to.
const FAR: u64 = 1 << 40;

fn assert_refused(answer: Result<impl std::fmt::Debug, ProjectionError>) {
    match answer {
        Err(ProjectionError::Store(error)) => {
            assert_eq!(error.kind(), ErrorKind::BeyondEnd, "{error}");
            assert!(error.to_string().contains(&FAR.to_string()), "{error}");
        }
        other => panic!("the checkpoint was taken as it came: {other:?}"),
    }
}

/// The store was restored from an older copy, or exchanged, and the read model was kept.
pub(crate) async fn a_checkpoint_beyond_the_end_is_an_error(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 3).await;
    let (log, subscriber) = (Log::default(), SubscriberId::new("log").unwrap());
    let projection = || {
        let new = Projection::at_least_once(fresh.store.clone(), "log", log.clone()).unwrap();
        new.with_retry(quick())
    };
    fresh.store.save_checkpoint(&subscriber, FAR.into()).await.unwrap();
    assert_refused(within("an answer", projection().catch_up()).await);
    assert_refused(within("an answer", projection().run(std::future::pending())).await);
    fill(&*fresh.store, 2, 2).await;
    assert_refused(within("an answer", projection().catch_up()).await);
    assert_eq!(log.handled(), []);
    // Rebuilt from the start, it handles everything.
    fresh.store.reset_checkpoint(&subscriber, None).await.unwrap();
    within("the end", projection().catch_up()).await.unwrap();
    assert_eq!(log.handled().len(), 10);
}

pub(crate) async fn a_sink_ahead_of_its_store_is_an_error(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 3).await;
    let (sink, subscriber) = (SqliteSink::in_memory().unwrap(), SubscriberId::new("log").unwrap());
    let mut transaction = sink.begin().await.unwrap();
    transaction.execute_batch(TABLE).unwrap();
    sink.advance(&mut transaction, &subscriber, None, FAR.into()).await.unwrap();
    sink.commit(transaction).await.unwrap();
    let projection = Projection::exactly_once(fresh.store.clone(), "log", sink.clone(), Rows);
    let mut projection = projection.unwrap().with_retry(quick());
    assert_refused(within("an answer", projection.catch_up()).await);
    assert_eq!(rows(&sink).await, []);
}

/// The stream is deleted between the append and the snapshot of the state that it led to.
pub(crate) async fn a_late_snapshot_brings_nothing_back(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let with_snapshots = || -> CommandHandler<_> {
        accounts(&fresh.store).with_snapshots(SnapshotPolicy::every(2)).unwrap()
    };
    let (context, plain) = (Context::default(), accounts(&fresh.store));
    for command in [Command::Open("Ada".into()), Command::Deposit(41)] {
        with_snapshots().execute("a", &command, &context).await.unwrap();
    }
    let stream = plain.stream("a").unwrap();
    let late = fresh.store.load_snapshot(&stream).await.unwrap().expect("a snapshot was due");
    fresh.store.delete(&stream, ExpectedVersion::Any).await.unwrap();
    for _ in 0..2 {
        fresh.store.save_snapshot(&stream, late.clone()).await.unwrap();
        let [with, without] = [with_snapshots().load("a").await, plain.load("a").await];
        assert_eq!(with.unwrap().state, without.unwrap().state);
        let opened = Command::Open("Grace".into());
        drop(with_snapshots().execute("a", &opened, &context).await);
    }
    assert_eq!(fresh.store.load_stream(&stream).await.unwrap().len(), 1);
}
