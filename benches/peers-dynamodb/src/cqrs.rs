//! The crate `dynamo-es`, through its framework cqrs-es.

use std::sync::Arc;

use annals_test_servers::dynamodb::{Meter, Usage};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ScalarAttributeType;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{PersistedEventRepository, SerializedEvent};
use cqrs_es::{Aggregate, DomainEvent};
use dynamo_es::{DynamoCqrs, DynamoEventRepository, dynamodb_aggregate_cqrs, dynamodb_cqrs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::report::{Append, Read};
use crate::server::Server;
use crate::{SEED, STATE_BYTES, aggregate_id, full_error, payload};

/// The most events of one command. A command is one transaction of at most 25 writes; a snapshot is
/// one of them.
const MOST_EVENTS: usize = 25;

pub struct Peer {
    server: Server,
    client: Client,
    meter: Meter,
}

/// How an aggregate is loaded.
#[derive(Clone, Copy, PartialEq)]
pub enum Store {
    /// From its events, the default.
    Events,
    /// From its newest state, which each append replaces.
    Aggregate,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "dynamo-es",
            Self::Aggregate => "dynamo-es, aggregate store",
        }
    }

    fn most_events(self) -> usize {
        match self {
            Self::Events => MOST_EVENTS,
            Self::Aggregate => MOST_EVENTS - 1,
        }
    }
}

impl Peer {
    /// Creates the tables of the crate's `db/create_tables.sh`.
    pub async fn start() -> Self {
        let server = Server::start().await;
        let id = ("AggregateTypeAndId", ScalarAttributeType::S);
        let sequence = ("AggregateIdSequence", ScalarAttributeType::N);
        server.create_table("Events", &[id.clone(), sequence], None).await;
        server.create_table("Snapshots", &[id], None).await;
        let (client, meter) = server.metered_client();
        Self { server, client, meter }
    }

    /// Measures an append in as many commands as needed, and before that an attempt in one command.
    pub async fn append(&self, store: Store, events: usize, bytes: usize) -> Vec<Append> {
        let most = store.most_events();
        let mut rows = Vec::new();
        if events > most {
            rows.push(self.append_in(store, events, bytes, events).await);
        }
        rows.push(self.append_in(store, events, bytes, most).await);
        rows
    }

    /// Measures the second append to an aggregate, and checks that the third costs the same.
    async fn append_in(&self, store: Store, events: usize, bytes: usize, chunk: usize) -> Append {
        let cqrs = self.framework(store);
        let id = aggregate_id();
        cqrs.execute(&id, Command(data(0..1, bytes))).await.unwrap();

        self.meter.take();
        let refused = execute(&cqrs, &id, 1, events, bytes, chunk).await;
        let usage = self.meter.take();
        let stored = self.check(&id, bytes).await;
        assert_eq!(stored.events, 1 + refused.as_ref().map_or(events, |(stored, _)| *stored));

        let calls = events.div_ceil(chunk);
        let mut note = match (calls, refused.is_some()) {
            (1, false) => String::new(),
            (1, true) => "in one command. ".to_owned(),
            _ => format!("in {calls} commands, each atomic alone. "),
        };
        if let (None, Store::Aggregate) = (&refused, store) {
            let snapshot = self.repository().get_snapshot::<Order>(&id).await.unwrap().unwrap();
            let applied = &snapshot.aggregate["changes"];
            if *applied != 1 + events {
                note += &format!("The snapshot has applied {applied} events, of {}. ", 1 + events);
            }
            self.meter.take();
        }
        if refused.is_none() {
            let third = execute(&cqrs, &id, 1 + events, events, bytes, chunk).await;
            let later = self.meter.take();
            match third {
                Some((stored, error)) => {
                    note += &format!("The next append: refused: {error}, with {stored} stored. ")
                }
                None => assert_eq!(later.write_units, usage.write_units),
            }
        }
        note += &format!("{} B per item besides the data", stored.overhead);
        Append { peer: store.name(), events, bytes, usage, refused, note }
    }

    /// Appends by the call below the framework, without loading, to see what the call refuses.
    pub async fn append_below_framework(&self, events: usize, bytes: usize) -> Append {
        let id = aggregate_id();
        let repository = self.repository();
        persist(&repository, &id, 0, 1, bytes).await;
        self.meter.take();
        persist(&repository, &id, 1, events, bytes).await;
        let usage = self.meter.take();
        let stored = self.check(&id, bytes).await;
        assert_eq!(stored.events, 1 + events);
        let note = format!(
            "in {} calls of `persist` by a caller who knows the version",
            events.div_ceil(MOST_EVENTS)
        );
        Append { peer: "dynamo-es, repository alone", events, bytes, usage, refused: None, note }
    }

    /// Measures the call that loads an aggregate, and the one that replays it.
    pub async fn read(&self, events: usize, bytes: usize) -> Vec<Read> {
        let id = aggregate_id();
        let repository = self.repository();
        persist(&repository, &id, 0, events, bytes).await;
        self.check(&id, bytes).await;

        self.meter.take();
        let found = repository.get_events::<Order>(&id).await.unwrap().len();
        let loaded = self.row("`get_events` (what loads an aggregate)", events, found);
        let mut stream = repository.stream_events::<Order>(&id).await.unwrap();
        let mut found = 0;
        while let Some(event) = stream.next::<Order>(&[]).await {
            event.unwrap();
            found += 1;
        }
        let streamed = self.row("`stream_events`", events, found);
        vec![loaded, streamed]
    }

    fn row(&self, how: &'static str, events: usize, found: usize) -> Read {
        Read { peer: "dynamo-es", how, events, found, usage: self.meter.take() }
    }

    /// Stores `filled` events without the framework, then appends one at a time until an append is
    /// refused. Returns the number of events, the error, and what the last successful append used.
    pub async fn outgrow(&self, filled: usize, bytes: usize) -> (usize, String, Usage) {
        let id = aggregate_id();
        persist(&self.repository(), &id, 0, filled, bytes).await;
        let cqrs = self.framework(Store::Events);
        let mut events = filled;
        let mut last = Usage::default();
        loop {
            self.meter.take();
            if let Some((_, error)) = execute(&cqrs, &id, events, 1, bytes, 1).await {
                // A second attempt is refused, too.
                assert!(execute(&cqrs, &id, events, 1, bytes, 1).await.is_some());
                return (events, error, last);
            }
            last = self.meter.take();
            events += 1;
        }
    }

    async fn check(&self, id: &str, bytes: usize) -> crate::server::Stored {
        let id = format!("{}:{id}", Order::TYPE);
        self.server.check_stored("Events", ("AggregateTypeAndId", &id), "Payload", bytes).await
    }

    fn framework(&self, store: Store) -> DynamoCqrs<Order> {
        let services = Arc::new(());
        match store {
            Store::Events => dynamodb_cqrs(self.client.clone(), vec![], services),
            Store::Aggregate => dynamodb_aggregate_cqrs(self.client.clone(), vec![], services),
        }
    }

    fn repository(&self) -> DynamoEventRepository {
        DynamoEventRepository::new(self.client.clone())
    }
}

/// Executes commands of `chunk` events each. Returns the first error, and how many events were
/// stored before it.
async fn execute(
    cqrs: &DynamoCqrs<Order>,
    id: &str,
    first: usize,
    events: usize,
    bytes: usize,
    chunk: usize,
) -> Option<(usize, String)> {
    let all = data(first..first + events, bytes);
    for (n, some) in all.chunks(chunk).enumerate() {
        if let Err(error) = cqrs.execute(id, Command(some.to_vec())).await {
            return Some((n * chunk, full_error(&error)));
        }
    }
    None
}

async fn persist(
    repository: &DynamoEventRepository,
    id: &str,
    first: usize,
    events: usize,
    bytes: usize,
) {
    let serialized = |(at, payload): (usize, Value)| SerializedEvent {
        aggregate_id: id.to_owned(),
        sequence: first + at + 1,
        aggregate_type: Order::TYPE.to_owned(),
        event_type: EVENT_TYPE.to_owned(),
        event_version: EVENT_VERSION.to_owned(),
        payload,
        metadata: json!({}),
    };
    let all: Vec<_> =
        data(first..first + events, bytes).into_iter().enumerate().map(serialized).collect();
    for some in all.chunks(MOST_EVENTS) {
        repository.persist::<Order>(some, None).await.unwrap();
    }
}

fn data(numbers: std::ops::Range<usize>, bytes: usize) -> Vec<Value> {
    numbers.map(|n| serde_json::from_str(&payload(SEED, n as u64, bytes)).unwrap()).collect()
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {
    changes: u64,
    state: Value,
}

struct Command(Vec<Value>);

/// Serialized as its data alone. An enum, which the framework recommends, would add the variant's
/// name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct OrderChanged(Value);

const EVENT_TYPE: &str = "OrderChanged";
const EVENT_VERSION: &str = "1.0";

impl DomainEvent for OrderChanged {
    fn event_type(&self) -> String {
        EVENT_TYPE.to_owned()
    }

    fn event_version(&self) -> String {
        EVENT_VERSION.to_owned()
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = Command;
    type Event = OrderChanged;
    type Error = std::convert::Infallible;
    type Services = Arc<()>;

    async fn handle(
        &mut self,
        command: Command,
        _: &Arc<()>,
        sink: &EventSink<Self>,
    ) -> Result<(), Self::Error> {
        for data in command.0 {
            sink.write(OrderChanged(data), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, _: OrderChanged) {
        self.changes += 1;
        if self.state.is_null() {
            self.state = serde_json::from_str(&payload(SEED, 0, STATE_BYTES)).unwrap();
        }
    }
}
