//! What the tests share.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    time::Duration,
};

use annals_core::{
    Append, EventStore, EventStoreExt, ExpectedVersion, NewEvent, ReadAll, RecordedEvent, Result,
    StreamId, Subscribe, Subscription, TryStreamExt,
};
use annals_dynamodb::{
    DynamoDbOptions, DynamoDbStore,
    aws_sdk_dynamodb::{
        Client,
        types::AttributeValue::{self, B, L, M, N, S},
    },
};
use annals_test_servers::dynamodb::{DynamoDb, Source};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::time::timeout;

/// How long a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const TABLE: &str = "events";
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A server with one table.
pub(crate) struct Place {
    pub(crate) server: DynamoDb,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self { server: Source::InProcess.start().await.unwrap() }
    }

    /// A store with short intervals.
    pub(crate) async fn open(&self, order: bool) -> DynamoDbStore {
        self.open_with(options(order)).await.unwrap()
    }

    pub(crate) async fn open_with(&self, options: DynamoDbOptions) -> Result<DynamoDbStore> {
        DynamoDbStore::with_client(&self.client(), TABLE, options).await
    }

    /// A store that sends its requests through this HTTP client.
    pub(crate) async fn open_through(
        &self,
        http: SharedHttpClient,
        options: DynamoDbOptions,
    ) -> Result<DynamoDbStore> {
        let config = self.server.config().to_builder().http_client(http).build();
        DynamoDbStore::with_client(&Client::from_conf(config), TABLE, options).await
    }

    pub(crate) fn client(&self) -> Client {
        self.server.client()
    }

    /// All items of the table.
    pub(crate) async fn items(&self) -> Vec<Item> {
        let client = self.client();
        let pages = client.scan().table_name(TABLE).into_paginator().items().send();
        pages.collect::<std::result::Result<_, _>>().await.unwrap()
    }

    pub(crate) async fn item(&self, partition: &str, sort: i64) -> Option<Item> {
        let get = self.client().get_item().table_name(TABLE).consistent_read(true);
        get.set_key(Some(key(partition, sort))).send().await.unwrap().item
    }

    pub(crate) async fn set(&self, partition: &str, sort: i64, name: &str, value: AttributeValue) {
        let update = self.client().update_item().table_name(TABLE);
        let update = update.set_key(Some(key(partition, sort)));
        let update = update.update_expression("SET #n = :v").expression_attribute_names("#n", name);
        update.expression_attribute_values(":v", value).send().await.unwrap();
    }

    pub(crate) async fn remove(&self, partition: &str, sort: i64) {
        let delete = self.client().delete_item().table_name(TABLE);
        delete.set_key(Some(key(partition, sort))).send().await.unwrap();
    }
}

pub(crate) fn key(partition: &str, sort: i64) -> Item {
    let partition = S(partition.to_owned());
    HashMap::from([("pk".to_owned(), partition), ("sk".to_owned(), N(sort.to_string()))])
}

/// Whether any value in the items contains these bytes.
pub(crate) fn contains(items: &[Item], bytes: &str) -> bool {
    items.iter().flat_map(HashMap::values).any(|value| has(value, bytes.as_bytes()))
}

fn has(value: &AttributeValue, bytes: &[u8]) -> bool {
    match value {
        B(found) => found.as_ref().windows(bytes.len()).any(|window| window == bytes),
        S(found) => found.as_bytes().windows(bytes.len()).any(|window| window == bytes),
        L(list) => list.iter().any(|value| has(value, bytes)),
        M(map) => map.values().any(|value| has(value, bytes)),
        _ => false,
    }
}

pub(crate) fn options(order: bool) -> DynamoDbOptions {
    DynamoDbOptions::default()
        .with_order(order)
        .with_poll_interval(Duration::from_millis(20))
        .with_close_after(Duration::from_millis(50))
}

pub(crate) fn id(stream: &str) -> StreamId {
    StreamId::new(stream).unwrap()
}

pub(crate) fn event(number: u64) -> NewEvent {
    NewEvent::json("Counted", &number).unwrap()
}

pub(crate) fn any(stream: &str, number: u64) -> Append {
    Append::new(id(stream), ExpectedVersion::Any, [event(number)])
}

/// An event of this length that cannot be compressed, and begins with a mark to find it by.
pub(crate) fn noise(mark: &str, length: usize) -> NewEvent {
    let mut bytes = mark.as_bytes().to_vec();
    let seed =
        bytes.iter().fold(length as u64, |seed, byte| seed.wrapping_mul(31) + u64::from(*byte));
    let mut rng = fastrand::Rng::with_seed(seed);
    bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(length.saturating_sub(mark.len())));
    NewEvent::binary("Noise", bytes).unwrap()
}

/// The seed for the random choices of a test, printed so that a run can be repeated.
pub(crate) fn seed(test: &str) -> u64 {
    let given = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: replay with ANNALS_SEED={seed}");
    seed
}

/// Waits for a future that has to be done within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// The next `count` events of a subscription.
pub(crate) async fn take(subscription: &mut Subscription, count: usize) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = soon("the next event", subscription.next_event()).await;
        events.push(next.unwrap());
    }
    events
}

pub(crate) async fn read_all(store: &DynamoDbStore) -> Vec<RecordedEvent> {
    let all = store.read_all(ReadAll::default()).try_collect();
    soon("reading all", all).await.unwrap()
}

/// All events. Checks that all ways of reading agree on them, that positions rise, and that no
/// stream has a gap.
pub(crate) async fn everything(store: &DynamoDbStore) -> Vec<RecordedEvent> {
    let events = read_all(store).await;
    assert!(events.windows(2).all(|pair| pair[0].position < pair[1].position), "out of order");
    let mut backwards: Vec<_> =
        store.read_all(ReadAll::default().backwards()).try_collect().await.unwrap();
    backwards.reverse();
    assert_eq!(backwards, events);
    let last = store.last_position().await.unwrap();
    assert_eq!(last, events.last().map(|event| event.position).unwrap_or_default());
    let streams: BTreeSet<_> = events.iter().map(|event| event.stream.clone()).collect();
    for stream in streams {
        let of_stream = gapless(store, &stream).await;
        assert!(events.iter().filter(|event| event.stream == stream).eq(&of_stream), "{stream:?}");
    }
    let mut subscription = store.subscribe(Subscribe::default()).await.unwrap();
    assert_eq!(take(&mut subscription, events.len()).await, events);
    events
}

/// Makes appends of one event to one stream, and settles the log behind them, which the table then knows.
pub(crate) async fn settled(place: &Place, appends: usize) {
    let store = place.open(true).await;
    for n in 0..appends as u64 {
        store.append(any("a-1", n)).await.unwrap();
    }
    store.last_position().await.unwrap();
}

/// Subscriptions to all events of a store, each of which has got its first event.
pub(crate) async fn subscriptions(store: &DynamoDbStore, count: usize) -> Vec<Subscription> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut live = store.subscribe(Subscribe::default()).await.unwrap();
        take(&mut live, 1).await;
        all.push(live);
    }
    all
}

/// The events of a stream. Checks that their versions have no gap.
pub(crate) async fn gapless(store: &DynamoDbStore, stream: &StreamId) -> Vec<RecordedEvent> {
    let events = soon("reading a stream", store.load_stream(stream)).await.unwrap();
    let gapless = |pair: &[RecordedEvent]| pair[0].version.get() + 1 == pair[1].version.get();
    assert!(events.windows(2).all(gapless), "a gap in {stream:?}");
    events
}
