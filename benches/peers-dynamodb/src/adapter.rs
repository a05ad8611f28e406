//! The crate `event-store-adapter-rs`.

use annals_test_servers::dynamodb::Meter;
use aws_sdk_dynamodb::types::ScalarAttributeType;
use chrono::Utc;
use event_store_adapter_rs::{
    AggregateId, DynamoDbOptions, DynamoDbTables, EventEnvelope, EventStoreForDynamoDB,
    RetentionSettings, SnapshotEnvelope,
};
use serde_json::Value;

use crate::report::{Append, Read};
use crate::server::Server;
use crate::{SEED, STATE_BYTES, aggregate_id, full_error, payload};

type Store = EventStoreForDynamoDB<OrderId, Value, Value>;

pub struct Peer {
    server: Server,
    store: Store,
    meter: Meter,
    name: &'static str,
    snapshots: bool,
}

#[derive(Clone, Debug)]
struct OrderId(String);

impl AggregateId for OrderId {
    fn type_name(&self) -> String {
        "order".to_owned()
    }

    fn value(&self) -> String {
        self.0.clone()
    }
}

impl Peer {
    /// The callers write events and no snapshots.
    pub async fn of_events() -> Self {
        Self::start("event-store-adapter-rs", RetentionSettings::current_only(), false).await
    }

    /// The callers write a snapshot with each event. Only the newest snapshot is kept, the default.
    pub async fn of_snapshots() -> Self {
        Self::start("event-store-adapter-rs, snapshots", RetentionSettings::current_only(), true)
            .await
    }

    /// The callers write a snapshot with each event. One older snapshot is kept as well.
    pub async fn of_history() -> Self {
        Self::start(
            "event-store-adapter-rs, snapshots, `keep_latest(1)`",
            RetentionSettings::keep_latest(1),
            true,
        )
        .await
    }

    /// Creates the tables and the index that the crate's readme describes.
    async fn start(name: &'static str, retention: RetentionSettings, snapshots: bool) -> Self {
        let server = Server::start().await;
        let aid = ("aid", ScalarAttributeType::S);
        let number = |name| (name, ScalarAttributeType::N);
        let tables = DynamoDbTables {
            journal_table_name: "journal".to_owned(),
            snapshot_table_name: "snapshot".to_owned(),
            head_table_name: "head".to_owned(),
            snapshot_history_index_name: "history".to_owned(),
        };
        let history = Some(("history", number("active_history_seq_nr")));
        server.create_table("journal", &[aid.clone(), number("seq_nr")], None).await;
        server.create_table("snapshot", &[aid.clone(), number("skey")], history).await;
        server.create_table("head", &[aid], None).await;
        let (client, meter) = server.metered_client();
        let options = DynamoDbOptions { retention, ..DynamoDbOptions::default() };
        let store = Store::open(client, tables, options).await.unwrap();
        Self { server, store, meter, name, snapshots }
    }

    /// Measures the second append, after loading the aggregate, and checks that the third costs the
    /// same. Each event is one call: the crate has no call for several.
    pub async fn append(&self, events: usize, bytes: usize) -> Append {
        let id = OrderId(aggregate_id());
        assert!(self.persist(&id, 0, 1, bytes).await.is_none());

        self.meter.take();
        self.load(&id).await;
        let loaded = self.meter.take();
        let refused = self.persist(&id, 1, events, bytes).await;
        let mut usage = self.meter.take();
        let besides = if usage.read_units > 0.0 {
            format!("{} read units per append besides, for old snapshots. ", usage.read_units)
        } else {
            String::new()
        };
        let persisted = self.persist(&id, 1 + events, events, bytes).await;
        let later = self.meter.take();
        assert!(persisted.is_none());
        assert_eq!(later.write_units, usage.write_units, "{}: {events} of {bytes} B", self.name);

        let aid = format!("order-{}", id.0);
        let stored = self.server.check_stored("journal", ("aid", &aid), "payload", bytes).await;
        assert_eq!(stored.events, 1 + 2 * events);
        usage.requests += loaded.requests;
        usage.read_units = loaded.read_units;
        for (operation, requests) in loaded.by_operation {
            *usage.by_operation.entry(operation).or_default() += requests;
        }
        let note = format!("{besides}{} B per item besides the data", stored.overhead);
        Append { peer: self.name, events, bytes, usage, refused, note }
    }

    pub async fn read(&self, events: usize, bytes: usize) -> Vec<Read> {
        let id = OrderId(aggregate_id());
        assert!(self.persist(&id, 0, events, bytes).await.is_none());
        self.meter.take();
        let found = self.store.get_events_by_id_since_seq_nr(&id, 0).await.unwrap().len();
        let usage = self.meter.take();
        let how = "`get_events_by_id_since_seq_nr`";
        vec![Read { peer: "event-store-adapter-rs", how, events, found, usage }]
    }

    /// Loads the newest snapshot and the events after it, as the crate's readme and example do.
    async fn load(&self, id: &OrderId) {
        let read = self.store.get_latest_snapshot_by_id(id).await.unwrap().unwrap();
        let from = read.snapshot().map_or(0, |snapshot| snapshot.seq_nr() + 1);
        self.store.get_events_by_id_since_seq_nr(id, from).await.unwrap();
    }

    /// Returns the first error, and how many events were stored before it.
    async fn persist(
        &self,
        id: &OrderId,
        first: usize,
        events: usize,
        bytes: usize,
    ) -> Option<(usize, String)> {
        for n in 0..events {
            let number = (first + n) as u64;
            let data = serde_json::from_str(&payload(SEED, number, bytes)).unwrap();
            let event = EventEnvelope::new(id.clone(), number + 1, Utc::now(), data)
                .with_manifest("OrderChanged");
            let persisted = if self.snapshots {
                let state = serde_json::from_str(&payload(SEED, 0, STATE_BYTES)).unwrap();
                let snapshot = SnapshotEnvelope::new(state, number + 1).with_manifest("Order");
                self.store.persist_event_and_snapshot(event, snapshot).await
            } else {
                self.store.persist_event(event).await
            };
            if let Err(error) = persisted {
                return Some((n, full_error(&error)));
            }
        }
        None
    }
}
