//! Rows and checkpoint in one transaction: each event is handled exactly once, whoever dies.

use std::collections::BTreeMap;

use annals_core::{
    CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Position,
    RecordedEvent, Subscribe, SubscriberId,
};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, Connection, Row, postgres::PgPoolOptions, query},
};
use annals_test_servers::{BoxError, until};
use fastrand::Rng;
use tokio::time::timeout;

use crate::{
    child::Child,
    common::{PATIENCE, Place, Tested, event, everything, id, seed, tests},
};

tests! { "projection":
    Any is_killed_a_hundred_times;
    Any runs_twice_at_once;
    Any is_rolled_back;
    Any begins_only_where_it_ended;
    Any waits_for_another;
}

/// The task of a child: to run the projection.
pub(crate) const CHILD: &str = "projection";
/// The fewest that a store works with: one listens, one reads, one writes the projection.
const CONNECTIONS: u32 = PostgresConfig::MIN_CONNECTIONS;
const STREAMS: usize = 7;
/// What a projection says of each event that it handles, in this order.
const STEPS: [&str; 5] = ["begun", "checkpoint", "counted", "logged", "committed"];

/// Counts the events of each stream, and keeps a log in which one that is handled twice shows.
const TABLES: [&str; 2] = [
    "CREATE TABLE {schema}.counts (stream text PRIMARY KEY, events bigint NOT NULL)",
    "CREATE TABLE {schema}.log (number bigserial, position bigint NOT NULL)",
];
const COUNT: &str = "INSERT INTO {schema}.counts AS c VALUES ($1, 1) \
    ON CONFLICT (stream) DO UPDATE SET events = c.events + 1";
const LOG: &str = "INSERT INTO {schema}.log (position) VALUES ($1)";

fn subscriber() -> SubscriberId {
    SubscriberId::new("counts").unwrap()
}

struct Projection {
    store: PostgresStore,
    schema: String,
}

impl Projection {
    /// As a process of its own would open it.
    async fn open(config: PostgresConfig) -> Result<Self, BoxError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(config.connect);
        let schema = config.options.schema.clone();
        let options = config.options.with_migrate(false);
        Ok(Self { store: PostgresStore::with_pool(pool, options).await?, schema })
    }

    /// Goes on from a checkpoint until another, and says how often somebody else had moved it.
    async fn run(
        &self,
        mut at: Option<Position>,
        to: Position,
        step: impl Fn(&str),
    ) -> Result<u64, BoxError> {
        let mut conflicts = 0;
        while at < Some(to) {
            let start = Subscribe::default().after(at.unwrap_or_default());
            let mut events = self.store.subscribe(start).await?;
            while at < Some(to) {
                let event = events.next_event().await?;
                if !self.handle(at, &event, &step).await? {
                    conflicts += 1;
                    at = self.store.load_checkpoint(&subscriber()).await?;
                    break;
                }
                at = Some(event.position);
            }
        }
        Ok(conflicts)
    }

    /// Says whether the checkpoint was still there.
    async fn handle(
        &self,
        at: Option<Position>,
        event: &RecordedEvent,
        step: &impl Fn(&str),
    ) -> Result<bool, BoxError> {
        let statement = |text: &str| query(AssertSqlSafe(text.replace("{schema}", &self.schema)));
        let [begun, checkpoint, counted, logged, committed] = STEPS;
        let mut transaction = self.store.pool().begin().await?;
        step(begun);
        let position = event.position;
        let moved =
            self.store.advance_checkpoint(&mut transaction, &subscriber(), at, position).await;
        match moved {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                transaction.rollback().await?;
                return Ok(false);
            }
            moved => moved?,
        }
        step(checkpoint);
        statement(COUNT).bind(event.stream.as_str()).execute(&mut *transaction).await?;
        step(counted);
        statement(LOG).bind(position.to_i64()).execute(&mut *transaction).await?;
        step(logged);
        transaction.commit().await?;
        step(committed);
        Ok(true)
    }
}

/// Runs the projection in a process of its own.
pub(crate) async fn child(arguments: &[String]) -> Tested {
    let [url, schema, to] = arguments else { return Err("url, schema, position".into()) };
    let mut config = PostgresConfig::from_url(url)?;
    schema.clone_into(&mut config.options.schema);
    let projection = Projection::open(config).await?;
    let at = projection.store.load_checkpoint(&subscriber()).await?;
    // Ends with the parent, who reads it.
    projection.run(at, Position::new(to.parse()?), |step| println!("{step}")).await?;
    Ok(())
}

fn start(place: &Place, to: Position) -> Result<Child, BoxError> {
    let arguments = [place.server.url(), place.schema.clone(), to.get().to_string()];
    Child::start(CHILD, &arguments, &[])
}

async fn place() -> Result<(Place, PostgresStore), BoxError> {
    let place = Place::shared().await?;
    let store = place.open().await?;
    for table in TABLES {
        place.execute(table).await?;
    }
    Ok((place, store))
}

async fn append(store: &PostgresStore, random: &mut Rng, count: usize) -> Tested {
    for number in 0..count {
        let stream = id(&format!("s-{}", random.usize(..STREAMS)));
        store.append_to(&stream, ExpectedVersion::Any, [event(number as u64)]).await?;
    }
    Ok(())
}

/// Every event was handled once, in order, and what was counted is right.
async fn check(place: &Place, store: &PostgresStore) -> Tested {
    let events = everything(store).await?;
    let mut connection = place.connect().await?;
    let schema = &place.schema;
    let log = format!("SELECT position FROM {schema}.log ORDER BY number");
    let log = query(AssertSqlSafe(log)).fetch_all(&mut connection).await?;
    let log: Vec<i64> = log.iter().map(|row| row.get(0)).collect();
    let positions: Vec<i64> = events.iter().map(|event| event.position.to_i64()).collect();
    assert_eq!(log, positions);
    let counts = format!("SELECT stream, events FROM {schema}.counts");
    let counts = query(AssertSqlSafe(counts)).fetch_all(&mut connection).await?;
    let counts: BTreeMap<String, i64> = counts.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut expected = BTreeMap::new();
    for event in &events {
        *expected.entry(event.stream.as_str().to_owned()).or_default() += 1;
    }
    assert_eq!(counts, expected);
    let checkpoint = store.load_checkpoint(&subscriber()).await?;
    assert_eq!(checkpoint, events.last().map(|event| event.position));
    Ok(connection.close().await?)
}

async fn is_killed_a_hundred_times() -> Tested {
    const KILLS: usize = 100;
    /// The most lines that are read of a child: those of a few events.
    const LINES: usize = 4 * STEPS.len();
    let seed = seed("projection::is_killed_a_hundred_times");
    let mut random = Rng::with_seed(seed);
    let (place, store) = place().await?;
    for _ in 0..KILLS {
        let lines = random.usize(..=LINES);
        let kill = async {
            let mut child = start(&place, Position::new(u64::MAX))?;
            for _ in 0..lines {
                child.line().await?.ok_or("the child ended by itself")?;
            }
            child.kill().await
        };
        // Enough for so many lines, also where one was handled just now.
        let write = append(&store, &mut random, lines.div_ceil(STEPS.len()) + 1);
        tokio::try_join!(kill, write)?;
    }
    start(&place, store.last_position().await?)?.finish().await?;
    check(&place, &store).await?;
    place.remove().await
}

async fn runs_twice_at_once() -> Tested {
    const EVENTS: usize = 200;
    let mut random = Rng::with_seed(seed("projection::runs_twice_at_once"));
    let (place, store) = place().await?;
    append(&store, &mut random, EVENTS).await?;
    let to = store.last_position().await?;
    let run = async || {
        let projection = Projection::open(place.config()).await?;
        // Both begin where nothing is, so that one of them has to give way.
        timeout(PATIENCE, projection.run(None, to, |_| {})).await?
    };
    let (one, other): (u64, u64) = tokio::try_join!(run(), run())?;
    check(&place, &store).await?;
    assert!(one + other > 0, "they never met");
    place.remove().await
}

/// Three events, of which the first was handled.
async fn begun() -> Result<(Place, Projection, Vec<RecordedEvent>), BoxError> {
    let (place, store) = place().await?;
    append(&store, &mut Rng::with_seed(0), 3).await?;
    let events = everything(&store).await?;
    let projection = Projection::open(place.config()).await?;
    assert!(projection.handle(None, &events[0], &|_| {}).await?);
    Ok((place, projection, events))
}

async fn is_rolled_back() -> Tested {
    let (place, projection, events) = begun().await?;
    let Projection { store, schema } = &projection;
    let (first, second) = (events[0].position, events[1].position);
    for is_dropped in [false, true] {
        let mut transaction = store.pool().begin().await?;
        store.advance_checkpoint(&mut transaction, &subscriber(), Some(first), second).await?;
        let log = query(AssertSqlSafe(LOG.replace("{schema}", schema))).bind(second.to_i64());
        log.execute(&mut *transaction).await?;
        if is_dropped {
            drop(transaction);
        } else {
            transaction.rollback().await?;
        }
        assert_eq!(store.load_checkpoint(&subscriber()).await?, Some(first));
    }
    assert_eq!(projection.run(Some(first), events[2].position, |_| {}).await?, 0);
    check(&place, store).await?;
    place.remove().await
}

async fn begins_only_where_it_ended() -> Tested {
    let (place, projection, events) = begun().await?;
    let store = &projection.store;
    let (first, second, third) = (events[0].position, events[1].position, events[2].position);
    let other = SubscriberId::new("other")?;
    for (subscriber, from) in [
        (&subscriber(), None),
        (&subscriber(), Some(Position::START)),
        (&subscriber(), Some(second)),
        (&other, Some(first)),
    ] {
        let mut transaction = store.pool().begin().await?;
        let moved = store.advance_checkpoint(&mut transaction, subscriber, from, third).await;
        let error = moved.expect_err("the checkpoint is elsewhere");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains(subscriber.as_str()), "{error}");
        // Also where it is committed nevertheless.
        transaction.commit().await?;
    }
    assert_eq!(store.load_checkpoint(&subscriber()).await?, Some(first));
    assert_eq!(store.load_checkpoint(&other).await?, None);
    place.remove().await
}

/// The second of two waits until it is known what became of the first.
async fn waits_for_another() -> Tested {
    let (place, projection, events) = begun().await?;
    let store = &projection.store;
    let to = events[1].position;
    for (isolation, name) in
        [("READ COMMITTED", "a"), ("REPEATABLE READ", "b"), ("SERIALIZABLE", "c")]
    {
        for from in [None, Some(events[0].position)] {
            for commits in [false, true] {
                let who = SubscriberId::new(format!("{name} {commits}"))?;
                store.reset_checkpoint(&who, from).await?;
                let mut one = place.connect().await?;
                let mut one = one.begin().await?;
                store.advance_checkpoint(&mut one, &who, from, to).await?;
                let second = async {
                    let mut other = place.connect().await?;
                    let begin = format!("BEGIN ISOLATION LEVEL {isolation}");
                    let mut other = other.begin_with(AssertSqlSafe(begin)).await?;
                    let moved = store.advance_checkpoint(&mut other, &who, from, to).await;
                    Ok(moved)
                };
                let first = async {
                    let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                        AND position('\"{schema}\"' IN query) > 0";
                    until("the second waits", PATIENCE, || async {
                        place.execute(waits).await.is_ok_and(|rows| rows == 1)
                    })
                    .await?;
                    if commits {
                        one.commit().await?
                    } else {
                        one.rollback().await?
                    }
                    Ok::<_, BoxError>(())
                };
                let (moved, ()): (annals_core::Result<()>, ()) = tokio::try_join!(second, first)?;
                let kind = moved.err().map(|error| error.kind());
                let wanted = commits.then_some(ErrorKind::Conflict);
                assert_eq!(kind, wanted, "{isolation}, from {from:?}");
            }
        }
    }
    place.remove().await
}
