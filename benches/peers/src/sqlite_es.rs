//! sqlite-es, below the framework cqrs-es: a pool of connections, a transaction for each append.

use std::{convert::Infallible, str::FromStr};

use cqrs_es::{
    Aggregate, DomainEvent,
    event_sink::EventSink,
    persist::{PersistedEventRepository, SerializedEvent},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlite_es::SqliteEventRepository;
use sqlx::{
    Pool, Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{TEXT, Write};

/// The table of its migration.
const SCHEMA: &str = "CREATE TABLE events (
    aggregate_type text NOT NULL,
    aggregate_id   text NOT NULL,
    sequence       integer CHECK (sequence >= 0) NOT NULL,
    event_type     text NOT NULL,
    event_version  text NOT NULL,
    payload        text NOT NULL,
    metadata       text NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
) STRICT";

/// Its own pool, but for `synchronous`, which that sets to NORMAL.
pub(crate) async fn open(file: &str) -> Pool<Sqlite> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{file}"))
        .unwrap()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(10).connect_with(options).await.unwrap();
    sqlx::query(SCHEMA).execute(&pool).await.unwrap();
    pool
}

pub(crate) struct Writer {
    number: usize,
    repository: SqliteEventRepository,
    text: String,
}

impl Writer {
    pub(crate) fn new(number: usize, pool: Pool<Sqlite>) -> Self {
        Self { number, repository: SqliteEventRepository::new(pool), text: "x".repeat(TEXT) }
    }
}

impl Write for Writer {
    async fn append(&mut self, stream: &str, version: usize) {
        let event = SerializedEvent::new(
            stream.to_owned(),
            version + 1,
            Cart::TYPE.to_owned(),
            "OrderChanged".to_owned(),
            "1.0".to_owned(),
            json!({ "text": self.text }),
            json!({ "text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }),
        );
        self.repository.persist::<Cart>(&[event], None).await.unwrap();
    }

    fn number(&self) -> usize {
        self.number
    }
}

/// What the repository is generic over; only its name is used.
#[derive(Default, Serialize, Deserialize)]
struct Cart;

impl Aggregate for Cart {
    const TYPE: &'static str = "cart";
    type Command = ();
    type Event = Changed;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Infallible> {
        Ok(())
    }

    fn apply(&mut self, _: Changed) {}
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Changed;

impl DomainEvent for Changed {
    fn event_type(&self) -> String {
        "OrderChanged".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}
