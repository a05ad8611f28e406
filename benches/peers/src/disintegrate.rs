//! disintegrate-postgres. Each append is a serializable transaction of several statements.

use disintegrate::{Event, EventStore, StreamItem, StreamQuery, query, serde::json::Json};
use disintegrate_postgres::{Error, PgEventId, PgEventStore};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::{Read, TEXT, Write};

pub(crate) type Store = PgEventStore<Cart, Json<Cart>>;

#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
pub(crate) enum Cart {
    Changed {
        #[id]
        stream: String,
        text: String,
    },
}

/// The pool is that of the crate's documentation: the default of `sqlx`, ten connections.
pub(crate) async fn open(url: &str) -> Store {
    let pool = PgPool::connect(url).await.unwrap();
    if let Ok(store) = Store::try_new(pool.clone(), Json::default()).await {
        return store;
    }
    for statement in BEFORE_16 {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    Store::new_uninitialized(pool, Json::default())
}

/// The rest of the crate's schema. Before version 16, PostgreSQL refuses a hexadecimal number in
/// it, so creating the schema stops there.
const BEFORE_16: [&str; 3] = [
    "CREATE OR REPLACE FUNCTION event_store_begin_epoch()
    RETURNS void AS $$
    DECLARE
        id BIGINT;
        db_id INT;
    BEGIN
        SELECT last_value INTO id FROM seq_event_event_id;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();

        PERFORM pg_try_advisory_xact_lock_shared(db_id, 0);
        PERFORM pg_try_advisory_xact_lock_shared(1, (id & 4294967295)::bit(32)::integer);
        PERFORM pg_try_advisory_xact_lock_shared(2, (id >> 32)::bit(32)::integer);
    END;
    $$ LANGUAGE plpgsql",
    "ALTER TABLE event ADD COLUMN IF NOT EXISTS stream TEXT",
    "CREATE INDEX IF NOT EXISTS idx_event_stream ON event (stream) WHERE stream IS NOT NULL",
];

fn of(stream: &str) -> StreamQuery<PgEventId, Cart> {
    let stream = stream.to_owned();
    query!(Cart; stream == stream)
}

#[derive(Clone)]
pub(crate) struct Writer {
    store: Store,
    text: String,
    /// The writer's stream, and the id of the stream's last event.
    last: (String, PgEventId),
}

impl Writer {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, text: "x".repeat(TEXT), last: (String::new(), 0) }
    }
}

impl Write for Writer {
    /// Retries until the append succeeds: appends to other streams can make it fail.
    async fn append(&mut self, stream: &str, _: usize, events: usize) {
        if self.last.0 != stream {
            self.last = (stream.to_owned(), 0);
        }
        let event = Cart::Changed { stream: stream.to_owned(), text: self.text.clone() };
        loop {
            let events = vec![event.clone(); events];
            match self.store.append(events, of(stream), self.last.1).await {
                Ok(appended) => {
                    self.last.1 = appended.last().unwrap().id();
                    return;
                }
                Err(Error::Concurrency) => {}
                Err(Error::Database(sqlx::Error::Database(error)))
                    if error.code().as_deref() == Some("40001") => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Read for Writer {
    async fn read(&self, stream: &str) -> usize {
        let query = of(stream);
        let items: Vec<_> = self.store.stream(&query).try_collect().await.unwrap();
        items.iter().filter(|item| matches!(item, StreamItem::Event(_))).count()
    }
}
