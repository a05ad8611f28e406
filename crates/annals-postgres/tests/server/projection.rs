//! A projection whose rows are in the store's own database, over the store's own pool.

use std::collections::BTreeMap;

use annals_core::{
    EventStore, EventStoreExt, ExpectedVersion, Position, RecordedEvent, Sink, Subscribe,
    SubscriberId,
};
use annals_postgres::{
    PostgresConfig, PostgresSink, PostgresStore,
    sqlx::{AssertSqlSafe, Row, postgres::PgPoolOptions, query},
};
use annals_test_servers::BoxError;
use fastrand::Rng;
use tokio::time::timeout;

use crate::common::{PATIENCE, Place, Tested, event, everything, id, seed, tests};

tests! { "projection":
    Any runs_twice_at_once;
}

/// The fewest that a store works with: one listens, one reads, one writes the projection.
const CONNECTIONS: u32 = PostgresConfig::MIN_CONNECTIONS;
const STREAMS: usize = 7;

/// The number of events of each stream, and a log in which an event that is handled twice shows.
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
    sink: PostgresSink,
    schema: String,
}

impl Projection {
    /// Opens the projection as a process of its own would do it.
    async fn open(config: PostgresConfig) -> Result<Self, BoxError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(config.connect);
        let schema = config.options.schema.clone();
        let options = config.options.with_migrate(false);
        let store = PostgresStore::with_pool(pool, options).await?;
        let sink = PostgresSink::new(store.pool().clone());
        let sink = sink.with_table(&format!("{schema}.positions_of_projections"))?;
        sink.prepare().await?;
        Ok(Self { store, sink, schema })
    }

    /// Handles the events after one checkpoint until another, and returns how often another process
    /// had moved the checkpoint.
    async fn run(&self, mut at: Option<Position>, to: Position) -> Result<u64, BoxError> {
        let mut conflicts = 0;
        while at < Some(to) {
            let start = Subscribe::default().after(at.unwrap_or_default());
            let mut events = self.store.subscribe(start).await?;
            while at < Some(to) {
                let event = events.next_event().await?;
                if !self.handle(at, &event).await? {
                    conflicts += 1;
                    at = self.sink.position(&subscriber()).await?;
                    break;
                }
                at = Some(event.position);
            }
        }
        Ok(conflicts)
    }

    /// Returns false if another process had moved the checkpoint.
    async fn handle(&self, at: Option<Position>, event: &RecordedEvent) -> Result<bool, BoxError> {
        let statement = |text: &str| query(AssertSqlSafe(text.replace("{schema}", &self.schema)));
        let mut transaction = self.sink.begin().await?;
        let position = event.position;
        if !self.sink.advance(&mut transaction, &subscriber(), at, position).await? {
            return Ok(false);
        }
        statement(COUNT).bind(event.stream.as_str()).execute(&mut *transaction).await?;
        statement(LOG).bind(position.to_i64()).execute(&mut *transaction).await?;
        self.sink.commit(transaction).await?;
        Ok(true)
    }

    /// Each event was handled once, in order, the counts are right, and the checkpoint is at the end.
    async fn check(&self) -> Tested {
        let (schema, mut connection) = (&self.schema, self.store.pool().acquire().await?);
        let events = everything(&self.store).await?;
        let log = format!("SELECT position FROM {schema}.log ORDER BY number");
        let log = query(AssertSqlSafe(log)).fetch_all(&mut *connection).await?;
        let log: Vec<i64> = log.iter().map(|row| row.get(0)).collect();
        let positions: Vec<i64> = events.iter().map(|event| event.position.to_i64()).collect();
        assert_eq!(log, positions);
        let counts = format!("SELECT stream, events FROM {schema}.counts");
        let counts = query(AssertSqlSafe(counts)).fetch_all(&mut *connection).await?;
        let counts: BTreeMap<String, i64> =
            counts.iter().map(|row| (row.get(0), row.get(1))).collect();
        let mut expected = BTreeMap::new();
        for event in &events {
            *expected.entry(event.stream.as_str().to_owned()).or_default() += 1;
        }
        assert_eq!(counts, expected);
        drop(connection);
        let checkpoint = self.sink.position(&subscriber()).await?;
        assert_eq!(checkpoint, events.last().map(|event| event.position));
        Ok(())
    }
}

async fn runs_twice_at_once() -> Tested {
    const EVENTS: usize = 200;
    let mut random = Rng::with_seed(seed("projection::runs_twice_at_once"));
    let place = Place::shared().await?;
    let store = place.open().await?;
    for table in TABLES {
        place.execute(table).await?;
    }
    for number in 0..EVENTS {
        let stream = id(&format!("s-{}", random.usize(..STREAMS)));
        store.append_to(&stream, ExpectedVersion::Any, [event(number as u64)]).await?;
    }
    let to = store.last_position().await?;
    let run = async || {
        let projection = Projection::open(place.config()).await?;
        // Both begin without a checkpoint, so that one of them has to give way.
        let conflicts = timeout(PATIENCE, projection.run(None, to)).await??;
        Ok::<_, BoxError>((projection, conflicts))
    };
    let ((projection, one), (_, other)) = tokio::try_join!(run(), run())?;
    projection.check().await?;
    assert!(one + other > 0, "they never met");
    place.remove().await
}
