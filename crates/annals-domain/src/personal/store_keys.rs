//! A key store on top of an event store.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use annals_core::{
    Append, Error, ErrorKind, ExpectedVersion, NewEvent, Payload, ReadStream, Result, Store,
    StreamId, StreamState, TryStreamExt,
};
use async_trait::async_trait;
use lru::LruCache;
use tokio::time::Instant;

use super::{Key, KeyStore, Subject, keys::forgotten};

/// The name of a key's stream begins with this. The subject follows.
const STREAM_PREFIX: &str = "annals.key-";

const EVENT_TYPE: &str = "annals.key";

/// How long a process may go on using a key after another process has forgotten the subject.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How many keys to cache. A key takes a few hundred bytes.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A key store on top of any annals store. Each subject has a stream `annals.key-<subject>` with one
/// event, which holds the key. To forget the subject, the stream is tombstoned. The name of a subject
/// may have at most 244 bytes.
///
/// ```
/// # use annals_core::Result;
/// # use annals_memory::MemoryStore;
/// use std::sync::Arc;
/// use annals_domain::personal::{KeyStore, StoreKeys, Subject};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// # let store_of_keys = MemoryStore::new();
/// let keys = StoreKeys::new(Arc::new(store_of_keys))?; // not the store of the events
/// keys.forget(&Subject::new("customer-7")?).await?;
/// # Ok(()) }
/// ```
///
/// # Where to keep keys
///
/// Keep keys in a store of their own. Anybody who can read the keys can read all personal data, and a
/// backup made before a subject was forgotten still contains its key. So keep backups of the keys
/// apart from those of the events, and delete them within the time in which a person must be
/// forgotten.
///
/// When [`KeyStore::forget`] returns, the key cannot be read through the store any more, with one
/// exception: a store whose [`Capabilities::removal`](annals_core::Capabilities::removal) is
/// [`Removal::AfterCleanUp`](annals_core::Removal::AfterCleanUp), such as EventStoreDB, shows it in
/// reads of all until the next scavenge has run. The bytes of the key may stay longer in the database:
/// in free pages of SQLite (until `VACUUM`), in dead rows and logs of PostgreSQL (until it is vacuumed
/// and the WAL recycled), and in restore points of DynamoDB (up to 35 days).
///
/// # How long a forgotten key may still be used
///
/// A `StoreKeys` caches up to 1024 keys, each for 60 seconds from when it was requested. A subject
/// that is forgotten through one `StoreKeys` is forgotten at once for later calls to the same
/// `StoreKeys`, and within 60 seconds for every other one, in this process or another. Calls that are
/// running end with the key that they have.
///
/// To share the cache, clone the `Arc` that holds the `StoreKeys`.
pub struct StoreKeys {
    store: Arc<dyn Store>,
    max_age: Duration,
    cache: Mutex<Cache>,
}

struct Cache {
    keys: LruCache<Subject, (Key, Instant)>,
    /// How often a subject was forgotten. A key that was requested before the last time is not
    /// cached.
    forgotten: u64,
}

impl StoreKeys {
    /// A key store on top of this store.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the store has no tombstones, by which keys are forgotten.
    pub fn new(store: Arc<dyn Store>) -> Result<Self> {
        let capabilities = store.capabilities();
        if !capabilities.tombstone {
            return Err(Error::unsupported("tombstones, by which keys are forgotten")
                .with_backend(capabilities.backend));
        }
        let cache = Cache { keys: LruCache::new(MAX_KEYS), forgotten: 0 };
        Ok(Self { store, max_age: MAX_AGE, cache: Mutex::new(cache) })
    }

    /// Sets how long a key is cached: 60 seconds by default. With zero, each call reads the key from
    /// the store.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets how many keys are cached: 1024 by default.
    #[must_use]
    pub fn with_max_keys(self, max_keys: NonZeroUsize) -> Self {
        self.cache().keys.resize(max_keys);
        self
    }

    // No change can panic half-way, so the cache is consistent even if a thread panicked while it held
    // the lock.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, subject: &Subject) -> Option<Key> {
        let mut cache = self.cache();
        let (key, requested) = cache.keys.get(subject)?;
        if requested.elapsed() < self.max_age {
            return Some(key.clone());
        }
        cache.keys.pop(subject);
        None
    }

    /// Call this before a key is requested from the store.
    fn begin_request(&self) -> Request {
        Request { began: Instant::now(), forgotten: self.cache().forgotten }
    }

    /// Caches the result of a request.
    fn remember(&self, subject: &Subject, key: &Key, request: &Request) {
        let mut cache = self.cache();
        // If a subject was forgotten during the request, the key may be that of this subject.
        if cache.forgotten == request.forgotten && !self.max_age.is_zero() {
            cache.keys.put(subject.clone(), (key.clone(), request.began));
        }
    }

    async fn read(&self, stream: &StreamId) -> Result<Option<Key>> {
        let options = ReadStream::default().with_limit(1);
        let Some(event) = self.store.read_stream(stream, options).try_next().await? else {
            return Ok(None);
        };
        match <[u8; Key::LEN]>::try_from(event.data.bytes().as_ref()) {
            Ok(bytes) => Ok(Some(Key::from_bytes(bytes))),
            Err(_) => Err(not_a_key(stream)),
        }
    }

    async fn create(&self, subject: &Subject, stream: &StreamId) -> Result<Key> {
        let key = Key::random()?;
        let event = NewEvent::new(EVENT_TYPE.parse()?, Payload::binary(key.as_bytes().to_vec()));
        let append = Append::new(stream.clone(), ExpectedVersion::NoStream, [event]);
        let error = match self.store.append(append).await {
            Ok(_) => return Ok(key),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::StreamClosed => Err(forgotten(subject)),
            ErrorKind::Conflict => match self.read(stream).await? {
                Some(winner) => Ok(winner),
                None => match self.store.stream_info(stream).await?.state {
                    StreamState::Tombstoned => Err(forgotten(subject)),
                    _ => Err(not_a_key(stream)),
                },
            },
            _ => Err(error),
        }
    }
}

/// A request for a key to the store.
struct Request {
    began: Instant,
    /// The value of [`Cache::forgotten`] when the request began.
    forgotten: u64,
}

#[async_trait]
impl KeyStore for StoreKeys {
    async fn key(&self, subject: &Subject) -> Result<Key> {
        if let Some(key) = self.find(subject).await? {
            return Ok(key);
        }
        let request = self.begin_request();
        let key = self.create(subject, &stream_of(subject)?).await?;
        self.remember(subject, &key, &request);
        Ok(key)
    }

    async fn find(&self, subject: &Subject) -> Result<Option<Key>> {
        if let Some(key) = self.cached(subject) {
            return Ok(Some(key));
        }
        let request = self.begin_request();
        let key = self.read(&stream_of(subject)?).await?;
        if let Some(key) = &key {
            self.remember(subject, key, &request);
        }
        Ok(key)
    }

    async fn is_forgotten(&self, subject: &Subject) -> Result<bool> {
        let info = self.store.stream_info(&stream_of(subject)?).await?;
        Ok(info.state == StreamState::Tombstoned)
    }

    async fn forget(&self, subject: &Subject) -> Result<()> {
        let stream = stream_of(subject)?;
        let outcome = self.store.tombstone(&stream, ExpectedVersion::Any).await;
        {
            // After the tombstone, so that no answer from before it gets into the cache. On an error
            // too, since the tombstone may have been written all the same.
            let mut cache = self.cache();
            cache.keys.pop(subject);
            cache.forgotten += 1;
        }
        match outcome {
            Err(error) if error.kind() != ErrorKind::StreamClosed => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for StoreKeys {
    // The store is left out: the `Debug` output of a store in memory shows events, and so the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKeys")
            .field("backend", &self.store.capabilities().backend)
            .field("max_age", &self.max_age)
            .field("max_keys", &self.cache().keys.cap())
            .finish_non_exhaustive()
    }
}

fn stream_of(subject: &Subject) -> Result<StreamId> {
    StreamId::new(format!("{STREAM_PREFIX}{subject}")).map_err(|e| {
        let most = annals_core::MAX_NAME_BYTES - STREAM_PREFIX.len();
        let message = format!("the subject {subject:?} is too long: use at most {most} bytes");
        Error::new(ErrorKind::InvalidInput, message).with_source(e)
    })
}

fn not_a_key(stream: &StreamId) -> Error {
    let message = "this stream must hold a key, and its first event is not one";
    Error::new(ErrorKind::Corrupt, message).with_stream(stream)
}
