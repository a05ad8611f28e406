//! Where a projection begins that has no checkpoint.

use std::num::NonZeroU32;

use annals_core::{
    CheckpointStore, ErrorKind, Position, ReadAll, RecordedEvent, Start, SubscriberId, TryStreamExt,
};
use annals_domain::projection::{Delivery, Projection, ProjectionError, Workers};
use annals_test_stores::{Fresh, Kind};

use crate::projection::{Log, Rows, all, fill, quick, rows, sink, until, within};

/// A position that no store of these tests comes to.
const FAR: u64 = 1 << 40;

fn logging(fresh: &Fresh, log: &Log, start: Start) -> Projection<impl Delivery + use<>> {
    let projection = Projection::at_least_once(fresh.store.clone(), "log", log.clone()).unwrap();
    projection.with_retry(quick()).with_batch(4).with_start(start)
}

/// A time, and the index of the first event that was recorded then or later.
async fn time_within(fresh: &Fresh) -> (Start, usize) {
    let events: Vec<RecordedEvent> =
        fresh.store.read_all(ReadAll::default()).try_collect().await.unwrap();
    let time = events[events.len() / 2].recorded_at;
    (Start::At(time), events.iter().position(|event| event.recorded_at >= time).unwrap())
}

async fn checkpoint(fresh: &Fresh) -> Option<Position> {
    fresh.store.load_checkpoint(&SubscriberId::new("log").unwrap()).await.unwrap()
}

pub(crate) async fn at_a_time(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 3, 5).await;
    let (start, first) = time_within(&fresh).await;
    assert!(first > 0, "the clock does not move");
    let due = all(&*fresh.store).await.split_off(first);
    let log = Log::default();
    within("the end", logging(&fresh, &log, start).catch_up()).await.unwrap();
    assert_eq!(log.handled(), due);
    // It has a checkpoint now, wherever it would begin without one.
    within("the end", logging(&fresh, &log, Start::Beginning).catch_up()).await.unwrap();
    within("the end", logging(&fresh, &log, start).catch_up()).await.unwrap();
    assert_eq!(log.handled(), due);
    // Without the checkpoint it begins there again.
    fresh.store.reset_checkpoint(&SubscriberId::new("log").unwrap(), None).await.unwrap();
    within("the end", logging(&fresh, &log, start).catch_up()).await.unwrap();
    assert_eq!(log.handled(), [due.clone(), due.clone()].concat());

    // With the checkpoint in a sink, and as the next generation.
    let sink = sink().await;
    for generation in 1..=2 {
        let generation = NonZeroU32::new(generation).unwrap();
        let make = Projection::exactly_once(fresh.store.clone(), "rows", sink.clone(), Rows);
        let mut made = make.unwrap().with_start(start).with_generation(generation);
        within("the end", made.catch_up()).await.unwrap();
    }
    assert_eq!(rows(&sink).await, [due.clone(), due].concat());
}

pub(crate) async fn at_the_end(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let log = Log::default();
    // Of an empty store, too: what comes between two runs is after the start.
    for due in [0, 4, 8] {
        within("the end", logging(&fresh, &log, Start::End).catch_up()).await.unwrap();
        assert_eq!(log.handled().len(), due);
        fill(&*fresh.store, 2, 2).await;
    }
    let other = Log::default();
    let projection = Projection::at_least_once(fresh.store.clone(), "other", other.clone());
    let mut projection = projection.unwrap().with_start(Start::End);
    within("the end", projection.catch_up()).await.unwrap();
    assert_eq!(other.handled(), []);
}

pub(crate) async fn after_a_position(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 1, 5).await;
    let third: Vec<_> = fresh.store.read_all(ReadAll::default()).try_collect().await.unwrap();
    let start = Start::After(third[2].position);
    let log = Log::default();
    within("the end", logging(&fresh, &log, start).catch_up()).await.unwrap();
    assert_eq!(log.handled(), all(&*fresh.store).await.split_off(3));
}

/// Each partition has a checkpoint before any of them runs.
pub(crate) async fn of_workers(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 6, 4).await;
    let (start, first) = time_within(&fresh).await;
    let mut due = all(&*fresh.store).await.split_off(first);
    let log = Log::default();
    let workers = Workers::new(NonZeroU32::new(3).unwrap());
    for _ in 0..2 {
        let stop = async { until("the events", || log.handled().len() >= due.len()).await };
        let make = |_| {
            let projection = Projection::at_least_once(fresh.store.clone(), "log", log.clone())?;
            Ok(projection.with_retry(quick()).with_start(start))
        };
        within("the workers", workers.run(make, stop)).await.unwrap();
    }
    let mut handled = log.handled();
    handled.sort();
    due.sort();
    assert_eq!(handled, due);
}

pub(crate) async fn is_refused(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 1, 2).await;
    for (start, due) in [
        (Start::After(FAR.into()), ErrorKind::BeyondEnd),
        (Start::AfterVersion(1.into()), ErrorKind::InvalidInput),
    ] {
        let log = Log::default();
        match within("an answer", logging(&fresh, &log, start).catch_up()).await {
            Err(ProjectionError::Store(error)) => assert_eq!(error.kind(), due, "{error}"),
            other => panic!("{start:?} was taken as it came: {other:?}"),
        }
        assert_eq!((log.handled(), checkpoint(&fresh).await), (vec![], None));
    }
}
