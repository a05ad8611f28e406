//! eventcore-sqlite, which has one connection behind a lock and a transaction for each append; and
//! eventcore-postgres, which has a transaction of several statements.

use std::sync::Arc;

use eventcore_postgres::PostgresEventStore;
use eventcore_sqlite::{SqliteConfig, SqliteEventStore};
use eventcore_types::{Event, EventStore, StreamId, StreamVersion, StreamWrites};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{Read, TEXT, Write};

/// The crate leaves `synchronous` at SQLite's default, FULL.
pub(crate) async fn open_sqlite(file: &str) -> Arc<SqliteEventStore> {
    let config = SqliteConfig { path: file.into(), encryption_key: None };
    let store = SqliteEventStore::new(config).unwrap();
    store.migrate().await.unwrap();
    Arc::new(store)
}

/// The crate's own pool, of ten connections.
pub(crate) async fn open_postgres(url: &str) -> Arc<PostgresEventStore> {
    let store = PostgresEventStore::new(url).await.unwrap();
    store.migrate().await;
    Arc::new(store)
}

#[derive(Clone, Serialize, Deserialize)]
struct Changed {
    #[serde(skip, default = "nowhere")]
    stream: StreamId,
    text: String,
}

fn nowhere() -> StreamId {
    StreamId::try_new("nowhere").unwrap()
}

impl Event for Changed {
    fn stream_id(&self) -> &StreamId {
        &self.stream
    }

    fn event_type_name() -> &'static str {
        "OrderChanged"
    }
}

pub(crate) struct Writer<S> {
    store: Arc<S>,
    text: String,
}

impl<S> Writer<S> {
    pub(crate) fn new(store: Arc<S>) -> Self {
        Self { store, text: "x".repeat(TEXT) }
    }
}

impl<S: EventStore + Send + Sync + 'static> Write for Writer<S> {
    async fn append(&mut self, stream: &str, version: usize, events: usize) {
        let stream = StreamId::try_new(stream).unwrap();
        let version = StreamVersion::new(version);
        let mut writes = StreamWrites::new().register_stream(stream.clone(), version).unwrap();
        for _ in 0..events {
            let event = Changed { stream: stream.clone(), text: self.text.clone() };
            writes = writes.append(event).unwrap();
        }
        self.store.append_events(writes).await.unwrap();
    }
}

impl<S: EventStore + Send + Sync + 'static> Read for Writer<S> {
    async fn read(&self, stream: &str) -> usize {
        let stream = StreamId::try_new(stream).unwrap();
        let events = self.store.read_stream::<Changed>(stream).await.unwrap();
        events.try_collect::<Vec<_>>().await.unwrap().len()
    }
}
