//! Places and snapshots of a past that the store does not have any more.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
};

use annals_core::{
    CheckpointStore, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Position,
    ReadAll, RecordedEvent, Removal, StreamId, SubscriberId, TransferStore, TryStreamExt,
};
use annals_domain::{
    CommandHandler, Context, SnapshotPolicy,
    projection::{
        Batch, BoxError, ExactlyOnce, Projection, ProjectionError, Sink, TransactionalHandler,
    },
};
use annals_sqlite::SqliteSink;
use annals_test_stores::{Fresh, Kind};

use crate::{
    account::Command,
    execute::accounts,
    projection::{Log, Rows, TABLE, all, fill, quick, rows, sink, within},
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

/// A store, and one to which its events were copied, where they have other positions: the first
/// stream was truncated before.
async fn store_and_copy(kind: &Kind) -> (Fresh, Fresh) {
    let (old, new) = (Fresh::open(kind).await, Fresh::open(kind).await);
    fill(&*old.store, 2, 4).await;
    old.store.truncate(&StreamId::new("log-0").unwrap(), 4.into()).await.unwrap();
    (old, new)
}

async fn copy(old: &Fresh, new: &Fresh) {
    let infos = async |event: &RecordedEvent| old.store.stream_info(&event.stream).await.unwrap();
    let events = old.store.read_all(ReadAll::default());
    for event in events.try_collect::<Vec<_>>().await.unwrap() {
        // EventStoreDB shows what was truncated until a clean-up.
        if infos(&event).await.first_version.is_some_and(|first| event.version >= first) {
            new.store.import(vec![event]).await.unwrap();
        }
    }
}

fn into_sink(fresh: &Fresh, sink: &SqliteSink) -> Projection<ExactlyOnce<SqliteSink, Rows>> {
    let projection = Projection::exactly_once(fresh.store.clone(), "rows", sink.clone(), Rows);
    projection.unwrap().with_retry(quick())
}

fn assert_of_another_store(answer: Result<impl std::fmt::Debug, ProjectionError>) {
    match answer {
        Err(ProjectionError::Store(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("another store"), "{error}");
        }
        other => panic!("the checkpoint was taken as it came: {other:?}"),
    }
}

/// Also when the copy has come to the position of the checkpoint, so that nothing looks wrong.
pub(crate) async fn a_sink_of_another_store_is_an_error(kind: Kind) {
    let (old, new) = store_and_copy(&kind).await;
    let sink = sink().await;
    let end = within("the end", into_sink(&old, &sink).catch_up()).await.unwrap();
    let before = rows(&sink).await;
    copy(&old, &new).await;
    assert_of_another_store(within("an answer", into_sink(&new, &sink).catch_up()).await);
    while new.store.last_position().await.unwrap() < end {
        fill(&*new.store, 2, 1).await;
    }
    assert_of_another_store(within("an answer", into_sink(&new, &sink).catch_up()).await);
    assert_eq!(rows(&sink).await, before);
    // The store that it belongs to is still the right one.
    within("the end", into_sink(&old, &sink).catch_up()).await.unwrap();

    // The rows are built again: as another generation, and in place of the old ones.
    let two = NonZeroU32::new(2).unwrap();
    let next = || into_sink(&new, &sink).with_generation(two);
    within("the end", next().catch_up()).await.unwrap();
    let built = rows(&sink).await.split_off(before.len());
    assert_eq!(built, all(&*new.store).await);
    assert_of_another_store(within("an answer", into_sink(&new, &sink).catch_up()).await);
    let setup = sink.begin().await.unwrap();
    setup
        .execute_batch("DELETE FROM annals_projections WHERE name IN ('rows', 'rows@live')")
        .unwrap();
    sink.commit(setup).await.unwrap();
    within("the end", into_sink(&new, &sink).catch_up()).await.unwrap();
    assert_of_another_store(within("an answer", into_sink(&old, &sink).catch_up()).await);
}

/// Keeps one checkpoint, whatever the name.
#[derive(Clone, Default)]
struct One(Arc<Mutex<Option<Position>>>);

impl Sink for One {
    type Transaction = Option<Position>;

    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>, Error> {
        Ok((*self.0.lock().unwrap()).filter(|_| subscriber.as_str() == "one"))
    }

    async fn begin(&self) -> Result<Option<Position>, Error> {
        Ok(*self.0.lock().unwrap())
    }

    async fn advance(
        &self,
        transaction: &mut Option<Position>,
        _: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool, Error> {
        Ok(transaction.replace(to) == from)
    }

    async fn commit(&self, transaction: Option<Position>) -> Result<(), Error> {
        *self.0.lock().unwrap() = transaction;
        Ok(())
    }
}

struct Nothing;

#[async_trait::async_trait]
impl TransactionalHandler<Option<Position>> for Nothing {
    async fn handle(&mut self, _: &mut Option<Position>, _: &Batch<'_>) -> Result<(), BoxError> {
        Ok(())
    }
}

pub(crate) async fn a_sink_of_one_checkpoint_keeps_that(kind: Kind) {
    let (fresh, sink) = (Fresh::open(&kind).await, One::default());
    for events in 1..3 {
        fill(&*fresh.store, 1, events).await;
        let one = Projection::exactly_once(fresh.store.clone(), "one", sink.clone(), Nothing);
        let mut one = one.unwrap().with_retry(quick());
        let end = within("the end", one.catch_up()).await.unwrap();
        assert_eq!(*sink.0.lock().unwrap(), Some(end));
        assert!(one.move_from(&*fresh.store).await.is_err());
    }
}

pub(crate) async fn a_sink_moves_to_a_copy(kind: Kind) {
    let (old, new) = store_and_copy(&kind).await;
    let sink = sink().await;
    within("the end", into_sink(&old, &sink).catch_up()).await.unwrap();
    let before = rows(&sink).await;
    // One event was not handled yet, and the last one that was is gone in the copy.
    copy(&old, &new).await;
    fill(&*old.store, 1, 1).await;
    let there = old.store.load_stream(&StreamId::new("log-0").unwrap()).await.unwrap();
    new.store.import(vec![there.last().unwrap().clone()]).await.unwrap();
    if new.store.capabilities().removal == Removal::AtOnce {
        new.store.truncate(&StreamId::new("log-1").unwrap(), 5.into()).await.unwrap();
    }

    let stranger = Fresh::open(&kind).await;
    let error = into_sink(&new, &sink).move_from(&*stranger.store).await.unwrap_err();
    assert!(error.to_string().contains("neither"), "{error}");
    let error = into_sink(&stranger, &sink).move_from(&*old.store).await.unwrap_err();
    assert!(error.to_string().contains("none of the last events"), "{error}");

    let moved = into_sink(&new, &sink).move_from(&*old.store).await.unwrap();
    assert!(moved < new.store.last_position().await.unwrap());
    assert_eq!(into_sink(&new, &sink).move_from(&*old.store).await.unwrap(), moved, "once more");
    fill(&*new.store, 2, 1).await;
    within("the end", into_sink(&new, &sink).catch_up()).await.unwrap();
    let handled = rows(&sink).await.split_off(before.len());
    let every = all(&*new.store).await;
    assert_eq!(handled, every[every.len() - 3..], "the one that was left, and two new ones");
    assert_of_another_store(within("an answer", into_sink(&old, &sink).catch_up()).await);
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
