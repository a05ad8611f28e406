//! sqlite-es, used without the framework cqrs-es. It has a pool of connections, and a transaction
//! for each append.

use std::str::FromStr;

use cqrs_es::persist::PersistedEventRepository;
use sqlite_es::SqliteEventRepository;
use sqlx::{
    Pool, Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    TEXT, Write,
    cart::{Cart, serialized},
};

/// The table of the crate's migration.
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

/// The crate's own pool, except that the crate sets `synchronous` to NORMAL.
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
    repository: SqliteEventRepository,
    text: String,
}

impl Writer {
    pub(crate) fn new(pool: Pool<Sqlite>) -> Self {
        Self { repository: SqliteEventRepository::new(pool), text: "x".repeat(TEXT) }
    }
}

impl Write for Writer {
    async fn append(&mut self, stream: &str, version: usize, events: usize) {
        let event = |n| serialized(stream, version + n + 1, &self.text);
        let events: Vec<_> = (0..events).map(event).collect();
        self.repository.persist::<Cart>(&events, None).await.unwrap();
    }
}
