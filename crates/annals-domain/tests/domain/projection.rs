//! Projections.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use annals_core::{
    CheckpointStore, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, ReadAll, Store,
    StreamId, StreamPrefix, SubscriberId, TryStreamExt,
};
use annals_domain::{
    RetryPolicy,
    projection::{
        Batch, BoxError, Delivery, Guarantee, Handler, OnPoison, Poison, Projection,
        ProjectionError, Stopped, TransactionalHandler,
    },
};
use annals_sqlite::{SqliteSink, SqliteTransaction};
use annals_test_stores::{Fresh, Kind};
use async_trait::async_trait;

use crate::{
    crash::{dropped_after, rng},
    faulty::{Fault, Faulty},
};

/// How long a test waits for an event that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The events that were handled: stream and version, in order.
pub(crate) type Handled = Arc<Mutex<Vec<(String, u64)>>>;

/// A handler that logs each event in memory that outlives the handler.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) handled: Handled,
    /// The handler fails on this version of each stream, this many times.
    pub(crate) fails: Arc<Mutex<(u64, u32)>>,
    pub(crate) switched: Arc<Mutex<u32>>,
    /// The tokens that the handler got.
    pub(crate) tokens: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Log {
    pub(crate) fn handled(&self) -> Vec<(String, u64)> {
        self.handled.lock().unwrap().clone()
    }
}

#[async_trait]
impl Handler for Log {
    async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError> {
        self.tokens.lock().unwrap().push(batch.token);
        for event in batch.events {
            let (version, left) = *self.fails.lock().unwrap();
            if event.version.get() == version && left > 0 {
                self.fails.lock().unwrap().1 -= 1;
                return Err("it is poison".into());
            }
            // A point at which the future can be dropped.
            tokio::task::yield_now().await;
            let entry = (event.stream.to_string(), event.version.get());
            self.handled.lock().unwrap().push(entry);
        }
        Ok(())
    }

    async fn switch(&mut self) -> Result<(), BoxError> {
        *self.switched.lock().unwrap() += 1;
        Ok(())
    }
}

/// A handler that logs each event in a table.
pub(crate) struct Rows;

#[async_trait]
impl TransactionalHandler<SqliteTransaction> for Rows {
    async fn handle(
        &mut self,
        transaction: &mut SqliteTransaction,
        batch: &Batch<'_>,
    ) -> Result<(), BoxError> {
        for event in batch.events {
            let row = (event.stream.as_str(), event.version.to_i64());
            transaction.execute("INSERT INTO handled (stream, version) VALUES (?1, ?2)", row)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

pub(crate) const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS handled (n INTEGER PRIMARY KEY, stream TEXT, version INTEGER)";

pub(crate) async fn rows(sink: &SqliteSink) -> Vec<(String, u64)> {
    use annals_domain::projection::Sink;
    let transaction = sink.begin().await.unwrap();
    let mut statement =
        transaction.prepare("SELECT stream, version FROM handled ORDER BY n").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
    rows.unwrap().map(Result::unwrap).collect()
}

pub(crate) async fn sink() -> SqliteSink {
    use annals_domain::projection::Sink;
    let sink = SqliteSink::in_memory().unwrap();
    let transaction = sink.begin().await.unwrap();
    transaction.execute_batch(TABLE).unwrap();
    sink.commit(transaction).await.unwrap();
    sink
}

/// Appends this many events to each of this many streams.
pub(crate) async fn fill(store: &dyn Store, streams: u64, events: u64) {
    for n in 0..streams * events {
        let event = NewEvent::json("counted", &n).unwrap();
        let stream = format!("log-{}", n % streams);
        store.append_to(stream, ExpectedVersion::Any, [event]).await.unwrap();
    }
}

/// The events in the store: stream and version, in order.
pub(crate) async fn all(store: &dyn Store) -> Vec<(String, u64)> {
    let filter = Filter::default().with_prefix(StreamPrefix::new("log-").unwrap());
    let events = store.read_all(ReadAll::default().with_filter(filter));
    let events: Vec<_> = events.try_collect().await.unwrap();
    events.iter().map(|event| (event.stream.to_string(), event.version.get())).collect()
}

pub(crate) fn quick() -> RetryPolicy {
    RetryPolicy::default()
        .with_pauses(Duration::from_millis(1), Duration::from_millis(5))
        .with_max_failures(5)
}

fn logging(fresh: &Fresh, log: &Log) -> Projection<impl Delivery + use<>> {
    let projection = Projection::at_least_once(fresh.store.clone(), "log", log.clone()).unwrap();
    projection.with_retry(quick()).with_batch(4)
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("no {what}"))
}

/// Waits until a condition holds that another task brings about.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let mut often = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !happened() {
            often.tick().await;
        }
    };
    within(what, wait).await;
}

pub(crate) async fn each_event_in_order(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 3, 7).await;
    let log = Log::default();
    let mut projection = logging(&fresh, &log);
    assert_eq!(projection.guarantee(), Guarantee::AtLeastOnce);
    let end = within("end", projection.catch_up()).await.unwrap();
    assert_eq!(log.handled(), all(&*fresh.store).await);
    assert!(end >= fresh.store.last_position().await.unwrap());

    // Live until it is stopped, then again from its checkpoint.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let live = tokio::spawn(async move { projection.run(async { drop(stopped.await) }).await });
    fill(&*fresh.store, 3, 2).await;
    until("live events", || log.handled.lock().unwrap().len() == 27).await;
    stop.send(()).unwrap();
    assert_eq!(within("stop", live).await.unwrap().unwrap(), Stopped::Requested);
    let again = Log::default();
    within("end", logging(&fresh, &again).catch_up()).await.unwrap();
    assert_eq!(*again.handled.lock().unwrap(), []);
    assert_eq!(log.handled(), all(&*fresh.store).await);
}

pub(crate) async fn a_poisonous_event_stops_it(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 1, 9).await;
    let log = Log::default();
    // The handler fails a few times, so that retries help; then at every try.
    *log.fails.lock().unwrap() = (3, 4);
    let mut projection = logging(&fresh, &log);
    within("end", projection.catch_up()).await.unwrap();
    assert_eq!(log.handled.lock().unwrap().last(), Some(&("log-0".into(), 9)));

    let log = Log::default();
    *log.fails.lock().unwrap() = (7, u32::MAX);
    let mut projection = Projection::at_least_once(fresh.store.clone(), "other", log.clone())
        .unwrap()
        .with_retry(quick());
    let Err(ProjectionError::Poison { event, source }) = within("end", projection.catch_up()).await
    else {
        panic!("it goes on")
    };
    assert_eq!((event.stream.as_str(), event.version.get()), ("log-0", 7));
    assert_eq!(source.to_string(), "it is poison");
    *log.fails.lock().unwrap() = (0, 0);
    log.handled.lock().unwrap().clear();
    within("end", projection.catch_up()).await.unwrap();
    let handled = log.handled.lock().unwrap().clone();
    assert!(handled.ends_with(&all(&*fresh.store).await[6..]), "it begins there: {handled:?}");
}

pub(crate) async fn a_poisonous_event_is_parked_and_handled_later(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 1, 6).await;
    let log = Log::default();
    *log.fails.lock().unwrap() = (4, u32::MAX);
    let parking = StreamId::new("parked-log").unwrap();
    // The projection reads all events, but not those that it parks itself.
    let mut projection = logging(&fresh, &log).with_poison(OnPoison::Park(parking.clone()));
    within("end", projection.catch_up()).await.unwrap();
    within("end", projection.catch_up()).await.unwrap();
    let mut handled: Vec<_> = log.handled.lock().unwrap().iter().map(|(_, n)| *n).collect();
    handled.dedup();
    assert!(!handled.contains(&4) && handled.ends_with(&[5, 6]), "{handled:?}");
    assert!(!log.handled.lock().unwrap().iter().any(|(stream, _)| stream == "parked-log"));

    let parked = Poison::parked(&*fresh.store, &parking).await.unwrap();
    let [(at, poison)] = &parked[..] else { panic!("{parked:?}") };
    assert_eq!((poison.projection.as_str(), poison.error.as_str()), ("log", "it is poison"));
    let event = poison.event(&*fresh.store).await.unwrap().unwrap();
    assert_eq!((event.version.get(), event.id), (4, poison.event_id));
    fresh.store.truncate(&parking, at.plus(1)).await.unwrap();
    assert_eq!(Poison::parked(&*fresh.store, &parking).await.unwrap(), []);
}

pub(crate) async fn a_generation_is_built_beside_and_takes_over(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 5).await;
    let tick = Duration::from_millis(5);
    let (old, new) = (Log::default(), Log::default());
    let mut first = logging(&fresh, &old).with_save_every(tick);
    let first = tokio::spawn(async move { first.run(pending()).await });
    until("the first", || old.handled.lock().unwrap().len() == 10).await;

    let second =
        || logging(&fresh, &new).with_save_every(tick).with_generation(NonZeroU32::new(2).unwrap());
    let mut building = second();
    assert_eq!(building.live_generation().await.unwrap(), 1);
    within("end", building.catch_up()).await.unwrap();
    assert_eq!(building.live_generation().await.unwrap(), 2);
    assert_eq!(new.handled(), all(&*fresh.store).await);
    assert_eq!((*new.switched.lock().unwrap(), *old.switched.lock().unwrap()), (1, 0));
    assert_eq!(within("the first", first).await.unwrap().unwrap(), Stopped::Superseded);

    fill(&*fresh.store, 2, 1).await;
    within("end", second().catch_up()).await.unwrap();
    assert_eq!(new.handled(), all(&*fresh.store).await);
    assert_eq!(*new.switched.lock().unwrap(), 1, "it has taken over before");
    let mut first = logging(&fresh, &old);
    assert_eq!(within("end", first.run(pending())).await.unwrap(), Stopped::Superseded);
}

/// How often a run is dropped: hundreds of times on fast stores.
fn drops(kind: &Kind) -> u32 {
    match kind.name() {
        "memory" | "sqlite" => 300,
        _ => 60,
    }
}

pub(crate) async fn dropped_at_random_points_nothing_is_lost(kind: Kind) {
    let mut rng = rng("dropped_at_random_points_nothing_is_lost");
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 3, 30).await;
    let log = Log::default();
    for _ in 0..drops(&kind) {
        let mut projection = logging(&fresh, &log).with_save_every(Duration::ZERO);
        drop(within("end", dropped_after(rng.u32(1..40), projection.run(pending()))).await);
    }
    within("end", logging(&fresh, &log).catch_up()).await.unwrap();
    // Each event at least once, and none before the events before it.
    let handled = log.handled.lock().unwrap().clone();
    let expected = all(&*fresh.store).await;
    let mut reached = 0;
    for entry in &handled {
        let at = expected.iter().position(|other| other == entry).unwrap();
        assert!(at <= reached, "{entry:?} before {:?}", expected[reached]);
        reached = reached.max(at + 1);
    }
    assert_eq!(reached, expected.len());
}

pub(crate) async fn dropped_at_random_points_nothing_is_applied_twice(kind: Kind) {
    let mut rng = rng("dropped_at_random_points_nothing_is_applied_twice");
    let fresh = Fresh::open(&kind).await;
    let sink = sink().await;
    let make = || {
        let sink = sink.clone();
        Projection::exactly_once(fresh.store.clone(), "rows", sink, Rows)
            .unwrap()
            .with_batch(4)
            .with_retry(quick())
            .with_save_every(Duration::ZERO)
    };
    assert_eq!(make().guarantee(), Guarantee::ExactlyOnce);
    let drops = drops(&kind);
    for n in 0..drops {
        if n % 10 == 0 {
            fill(&*fresh.store, 3, 2).await;
        }
        let mut projection = make();
        drop(within("end", dropped_after(rng.u32(1..60), projection.run(pending()))).await);
    }
    within("end", make().catch_up()).await.unwrap();
    assert_eq!(rows(&sink).await, all(&*fresh.store).await);
}

pub(crate) async fn two_at_once_apply_nothing_twice(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 3, 20).await;
    let sink = sink().await;
    let runs = (0..2).map(|_| {
        let (store, sink) = (fresh.store.clone(), sink.clone());
        tokio::spawn(async move {
            let projection = Projection::exactly_once(store, "rows", sink, Rows).unwrap();
            projection.with_batch(3).with_retry(quick()).catch_up().await.unwrap();
        })
    });
    for run in runs.collect::<Vec<_>>() {
        within("end", run).await.unwrap();
    }
    assert_eq!(rows(&sink).await, all(&*fresh.store).await);
}

pub(crate) async fn failing_stores_are_tried_again(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 10).await;
    let log = Log::default();
    let faulty = Faulty::on(&fresh.store, Fault::InTurn);
    let projection = Projection::at_least_once(faulty, "log", log.clone()).unwrap();
    let mut projection =
        projection.with_retry(quick()).with_batch(3).with_save_every(Duration::ZERO);
    within("end", projection.catch_up()).await.unwrap();
    assert_eq!(log.handled(), all(&*fresh.store).await, "nothing is handled again");
    let kept = fresh.store.load_checkpoint(&SubscriberId::new("log").unwrap()).await.unwrap();
    assert!(kept >= Some(fresh.store.last_position().await.unwrap()));
}

pub(crate) async fn progress_is_told(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 10).await;
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    let tell = told.clone();
    let mut projection = logging(&fresh, &Log::default()).with_progress(move |progress| {
        tell.lock().unwrap().insert(progress.position, progress.clone());
    });
    within("end", projection.catch_up()).await.unwrap();
    let told = told.lock().unwrap().clone();
    let (position, last) = told.last_key_value().unwrap();
    assert!(*position >= fresh.store.last_position().await.unwrap());
    assert_eq!((last.events, last.lag, last.is_live), (20, 0, true));
    assert!(last.events_per_second > 0.0);
}
