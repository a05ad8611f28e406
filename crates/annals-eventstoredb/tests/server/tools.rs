//! Helpers of the tests.

use std::{sync::Arc, time::Duration};

use annals_core::{EventType, NewEvent, Payload, StreamId, Subscription};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_memory::MemoryStore;

use crate::common::{GatewayServer, Lossy};

/// How long a test waits for something that has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway over a store in memory.
pub(crate) struct Server {
    pub(crate) gateway: GatewayServer,
    pub(crate) store: Arc<Lossy>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let store = Lossy::new(Arc::new(MemoryStore::new()));
        let gateway = GatewayServer::start(store.clone()).await.unwrap();
        Self { gateway, store }
    }

    pub(crate) async fn open(&self, options: EventStoreDbOptions) -> EventStoreDbStore {
        let config = EventStoreDbConfig::from_url(&self.gateway.url()).unwrap();
        EventStoreDbStore::open(config.with_options(options)).await.unwrap()
    }

    /// The client by itself, as other applications use it.
    pub(crate) fn bare(&self) -> kurrentdb::Client {
        kurrentdb::Client::new(self.gateway.url().parse().unwrap()).unwrap()
    }
}

pub(crate) use annals_eventstoredb::kurrentdb;

pub(crate) fn id(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

pub(crate) fn event(number: u64) -> NewEvent {
    NewEvent::new(EventType::new("Numbered").unwrap(), Payload::json(&number).unwrap())
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain for {what}"),
    }
}

/// The number in the data of a subscription's next event.
pub(crate) async fn next(live: &mut Subscription) -> u64 {
    within("an event", live.next_event()).await.unwrap().json().unwrap()
}
