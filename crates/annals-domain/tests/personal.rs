//! Personal data: sealed data opens byte for byte or with an error that says why, and a forgotten
//! subject stays forgotten.
#![cfg(feature = "personal")]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, ErrorKind, EventStore, EventStoreExt,
    EventStream, ExpectedVersion, LeaseStore, NewEvent, Payload, Position, ReadAll, ReadStream,
    RecordedEvent, Result, SnapshotStore, StreamId, StreamInfo, Subscribe, Subscription,
    TransferStore, TryStreamExt, Version,
};
use annals_domain::personal::{
    Key, KeyStore, MemoryKeys, Opened, PersonalData, StoreKeys, Subject,
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use proptest::prelude::*;
use tokio::time::advance;

fn subject(name: &str) -> Subject {
    Subject::new(name).unwrap()
}

fn stream(id: &str) -> StreamId {
    StreamId::new(id).unwrap()
}

fn store_keys(store: &MemoryStore) -> StoreKeys {
    StoreKeys::new(Arc::new(store.clone())).unwrap()
}

/// One empty key store of each kind.
fn key_stores() -> Vec<Arc<dyn KeyStore>> {
    let store = MemoryStore::new();
    let uncached = store_keys(&MemoryStore::new()).with_max_age(Duration::ZERO);
    vec![Arc::new(MemoryKeys::new()), Arc::new(store_keys(&store)), Arc::new(uncached)]
}

fn event(data: Payload) -> NewEvent {
    NewEvent::new("Registered".parse().unwrap(), data).with_metadata(r#"{"by": "import"}"#)
}

fn recorded(event: NewEvent, stream: &StreamId) -> RecordedEvent {
    event.recorded(stream.clone(), Version::new(3), Position::new(9), chrono::DateTime::UNIX_EPOCH)
}

/// An event that is sealed for Ada in the stream `person-1`, and the keys.
async fn sealed(data: Payload) -> (PersonalData, NewEvent) {
    let personal = PersonalData::new(Arc::new(MemoryKeys::new()));
    let sealed = personal.seal(&stream("person-1"), event(data), &subject("ada")).await.unwrap();
    (personal, sealed)
}

fn with_data(event: &NewEvent, data: Payload) -> NewEvent {
    NewEvent::from_stored(event.id(), event.event_type().clone(), data, event.metadata().clone())
}

#[tokio::test]
async fn what_is_sealed_opens_byte_for_byte_and_nothing_else_changes() {
    let payloads = [
        Payload::json_text(r#" {"b": 1.10, "a": 1e400, "b": "\u00e9é"} "#).unwrap(),
        Payload::json_text("null").unwrap(),
        Payload::binary(&[0, 255, 254][..]),
        Payload::binary(&b"{}"[..]),
        Payload::empty(),
    ];
    for (keys, payload) in
        key_stores().into_iter().flat_map(|keys| payloads.iter().map(move |p| (keys.clone(), p)))
    {
        let (personal, store) = (PersonalData::new(keys), MemoryStore::new());
        let (ada, stream, event) = (subject("ada"), stream("person-1"), event(payload.clone()));
        let sealed = personal.seal(&stream, event.clone(), &ada).await.unwrap();
        assert_eq!(sealed.id(), event.id());
        assert_eq!(sealed.event_type(), event.event_type());
        assert_eq!(sealed.metadata(), event.metadata());
        assert_eq!(sealed.data().len(), payload.len() + PersonalData::overhead(&ada));
        assert_eq!(PersonalData::overhead(&ada), 55 + 3);
        assert_eq!(PersonalData::subject(sealed.data()), Some(ada));
        assert_eq!(PersonalData::subject(payload), None);

        store.append_to(&stream, ExpectedVersion::NoStream, [sealed]).await.unwrap();
        let read = store.load_stream(&stream).await.unwrap().remove(0);
        assert_eq!(personal.open(&read).await.unwrap(), Opened::Payload(payload.clone()));
    }
}

#[tokio::test]
async fn the_data_is_hidden_and_never_sealed_to_the_same_bytes() {
    let text = "the quick brown fox";
    let (personal, first) = sealed(Payload::binary(text)).await;
    let event = with_data(&first, Payload::binary(text));
    let second = personal.seal(&stream("person-1"), event, &subject("ada")).await.unwrap();
    for bytes in [first.data().bytes(), second.data().bytes()] {
        assert!(!bytes.windows(8).any(|w| text.as_bytes().windows(8).any(|t| t == w)));
    }
    assert_ne!(first.data().bytes()[30..], second.data().bytes()[30..]);
}

#[tokio::test]
async fn data_that_was_never_sealed_comes_back_as_it_is() {
    let personal = PersonalData::new(Arc::new(MemoryKeys::new()));
    let (_, sealed) = sealed(Payload::empty()).await;
    let magic = sealed.data().bytes();
    let payloads = [
        Payload::empty(),
        Payload::json_text("{}").unwrap(),
        Payload::binary(vec![0; 100]),
        Payload::binary(magic.slice(..15)),
        Payload::binary([&magic[1..16], &magic[..]].concat()),
    ];
    for payload in payloads {
        let read = recorded(event(payload.clone()), &stream("person-1"));
        assert_eq!(personal.open(&read).await.unwrap(), Opened::Payload(payload));
    }
    assert!(std::str::from_utf8(&magic[..16]).is_err(), "JSON could begin so");
}

#[tokio::test]
async fn sealing_twice_is_refused() {
    let (personal, event) = sealed(Payload::binary("x")).await;
    let again = personal.seal(&stream("person-1"), event, &subject("bob")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidInput);
    assert!(again.to_string().contains("person-1") && again.to_string().contains("Registered"));
    assert!(again.to_string().contains("sealed already"), "{again}");
}

#[tokio::test]
async fn who_is_forgotten_is_forgotten_and_nobody_else() {
    for keys in key_stores() {
        let (personal, store) = (PersonalData::new(keys.clone()), MemoryStore::new());
        let (ada, bob, stream) = (subject("ada"), subject("bob"), stream("people-1"));
        let data = Payload::json_text(r#"{"name": "…"}"#).unwrap();
        for subject in [&ada, &bob] {
            let event = event(data.clone()).with_correlation_id("c-1").unwrap();
            let sealed = personal.seal(&stream, event, subject).await.unwrap();
            store.append_to(&stream, ExpectedVersion::Any, [sealed]).await.unwrap();
        }
        let plain = event(data.clone());
        store.append_to(&stream, ExpectedVersion::Any, [plain]).await.unwrap();

        keys.forget(&ada).await.unwrap();
        keys.forget(&ada).await.unwrap();

        let read = store.load_stream(&stream).await.unwrap();
        assert_eq!(personal.open(&read[0]).await.unwrap(), Opened::Forgotten(ada.clone()));
        assert_eq!(read[0].correlation_id().as_deref(), Some("c-1"));
        assert_eq!(PersonalData::subject(&read[0].data), Some(ada.clone()));
        for event in &read[1..] {
            assert_eq!(personal.open(event).await.unwrap(), Opened::Payload(data.clone()));
        }
        let refused = personal.seal(&stream, event(data.clone()), &ada).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forgotten);
        assert!(personal.seal(&stream, event(data), &bob).await.is_ok());
    }
}

#[tokio::test]
async fn who_never_had_a_key_has_none_and_can_be_forgotten() {
    for keys in key_stores() {
        let eve = subject("eve");
        assert!(keys.find(&eve).await.unwrap().is_none());
        assert!(keys.find(&eve).await.unwrap().is_none(), "finding makes no key");
        keys.forget(&eve).await.unwrap();
        assert_eq!(keys.key(&eve).await.unwrap_err().kind(), ErrorKind::Forgotten);
        assert!(keys.find(&eve).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn sealed_data_moved_to_another_event_is_refused() {
    let (personal, sealed) = sealed(Payload::binary("secret")).await;
    let (id, event_type, metadata) = (sealed.id(), sealed.event_type(), sealed.metadata());
    let moved = |stream_id: &str, id, event_type: &str| {
        let event_type = event_type.parse().unwrap();
        let event = NewEvent::from_stored(id, event_type, sealed.data().clone(), metadata.clone());
        recorded(event, &stream(stream_id))
    };
    let here = moved("person-1", id, event_type.as_str());
    assert!(matches!(personal.open(&here).await.unwrap(), Opened::Payload(_)));
    for elsewhere in [
        moved("person-2", id, event_type.as_str()),
        moved("person-1", uuid::Uuid::now_v7(), event_type.as_str()),
        moved("person-1", id, "Renamed"),
    ] {
        let error = personal.open(&elsewhere).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.stream(), Some(&elsewhere.stream));
        let text = error.to_string();
        assert!(text.contains("event 3 of type"), "{text}");
        assert!(text.contains(elsewhere.event_type.as_str()), "{text}");
    }
}

#[tokio::test]
async fn data_sealed_with_another_key_is_refused() {
    let (_, event) = sealed(Payload::binary("secret")).await;
    let keys = MemoryKeys::new();
    keys.key(&subject("ada")).await.unwrap();
    let read = recorded(event, &stream("person-1"));
    let error = PersonalData::new(Arc::new(keys)).open(&read).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_is_refused() {
    let (personal, event) = sealed(Payload::json_text(r#"{"n":1}"#).unwrap()).await;
    let whole = event.data().bytes().to_vec();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len() * 8)
        .map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
        .collect();
    // Shorter data cannot be told from data that was never sealed.
    damaged.extend((16..whole.len()).map(|len| whole[..len].to_vec()));
    damaged.push([&whole[..], &[0]].concat());
    for bytes in damaged {
        let read = recorded(with_data(&event, Payload::binary(bytes.clone())), &stream("person-1"));
        let error = personal.open(&read).await.expect_err(&format!("{bytes:?}"));
        let format = bytes.len() > 16 && bytes[..16] == whole[..16] && bytes[16] != 1;
        let kind = if format { ErrorKind::Incompatible } else { ErrorKind::Corrupt };
        assert_eq!(error.kind(), kind, "{bytes:?}");
        assert!(error.to_string().contains("event 3 of type \"Registered\""), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_subject_is_not_taken_for_one_that_was_forgotten() {
    let (_, event) = sealed(Payload::binary("secret")).await;
    let mut bytes = event.data().bytes().to_vec();
    let at = bytes.windows(3).position(|w| w == b"ada").unwrap();
    bytes[at] ^= 2;
    let data = Payload::binary(bytes);
    assert_eq!(PersonalData::subject(&data), None);
    let read = recorded(with_data(&event, data), &stream("person-1"));
    let nobody = PersonalData::new(Arc::new(MemoryKeys::new()));
    assert_eq!(nobody.open(&read).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn subjects() {
    for name in ["a", "日本 \u{1f980}", &"ü".repeat(127)] {
        assert_eq!(subject(name).as_str(), name);
        assert_eq!(format!("{0} {0:?}", subject(name)), format!("{name} {name:?}"));
    }
    for name in ["", "a\nb", "\0", &"ü".repeat(128)] {
        let error = Subject::new(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
    }
}

#[tokio::test]
async fn the_longest_subjects() {
    let stream = stream("person-1");
    let memory: Arc<dyn KeyStore> = Arc::new(MemoryKeys::new());
    let stored: Arc<dyn KeyStore> = Arc::new(store_keys(&MemoryStore::new()));
    for (keys, most) in [(memory, 255), (stored.clone(), 244)] {
        let personal = PersonalData::new(keys);
        let longest = subject(&"x".repeat(most));
        let sealed = personal.seal(&stream, event(Payload::empty()), &longest).await.unwrap();
        let read = recorded(sealed, &stream);
        assert_eq!(personal.open(&read).await.unwrap(), Opened::Payload(Payload::empty()));
    }
    let error = stored.key(&subject(&"x".repeat(245))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("244 bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_there_is_one_key_and_none_after_it_is_forgotten() {
    let store = MemoryStore::new();
    let handles: Vec<Arc<dyn KeyStore>> =
        (0..4).map(|_| Arc::new(store_keys(&store)) as Arc<dyn KeyStore>).collect();
    let memory: Arc<dyn KeyStore> = Arc::new(MemoryKeys::new());
    for handles in [handles, vec![memory; 4]] {
        for round in 0..50 {
            let ada = subject(&format!("ada-{round}"));
            let asked = handles.iter().cycle().take(8).cloned().map(|keys| {
                let ada = ada.clone();
                tokio::spawn(async move { keys.key(&ada).await })
            });
            let asked: Vec<_> = asked.collect();
            // In every other round, the first handle forgets the subject at the same time.
            let early = round % 2 == 1;
            if early {
                handles[0].forget(&ada).await.unwrap();
            }
            let mut found = Vec::new();
            for asked in asked {
                match asked.await.unwrap() {
                    Ok(key) => found.push(*key.as_bytes()),
                    Err(e) => assert!(early && e.kind() == ErrorKind::Forgotten, "{e}"),
                }
            }
            found.dedup();
            assert!(found.len() == 1 || early && found.is_empty(), "{} keys", found.len());
            handles[0].forget(&ada).await.unwrap();
            assert!(handles[0].find(&ada).await.unwrap().is_none());
            let error = handles[0].key(&ada).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forgotten);
        }
    }
}

#[tokio::test]
async fn keys_in_a_store_outlive_their_handle() {
    let store = MemoryStore::new();
    let (ada, stream) = (subject("ada-1"), stream("person-1"));
    let first = PersonalData::new(Arc::new(store_keys(&store)));
    let data = Payload::binary("x");
    let sealed = first.seal(&stream, event(data.clone()), &ada).await.unwrap();
    let read = recorded(sealed, &stream);

    let second = Arc::new(store_keys(&store).with_max_age(Duration::ZERO));
    let personal = PersonalData::new(second.clone());
    assert_eq!(personal.open(&read).await.unwrap(), Opened::Payload(data));
    let keys = store.load_stream(&self::stream("annals.key-ada-1")).await.unwrap();
    assert_eq!((keys.len(), keys[0].data.len()), (1, 32));
    second.forget(&ada).await.unwrap();
    assert_eq!(personal.open(&read).await.unwrap(), Opened::Forgotten(ada));
    let left: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    assert!(left.is_empty(), "the key is gone from the store");
}

#[tokio::test]
async fn what_is_not_a_key_is_corrupt() {
    let store = MemoryStore::new();
    let event = NewEvent::binary("annals.key", &b"short"[..]).unwrap();
    store.append_to("annals.key-ada", ExpectedVersion::NoStream, [event]).await.unwrap();
    let keys = store_keys(&store);
    assert_eq!(keys.find(&subject("ada")).await.unwrap_err().kind(), ErrorKind::Corrupt);
    store.truncate(&stream("annals.key-ada"), Version::new(2)).await.unwrap();
    assert_eq!(keys.key(&subject("ada")).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn a_key_forgotten_elsewhere_is_used_no_longer_than_said() {
    let store = MemoryStore::new();
    let (ada, here, there) = (subject("ada"), store_keys(&store), store_keys(&store));
    here.key(&ada).await.unwrap();
    advance(Duration::from_secs(40)).await;
    there.key(&ada).await.unwrap();
    there.forget(&ada).await.unwrap();
    assert!(there.find(&ada).await.unwrap().is_none(), "at once where it was forgotten");
    assert!(here.find(&ada).await.unwrap().is_some());
    // Using a cached key does not prolong its time in the cache.
    advance(Duration::from_millis(19_999)).await;
    assert!(here.key(&ada).await.is_ok());
    advance(Duration::from_millis(1)).await;
    assert!(here.find(&ada).await.unwrap().is_none());
    assert_eq!(here.key(&ada).await.unwrap_err().kind(), ErrorKind::Forgotten);
}

#[tokio::test(start_paused = true)]
async fn few_keys_are_kept_in_memory() {
    let store = MemoryStore::new();
    let one = store_keys(&store).with_max_keys(NonZeroUsize::MIN);
    let (ada, bob) = (subject("ada"), subject("bob"));
    one.key(&ada).await.unwrap();
    one.key(&bob).await.unwrap();
    for subject in [&ada, &bob] {
        store_keys(&store).forget(subject).await.unwrap();
    }
    assert!(one.find(&bob).await.unwrap().is_some(), "the last one is kept");
    assert!(one.find(&ada).await.unwrap().is_none(), "the one before is not");
}

#[tokio::test]
async fn a_lost_race_gives_the_key_of_the_winner() {
    let scripted = Scripted::new();
    let (ada, winner) = (subject("ada"), store_keys(&scripted.inner));
    let found = Arc::new(Mutex::new(None));
    let (name, slot) = (ada.clone(), found.clone());
    scripted.before_append(async move {
        *slot.lock().unwrap() = Some(winner.key(&name).await.unwrap());
    });
    let key = StoreKeys::new(scripted.clone()).unwrap().key(&ada).await.unwrap();
    let winner = found.lock().unwrap().take().unwrap();
    assert_eq!(key.as_bytes(), winner.as_bytes());
}

#[tokio::test]
async fn a_key_made_and_forgotten_in_the_meantime_is_forgotten() {
    let scripted = Scripted::new();
    let (ada, other) = (subject("ada"), store_keys(&scripted.inner));
    let name = ada.clone();
    scripted.before_append({
        let (scripted, other) = (scripted.clone(), store_keys(&scripted.inner));
        async move {
            other.key(&name).await.unwrap();
            // Between the append that conflicts and the read of the winner's key.
            let stream = stream("annals.key-ada");
            let inner = scripted.inner.clone();
            scripted.before_read(async move {
                inner.tombstone(&stream, ExpectedVersion::Any).await.unwrap();
            });
        }
    });
    let keys = StoreKeys::new(scripted.clone()).unwrap();
    assert_eq!(keys.key(&ada).await.unwrap_err().kind(), ErrorKind::Forgotten);
    assert_eq!(other.key(&ada).await.unwrap_err().kind(), ErrorKind::Forgotten);
}

#[tokio::test]
async fn a_key_read_before_it_was_forgotten_is_not_kept_after() {
    let scripted = Scripted::new();
    let ada = subject("ada");
    store_keys(&scripted.inner).key(&ada).await.unwrap();
    let keys = Arc::new(StoreKeys::new(scripted.clone()).unwrap());
    let (forgetting, name) = (keys.clone(), ada.clone());
    scripted.after_read(async move { forgetting.forget(&name).await.unwrap() });
    assert!(keys.find(&ada).await.unwrap().is_some(), "it was there when it was read");
    assert!(keys.find(&ada).await.unwrap().is_none());
    assert_eq!(keys.key(&ada).await.unwrap_err().kind(), ErrorKind::Forgotten);
}

#[test]
fn a_store_without_tombstones_is_refused() {
    let mut scripted = Scripted::new();
    Arc::get_mut(&mut scripted).unwrap().capabilities.tombstone = false;
    let error = StoreKeys::new(scripted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("tombstones"), "{error}");
}

#[tokio::test]
async fn debug_output_shows_no_key() {
    for keys in key_stores() {
        let personal = PersonalData::new(keys.clone());
        let key = keys.key(&subject("ada")).await.unwrap();
        let bytes = key.as_bytes();
        let payload = format!("{:?}", Payload::binary(bytes.to_vec()));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let secrets = [
            payload.strip_prefix("Binary ").unwrap().trim_matches(['b', '"']).to_owned(),
            format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
            hex,
        ];
        let shown = format!("{key:?} {key:#?} {keys:?} {keys:#?} {personal:?} {personal:#?}");
        let shown = shown.replace(",\n", ", ");
        assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    }
    assert_eq!(format!("{:?}", Key::from_bytes([7; 32])), "Key(..)");
}

proptest! {
    #[test]
    fn any_data_of_any_subject_opens_as_it_was(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        json: bool,
        name in "[^\\p{Cc}]{1,40}",
        id in "[^\\p{Cc}]{1,40}",
        event_type in "[^\\p{Cc}]{1,40}",
    ) {
        let data = if json { Payload::json(&data).unwrap() } else { Payload::binary(data) };
        let (subject, stream) = (subject(&name), stream(&id));
        let keys = Arc::new(MemoryKeys::new());
        let personal = PersonalData::new(keys.clone());
        let event = NewEvent::new(event_type.parse().unwrap(), data.clone());
        // A store in memory answers without waiting.
        let now = "done at the first poll";
        let sealed = personal.seal(&stream, event, &subject).now_or_never().expect(now).unwrap();
        let read = recorded(sealed, &stream);
        let opened = personal.open(&read).now_or_never().expect(now).unwrap();
        prop_assert_eq!(opened, Opened::Payload(data));
        keys.forget(&subject).now_or_never().expect(now).unwrap();
        let opened = personal.open(&read).now_or_never().expect(now).unwrap();
        prop_assert_eq!(opened, Opened::Forgotten(subject));
    }
}

/// A store in memory that runs a hook once, at a certain moment of a call.
struct Scripted {
    inner: MemoryStore,
    capabilities: Capabilities,
    before_append: Mutex<Step>,
    before_read: Arc<Mutex<Step>>,
    after_read: Arc<Mutex<Step>>,
}

type Step = Option<BoxFuture<'static, ()>>;

async fn run(step: &Mutex<Step>) {
    let step = step.lock().unwrap().take();
    if let Some(step) = step {
        step.await;
    }
}

impl Scripted {
    fn new() -> Arc<Self> {
        let inner = MemoryStore::new();
        let capabilities = inner.capabilities().clone();
        let [before_read, after_read] = <[Arc<Mutex<Step>>; 2]>::default();
        Arc::new(Self {
            inner,
            capabilities,
            before_append: Mutex::default(),
            before_read,
            after_read,
        })
    }

    fn before_append(&self, step: impl Future<Output = ()> + Send + 'static) {
        *self.before_append.lock().unwrap() = Some(step.boxed());
    }

    fn before_read(&self, step: impl Future<Output = ()> + Send + 'static) {
        *self.before_read.lock().unwrap() = Some(step.boxed());
    }

    fn after_read(&self, step: impl Future<Output = ()> + Send + 'static) {
        *self.after_read.lock().unwrap() = Some(step.boxed());
    }
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl EventStore for Scripted {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        run(&self.before_append).await;
        self.inner.append(append).await
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.inner.append_multi(appends).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let (before, after) = (self.before_read.clone(), self.after_read.clone());
        let (inner, stream) = (self.inner.clone(), stream.clone());
        let events = async move {
            run(&before).await;
            let events: Vec<_> = inner.read_stream(&stream, options).collect().await;
            run(&after).await;
            futures::stream::iter(events)
        };
        futures::stream::once(events).flatten().boxed()
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        self.inner.read_all(options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        self.inner.subscribe(options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        self.inner.stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.inner.truncate(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.inner.delete(stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.inner.tombstone(stream, expected).await
    }
}

impl SnapshotStore for Scripted {}
impl CheckpointStore for Scripted {}
impl LeaseStore for Scripted {}

impl TransferStore for Scripted {}
