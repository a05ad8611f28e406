//! postgres-es, used without the framework cqrs-es. It has a pool of connections, and a transaction
//! for each append.

use cqrs_es::persist::PersistedEventRepository;
use postgres_es::{PostgresEventRepository, default_postgress_pool};
use sqlx::{Pool, Postgres};

use crate::{
    Read, TEXT, Write,
    cart::{Cart, serialized},
};

/// The table of the crate's `db/init.sql`.
const SCHEMA: &str = "CREATE TABLE events (
    aggregate_type text                         NOT NULL,
    aggregate_id   text                         NOT NULL,
    sequence       bigint CHECK (sequence >= 0) NOT NULL,
    event_type     text                         NOT NULL,
    event_version  text                         NOT NULL,
    payload        json                         NOT NULL,
    metadata       json                         NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
)";

/// The crate's own pool, of ten connections.
pub(crate) async fn open(url: &str) -> Pool<Postgres> {
    let pool = default_postgress_pool(url).await;
    sqlx::query(SCHEMA).execute(&pool).await.unwrap();
    pool
}

pub(crate) struct Writer {
    repository: PostgresEventRepository,
    text: String,
}

impl Writer {
    pub(crate) fn new(pool: Pool<Postgres>) -> Self {
        Self { repository: PostgresEventRepository::new(pool), text: "x".repeat(TEXT) }
    }
}

impl Write for Writer {
    async fn append(&mut self, stream: &str, version: usize, events: usize) {
        let event = |n| serialized(stream, version + n + 1, &self.text);
        let events: Vec<_> = (0..events).map(event).collect();
        self.repository.persist::<Cart>(&events, None).await.unwrap();
    }
}

impl Read for Writer {
    async fn read(&self, stream: &str) -> usize {
        self.repository.get_events::<Cart>(stream).await.unwrap().len()
    }
}
