//! eventcore-sqlite: one connection behind a lock, a transaction for each append.

use std::sync::Arc;

use eventcore_sqlite::{SqliteConfig, SqliteEventStore};
use eventcore_types::{Event, EventStore, StreamId, StreamVersion, StreamWrites};
use serde::{Deserialize, Serialize};

use crate::{TEXT, Write};

/// It leaves `synchronous` as SQLite has it: FULL.
pub(crate) async fn open(file: &str) -> Arc<SqliteEventStore> {
    let config = SqliteConfig { path: file.into(), encryption_key: None };
    let store = SqliteEventStore::new(config).unwrap();
    store.migrate().await.unwrap();
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

pub(crate) struct Writer {
    number: usize,
    store: Arc<SqliteEventStore>,
    text: String,
}

impl Writer {
    pub(crate) fn new(number: usize, store: Arc<SqliteEventStore>) -> Self {
        Self { number, store, text: "x".repeat(TEXT) }
    }
}

impl Write for Writer {
    async fn append(&mut self, stream: &str, version: usize) {
        let stream = StreamId::try_new(stream).unwrap();
        let event = Changed { stream: stream.clone(), text: self.text.clone() };
        let writes = StreamWrites::new().register_stream(stream, StreamVersion::new(version));
        self.store.append_events(writes.unwrap().append(event).unwrap()).await.unwrap();
    }

    fn number(&self) -> usize {
        self.number
    }
}
