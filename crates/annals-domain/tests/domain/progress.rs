//! How far a projection is: its checkpoint, those who wait for it, and what becomes of a reset.

use std::{
    future::pending,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use annals_core::{
    Category, CheckpointStore, ErrorKind, EventStoreExt, ExpectedVersion, Filter, NewEvent,
    Position, Result, Store, StreamId, SubscriberId,
};
use annals_domain::projection::{
    Delivery, OnPoison, Poison, Projection, ProjectionError, ProjectionHandle, Sink, Workers,
};
use annals_test_stores::{Fresh, Hook, Hooked, Kind};
use tokio::task::JoinHandle;

use crate::projection::{Log, PATIENCE, Rows, all, fill, quick, sink, until, within};

const TICK: Duration = Duration::from_millis(20);

fn of_logs() -> Filter {
    Filter::default().with_category(Category::new("log").unwrap())
}

/// Appends an event that the projections of these tests leave out.
async fn leave_out(store: &dyn Store) -> Position {
    let event = NewEvent::json("counted", &0).unwrap();
    store.append_to("other-1", ExpectedVersion::Any, [event]).await.unwrap().position
}

/// Runs a projection in a task of its own, until the task is aborted.
fn spawn<D: Delivery + 'static>(
    mut projection: Projection<D>,
) -> (ProjectionHandle, JoinHandle<std::result::Result<(), ProjectionError>>) {
    let handle = projection.handle();
    (handle, tokio::spawn(async move { projection.run(pending()).await.map(drop) }))
}

fn logging(store: &Arc<dyn Store>, log: &Log) -> Projection<impl Delivery + use<>> {
    let projection = Projection::at_least_once(store.clone(), "log", log.clone()).unwrap();
    projection.with_retry(quick()).with_save_every(TICK).with_source(of_logs())
}

/// A position is reached soon even if the event there is left out, in this process and for others
/// who look at the checkpoint.
pub(crate) async fn left_out_events_are_passed_soon(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let (sink, log) = (sink().await, Log::default());
    let rows = Projection::exactly_once(fresh.store.clone(), "rows", sink.clone(), Rows).unwrap();
    let rows = rows.with_source(of_logs()).with_save_every(TICK);
    let id = rows.subscriber().unwrap();
    let (rows, running) = spawn(rows);
    let (logs, also_running) = spawn(logging(&fresh.store, &log));
    for _ in 0..3 {
        fill(&*fresh.store, 1, 1).await;
        let last = leave_out(&*fresh.store).await;
        assert!(rows.reached(last, PATIENCE).await.unwrap() >= last);
        assert!(logs.reached(last, PATIENCE).await.unwrap() >= last);
        until_stored("the sink's checkpoint", || async { sink.position(&id).await }, last).await;
        let saved = || fresh.store.load_checkpoint(logs_id());
        until_stored("the saved checkpoint", saved, last).await;
    }
    assert_eq!(log.handled().len(), 3);
    assert!(rows.status().is_live && rows.status().is_running && !rows.status().leads());
    running.abort();
    also_running.abort();
}

fn logs_id() -> &'static SubscriberId {
    static ID: std::sync::OnceLock<SubscriberId> = std::sync::OnceLock::new();
    ID.get_or_init(|| SubscriberId::new("log").unwrap())
}

async fn until_stored<F>(what: &str, load: impl Fn() -> F, wanted: Position)
where
    F: Future<Output = Result<Option<Position>>>,
{
    let wait = async {
        while load().await.unwrap() < Some(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, wait).await;
}

/// Counts the writes to a store.
#[derive(Debug, Default)]
struct Counting(AtomicU32);

impl Hook for Counting {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.0.fetch_add(1, Relaxed);
        call.await
    }
}

/// Also where a checkpoint is an event of the server, which moves the server's end.
pub(crate) async fn an_idle_store_is_not_written_to(kind: Kind) {
    let fresh = Fresh::alone(&kind).await;
    let counted = Hooked::new(&fresh.store, Counting::default());
    let store: Arc<dyn Store> = counted.clone();
    fill(&*fresh.store, 1, 1).await;
    let other = Projection::at_least_once(store.clone(), "other", Log::default()).unwrap();
    let other = other.with_save_every(TICK).with_source(of_logs());
    let ids = [SubscriberId::new("log").unwrap(), SubscriberId::new("other").unwrap()];
    let (_, running) = spawn(logging(&store, &Log::default()));
    let (_, also_running) = spawn(other);
    let last = leave_out(&*fresh.store).await;
    for id in &ids {
        until_stored("the checkpoint", || fresh.store.load_checkpoint(id), last).await;
    }
    let writes = || counted.hook.0.load(Relaxed);
    let before = writes();
    // Time for many checks and polls.
    let more = tokio::time::timeout(TICK * 30, until("a write", || writes() > before)).await;
    assert!(more.is_err(), "writes while nothing happened");
    running.abort();
    also_running.abort();
}

pub(crate) async fn a_wait_ends_with_an_error_that_says_where(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 1, 2).await;
    let last = fresh.store.last_position().await.unwrap();
    let mut projection = logging(&fresh.store, &Log::default());
    let handle = projection.handle();
    let soon = Duration::from_millis(100);
    let error = handle.reached(last, soon).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("no position"), "{error}");
    assert!(!handle.status().is_running);
    within("end", projection.catch_up()).await.unwrap();
    // Nobody runs it now: the checkpoint tells, as it would of another process.
    assert!(handle.reached(last, PATIENCE).await.unwrap() >= last);
    drop(projection);
    assert!(handle.reached(last, PATIENCE).await.unwrap() >= last);
    let error = handle.reached(u64::MAX, soon).await.unwrap_err();
    assert!(error.to_string().contains("is at position"), "{error}");
}

/// A checkpoint that is reset while the projection runs stays reset, and everything comes again.
pub(crate) async fn a_reset_is_noticed_by_what_runs(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 5).await;
    let log = Log::default();
    let (handle, running) = spawn(logging(&fresh.store, &log));
    let last = fresh.store.last_position().await.unwrap();
    handle.reached(last, PATIENCE).await.unwrap();
    until_stored("the checkpoint", || fresh.store.load_checkpoint(logs_id()), last).await;
    // While it is idle.
    fresh.store.reset_checkpoint(logs_id(), None).await.unwrap();
    until("all events again", || log.handled().len() == 20).await;
    until_stored("the checkpoint", || fresh.store.load_checkpoint(logs_id()), last).await;
    // With an event that comes at the same time.
    fresh.store.reset_checkpoint(logs_id(), None).await.unwrap();
    fill(&*fresh.store, 1, 1).await;
    let every = all(&*fresh.store).await;
    until("all events once more", || log.handled().ends_with(&every)).await;
    running.abort();
}

/// Two projections over everything that park the same two events, each into its own stream.
pub(crate) async fn what_was_parked_is_not_parked_again(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 5).await;
    let parkings = ["parked-a", "parked-b"].map(|name| StreamId::new(name).unwrap());
    let park = |parking: &StreamId| {
        let log = Log::default();
        // It fails on version 3 of each stream, and on the first of a stream of parked events.
        *log.fails.lock().unwrap() = (3, u32::MAX);
        let projection =
            Projection::at_least_once(fresh.store.clone(), parking.as_str(), Picky(log)).unwrap();
        let quick = quick().with_max_failures(1);
        projection.with_retry(quick).with_poison(OnPoison::Park(parking.clone()))
    };
    for _ in 0..3 {
        for parking in &parkings {
            within("end", park(parking).catch_up()).await.unwrap();
        }
    }
    for parking in &parkings {
        assert_eq!(Poison::parked(&*fresh.store, parking).await.unwrap().len(), 2, "{parking}");
    }
    // The same events come again after a reset. The store need not know the first one again, since
    // another was appended after it.
    let id = SubscriberId::new("parked-a").unwrap();
    fresh.store.reset_checkpoint(&id, None).await.unwrap();
    within("end", park(&parkings[0]).catch_up()).await.unwrap();
    assert_eq!(Poison::parked(&*fresh.store, &parkings[0]).await.unwrap().len(), 2);
}

/// A handler that understands only events of the type `counted`.
struct Picky(Log);

#[async_trait::async_trait]
impl annals_domain::projection::Handler for Picky {
    async fn handle(
        &mut self,
        batch: &annals_domain::projection::Batch<'_>,
    ) -> std::result::Result<(), annals_domain::projection::BoxError> {
        if batch.events.iter().any(|event| event.event_type.as_str() != "counted") {
            return Err("an unknown type".into());
        }
        self.0.handle(batch).await
    }
}

/// Runs workers until their projection has caught up, or returns why they do not run.
async fn work(
    fresh: &Fresh,
    partitions: u32,
    log: &Log,
) -> std::result::Result<(), ProjectionError> {
    let workers = Workers::new(NonZeroU32::new(partitions).unwrap());
    let expected = log.handled().len() + all(&*fresh.store).await.len();
    let make = |_| {
        let projection = Projection::at_least_once(fresh.store.clone(), "log", log.clone())?;
        Ok(projection.with_retry(quick()).with_save_every(TICK).with_source(of_logs()))
    };
    let done = async { until("all events", || log.handled().len() >= expected).await };
    within("workers", workers.run(make, done)).await
}

pub(crate) async fn the_number_of_workers_stays(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 6, 2).await;
    let log = Log::default();
    work(&fresh, 4, &log).await.unwrap();
    let refused = |error: ProjectionError, named: &str| {
        let ProjectionError::Store(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{error}");
    };
    refused(work(&fresh, 8, &log).await.unwrap_err(), "log#0/4");
    refused(logging(&fresh.store, &log).catch_up().await.unwrap_err(), "log#0/4");
    assert_eq!(log.handled().len(), 12, "nothing is handled again");

    // The checkpoints are given up, and another number is chosen.
    for index in 0..4 {
        let id = SubscriberId::new(format!("log#{index}/4")).unwrap();
        fresh.store.reset_checkpoint(&id, None).await.unwrap();
    }
    work(&fresh, 8, &log).await.unwrap();
    assert_eq!(log.handled().len(), 24);
    refused(work(&fresh, 4, &log).await.unwrap_err(), "log#0/8");

    // From a projection without partitions.
    let alone = Fresh::open(&kind).await;
    fill(&*alone.store, 2, 2).await;
    within("end", logging(&alone.store, &log).catch_up()).await.unwrap();
    refused(work(&alone, 2, &log).await.unwrap_err(), "(log)");
}
