//! The typed layer beside the store: commands beside appends, projections beside reads, and loads
//! of long aggregates with snapshots beside loads of short ones.

use std::{
    convert::Infallible,
    hint::black_box,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_benches::{Shape, data, fill};
use annals_core::{
    Append, EventStore, ExpectedVersion, NewEvent, ReadAll, Store, StreamId, Subscribe, Version,
};
use annals_domain::{
    CommandHandler, Context, Decider, SnapshotPolicy,
    projection::{Batch, BoxError, Handler, Projection, TransactionalHandler},
};
use annals_memory::MemoryStore;
use annals_sqlite::{SqliteSink, SqliteTransaction};
use async_trait::async_trait;
use futures::{TryStreamExt, future::join_all};
use serde::{Deserialize, Serialize};

use crate::{
    plan::Plan,
    report::{Figures, Target, figure},
    sqlite::StoreFile,
};

/// The target for the time that `execute` adds to its append, in microseconds.
const ABOVE: Target = Target::AtMost(5.0);
/// The target for the ratio of a projection to a read of the same events.
const BESIDE: Target = Target::AtLeast(0.8);
/// The target for the ratio of a load to that of an aggregate with a hundredth of the events.
const LONGER: Target = Target::AtMost(1.2);

pub(crate) fn run(plan: &Plan) {
    plan.run(same_event());
    commands(plan);
    projections(plan);
    snapshots(plan);
}

const CHANGED: &str = "order-changed";

#[derive(Serialize, Deserialize)]
enum OrderEvent {
    #[serde(rename = "order-changed")]
    Changed(Data),
}

/// 200 bytes of JSON.
#[derive(Clone, Serialize, Deserialize)]
struct Data {
    text: String,
}

impl Data {
    fn new() -> Self {
        serde_json::from_str(&data()).unwrap()
    }
}

struct Change {
    data: Data,
    times: usize,
}

impl Change {
    fn new(times: usize) -> Self {
        Self { data: Data::new(), times }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    changes: u64,
    last: String,
}

struct Order;

impl Decider for Order {
    const CATEGORY: &'static str = "order";
    type State = State;
    type Command = Change;
    type Event = OrderEvent;
    type Rejection = Infallible;

    fn initial(&self) -> State {
        State { changes: 0, last: String::new() }
    }

    fn decide(&self, change: &Change, _: &State) -> Result<Vec<OrderEvent>, Infallible> {
        Ok((0..change.times).map(|_| OrderEvent::Changed(change.data.clone())).collect())
    }

    fn evolve(&self, state: &mut State, event: &OrderEvent) {
        let OrderEvent::Changed(data) = event;
        state.changes += 1;
        state.last.clone_from(&data.text);
    }
}

fn handler(store: &Arc<dyn Store>) -> CommandHandler<Order> {
    CommandHandler::new(store.clone(), Order).unwrap()
}

/// The same event, made without the typed layer.
fn bare_event(data: &Data, context: &Context) -> NewEvent {
    NewEvent::json(CHANGED, data).unwrap().with_json_metadata(context).unwrap()
}

/// Checks that commands and bare appends write the same event.
async fn same_event() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (orders, context, data) = (handler(&store), Context::new(), Data::new());
    let (bare, stream) = (bare_event(&data, &context), orders.stream("1").unwrap());
    let event = OrderEvent::Changed(data);
    let typed = orders.schema().encode(&stream, &event, &context).await.unwrap();
    assert_eq!(typed.with_id(bare.id()), bare);
}

/// Commands or appends: `times` to each of some aggregates, which have `events` events before.
#[derive(Clone, Copy)]
struct Commands {
    aggregates: usize,
    events: u64,
    times: u64,
    cached: bool,
}

fn commands(plan: &Plan) {
    let less = if plan.quick { 10 } else { 1 };
    for (name, times, one, hundred) in
        [("Memory", 2_000, 50_000, 5_000), ("SQLite", 200, 5_000, 2_000)]
    {
        let warm = Commands { aggregates: 100, events: 0, times: times / less, cached: true };
        let one = one / less as usize;
        let cold = Commands { aggregates: one, events: 1, times: 1, cached: false };
        let hundred = hundred / less as usize;
        let long = Commands { aggregates: hundred, events: 100, ..cold };
        for (how, commands, target) in [
            ("from the cache", warm, if name == "Memory" { ABOVE } else { Target::None }),
            ("loading 1 event", cold, Target::None),
            ("loading 100 events", long, Target::None),
        ] {
            let title = format!("{name}: a command of one event, {how}");
            let mut figures = Figures::new(title, "microseconds");
            let [execute, append] = ["execute", "append"];
            for turn in plan.turns(&[execute, append]) {
                let file = (name == "SQLite").then(|| StoreFile::empty(plan));
                let store: Arc<dyn Store> = match &file {
                    Some(file) => Arc::new(file.open(plan)),
                    None => Arc::new(MemoryStore::new()),
                };
                let time = plan.run(commands.run(store, turn == execute));
                figures.add(turn, time.as_secs_f64() * 1e6);
            }
            figures.difference(execute, append, target);
            figures.ratio(execute, append, Target::None);
            figures.print();
        }
    }
}

impl Commands {
    /// The mean time of one command or append.
    async fn run(self, store: Arc<dyn Store>, execute: bool) -> Duration {
        /// How many streams are filled at the same time.
        const AT_ONCE: usize = 1_000;
        let ids: Vec<String> = (0..self.aggregates).map(|n| format!("{n:08}")).collect();
        let context = Context::new();
        let mut orders = handler(&store);
        if self.cached {
            orders = orders.with_cache(NonZeroUsize::new(self.aggregates).unwrap());
        }
        let change = Change::new(1);
        let streams: Vec<StreamId> = ids.iter().map(|id| orders.stream(id).unwrap()).collect();
        // Neither the earlier events nor the commands that fill the cache are timed.
        for some in streams.chunks(AT_ONCE).filter(|_| self.events > 0) {
            let filled = some.iter().map(|stream| {
                let events = (0..self.events).map(|_| bare_event(&change.data, &context));
                store.append(Append::new(stream.clone(), ExpectedVersion::NoStream, events))
            });
            assert!(join_all(filled).await.iter().all(Result::is_ok));
        }
        for id in ids.iter().filter(|_| self.cached) {
            orders.execute(id, &change, &context).await.unwrap();
        }
        let events = self.events + u64::from(self.cached);
        let began = Instant::now();
        for time in 0..self.times {
            if execute {
                for id in &ids {
                    black_box(orders.execute(id, &change, &context).await.unwrap());
                }
            } else {
                for stream in &streams {
                    let data = change.data.clone();
                    let expected = Version::new(events + time);
                    let event = bare_event(&data, &context);
                    let append = Append::new(stream.clone(), expected, [event]);
                    black_box(store.append(append).await.unwrap());
                }
            }
        }
        began.elapsed().div_f64((self.times * self.aggregates as u64) as f64)
    }
}

struct Count(u64);

#[async_trait]
impl Handler for Count {
    async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError> {
        self.0 += black_box(batch.events).len() as u64;
        Ok(())
    }
}

struct CountRows;

#[async_trait]
impl TransactionalHandler<SqliteTransaction> for CountRows {
    async fn handle(
        &mut self,
        transaction: &mut SqliteTransaction,
        batch: &Batch<'_>,
    ) -> Result<(), BoxError> {
        const COUNT: &str = "INSERT INTO totals (name, events) VALUES ('all', ?1) \
            ON CONFLICT (name) DO UPDATE SET events = events + excluded.events";
        transaction.prepare_cached(COUNT)?.execute([black_box(batch.events).len() as i64])?;
        Ok(())
    }
}

fn projections(plan: &Plan) {
    let streams = if plan.quick { 500 } else { 5_000 };
    let shape = Shape { streams, events: 100, together: 10 };
    let count = shape.total();
    let memory = MemoryStore::new();
    let store = memory.clone();
    plan.run(async move { fill(&store, shape).await });
    let (file, _) = StoreFile::filled(plan, shape);
    let stores: [(&str, Arc<dyn Store>); 2] =
        [("Memory", Arc::new(memory)), ("SQLite", Arc::new(file.open(plan)))];
    let [read, subscription, projection, into_sqlite] =
        ["read_all", "subscription", "projection", "projection, exactly once into SQLite"];
    for (name, store) in stores {
        let title = format!("{name}: a projection of {} events", figure(count as f64));
        let mut figures = Figures::new(title, "events a second");
        let turns = plan.turns(&[read, subscription, projection, into_sqlite]);
        for (turn, contender) in turns.into_iter().enumerate() {
            let (store, place) = (store.clone(), plan.place());
            let path = place.path().to_owned();
            let mut time = 0;
            let rate = plan.rate_of(move || {
                time += 1;
                let (store, name) = (store.clone(), format!("count-{turn}-{time}"));
                let path = path.join(&name);
                async move {
                    let counted = match contender {
                        _ if contender == read => read_all(&*store).await,
                        _ if contender == subscription => subscribed(&*store, count).await,
                        _ if contender == projection => {
                            let made = Projection::at_least_once(store, &name, Count(0));
                            let mut projection = made.unwrap();
                            projection.catch_up().await.unwrap();
                            projection.handler().0
                        }
                        _ => {
                            let sink = SqliteSink::open(path).unwrap();
                            create_totals(&sink).await;
                            let made = Projection::exactly_once(store, &name, sink, CountRows);
                            made.unwrap().catch_up().await.unwrap().get()
                        }
                    };
                    assert_eq!(counted, count);
                    counted as usize
                }
            });
            figures.add(contender, rate);
        }
        figures.ratio(projection, read, BESIDE);
        figures.ratio(subscription, read, Target::None);
        figures.ratio(into_sqlite, read, Target::None);
        figures.print();
    }
}

async fn create_totals(sink: &SqliteSink) {
    use annals_domain::projection::Sink;
    let transaction = sink.begin().await.unwrap();
    let create = "CREATE TABLE totals (name TEXT PRIMARY KEY, events INTEGER NOT NULL) STRICT";
    transaction.execute_batch(create).unwrap();
    sink.commit(transaction).await.unwrap();
}

async fn read_all(store: &dyn Store) -> u64 {
    let (mut events, mut count) = (store.read_all(ReadAll::default()), 0);
    while let Some(event) = events.try_next().await.unwrap() {
        black_box(event);
        count += 1;
    }
    count
}

async fn subscribed(store: &dyn Store, count: u64) -> u64 {
    let mut subscription = store.subscribe(Subscribe::default()).await.unwrap();
    for _ in 0..count {
        black_box(subscription.next_event().await.unwrap());
    }
    count
}

fn snapshots(plan: &Plan) {
    /// The store gets a snapshot after this many events.
    const EVERY: usize = 100;
    /// How many events follow the last snapshot.
    const BEHIND: usize = EVERY / 2;
    /// The loads use several aggregates in turn, so that no single one stays in the processor's
    /// cache.
    const AGGREGATES: usize = 10;
    let [short, long] = [1, if plan.quick { 10 } else { 100 }];
    let file = StoreFile::empty(plan);
    let stores: [(&str, Arc<dyn Store>); 2] =
        [("Memory", Arc::new(MemoryStore::new())), ("SQLite", Arc::new(file.open(plan)))];
    for (name, store) in stores {
        let policy = SnapshotPolicy::every(EVERY as u64);
        let orders = Arc::new(handler(&store).with_snapshots(policy).unwrap());
        let bare = Arc::new(handler(&store));
        let filled = orders.clone();
        plan.run(async move {
            let (change, context) = (Change::new(BEHIND), Context::new());
            for snapshots in [short, long] {
                let commands = snapshots * EVERY / BEHIND + 1;
                for aggregate in 0..AGGREGATES {
                    let id = format!("{snapshots}-{aggregate}");
                    for _ in 0..commands {
                        filled.execute(&id, &change, &context).await.unwrap();
                    }
                    let snapshot = filled.store().load_snapshot(&filled.stream(&id).unwrap()).await;
                    let version = snapshot.unwrap().unwrap().version.get();
                    assert_eq!(version, (snapshots * EVERY) as u64);
                }
            }
        });
        let title = format!(
            "{name}: loads; a snapshot every {EVERY} events, {BEHIND} events after the last"
        );
        let mut figures = Figures::new(title, "microseconds");
        let named =
            |snapshots: usize, how: &str| format!("{} + {BEHIND} events, {how}", snapshots * EVERY);
        let contenders = [
            (named(short, "snapshot"), orders.clone(), short),
            (named(long, "snapshot"), orders, long),
            (named(short, "no snapshot"), bare.clone(), short),
            (named(long, "no snapshot"), bare, long),
        ];
        for (name, orders, snapshots) in plan.turns(&contenders.each_ref()) {
            let (orders, snapshots, mut turn) = (orders.clone(), *snapshots, 0);
            let rate = plan.rate_of(move || {
                turn += 1;
                let (orders, id) = (orders.clone(), format!("{snapshots}-{}", turn % AGGREGATES));
                async move {
                    let loaded = orders.load(&id).await.unwrap();
                    assert_eq!(loaded.state.changes, (snapshots * EVERY + BEHIND) as u64);
                    1
                }
            });
            figures.add(name, 1e6 / rate);
        }
        let [(small, ..), (large, ..), (all_small, ..), (all_large, ..)] = &contenders;
        figures.ratio(large, small, LONGER);
        figures.ratio(all_large, all_small, Target::None);
        figures.print();
    }
}
