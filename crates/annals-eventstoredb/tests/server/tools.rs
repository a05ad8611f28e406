//! Helpers of the tests.

use std::{sync::Arc, time::Duration};

use annals_core::{
    EventStoreExt, EventType, ExpectedVersion, NewEvent, Payload, RecordedEvent, StreamId,
    Subscription,
};
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

/// How many writers a test has. Each writes to a stream of its own, `order-0` and so on.
pub(crate) const WRITERS: u64 = 4;

/// Appends `count` numbered events one by one, and repeats each append until it succeeds.
pub(crate) async fn write(store: Arc<EventStoreDbStore>, stream: StreamId, count: u64) {
    for version in 0..count {
        let event = event(version);
        loop {
            let expected = ExpectedVersion::Exact(version.into());
            match store.append_to(&stream, expected, [event.clone()]).await {
                Ok(appended) => {
                    assert_eq!(appended.last_version.get(), version + 1);
                    break;
                }
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        }
    }
}

/// Checks that events have all that [`write`] has written to the streams of all writers, in order.
pub(crate) fn assert_complete(events: &[RecordedEvent], count: u64, what: &str) {
    for writer in 0..WRITERS {
        let stream = id(&format!("order-{writer}"));
        let numbers: Vec<u64> =
            events.iter().filter(|e| e.stream == stream).map(|e| e.json().unwrap()).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{what} of {stream}");
    }
}

/// The number in the data of a subscription's next event.
pub(crate) async fn next(live: &mut Subscription) -> u64 {
    within("an event", live.next_event()).await.unwrap().json().unwrap()
}
