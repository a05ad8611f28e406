//! Keys in an event store.

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

/// What the stream of a key begins with; the subject follows.
const STREAM_PREFIX: &str = "annals.key-";

const EVENT_TYPE: &str = "annals.key";

/// How long a process may go on with a key that another one has had forgotten.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Some hundred bytes each.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Keys in any store of annals: for each subject a stream `annals.key-<subject>` with one event,
/// which is tombstoned to forget it. A subject may so have at most 244 bytes.
///
/// # Where to keep them
///
/// In a store of their own: whoever reads them reads everything, and a backup made before a subject
/// was forgotten still holds its key. Keep backups of the keys apart from those of the events, and
/// no longer than it may take to forget someone.
///
/// A key is gone from what the store reads when [`KeyStore::forget`] returns; from the store itself
/// when the database has cleaned up. [`Capabilities::removal`](annals_core::Capabilities::removal)
/// says which stores still show it in reads of all until then: with
/// [`Removal::AfterCleanUp`](annals_core::Removal::AfterCleanUp), as EventStoreDB does, someone is
/// forgotten when the next scavenge is through. On the others too the bytes may be left in free
/// pages (SQLite, until `VACUUM`), dead rows and logs (PostgreSQL, until it is vacuumed and the WAL
/// recycled), and restore points (DynamoDB, up to 35 days).
///
/// # How long a forgotten key may still be used
///
/// Keys that were found are kept in memory for 60 seconds from when they were asked for, at most
/// 1024 of them. So a subject that is forgotten through one `StoreKeys` is forgotten at once for
/// all calls through it that begin later, and for every other, in this process or another, 60
/// seconds later. Calls under way end with the key that they have.
///
/// Clone the `Arc` that holds it, so that all share its memory.
pub struct StoreKeys {
    store: Arc<dyn Store>,
    max_age: Duration,
    cache: Mutex<Cache>,
}

struct Cache {
    keys: LruCache<Subject, (Key, Instant)>,
    /// How often anything was forgotten: what was asked for before the last time is not kept.
    forgotten: u64,
}

impl StoreKeys {
    /// Keys in this store.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where it has no tombstones: nothing could be forgotten for ever.
    pub fn new(store: Arc<dyn Store>) -> Result<Self> {
        let capabilities = store.capabilities();
        if !capabilities.tombstone {
            return Err(Error::unsupported("tombstones, with which keys are forgotten")
                .with_backend(capabilities.backend));
        }
        let cache = Cache { keys: LruCache::new(MAX_KEYS), forgotten: 0 };
        Ok(Self { store, max_age: MAX_AGE, cache: Mutex::new(cache) })
    }

    /// Sets how long a key that was found is used without asking the store again, by default 60
    /// seconds; with zero, the store is asked each time.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets how many keys are kept in memory, by default 1024.
    #[must_use]
    pub fn with_max_keys(self, max_keys: NonZeroUsize) -> Self {
        self.cache().keys.resize(max_keys);
        self
    }

    // Every change is made of steps that cannot panic half-way, so a poisoned lock is sound.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, subject: &Subject) -> Option<Key> {
        let mut cache = self.cache();
        let (key, asked) = cache.keys.get(subject)?;
        if asked.elapsed() < self.max_age {
            return Some(key.clone());
        }
        cache.keys.pop(subject);
        None
    }

    /// To be taken before the store is asked.
    fn question(&self) -> Question {
        Question { asked: Instant::now(), forgotten: self.cache().forgotten }
    }

    fn keep(&self, subject: &Subject, key: &Key, question: &Question) {
        let mut cache = self.cache();
        // Else a key that was read before it was forgotten would be kept after.
        if cache.forgotten == question.forgotten && !self.max_age.is_zero() {
            cache.keys.put(subject.clone(), (key.clone(), question.asked));
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

struct Question {
    asked: Instant,
    forgotten: u64,
}

#[async_trait]
impl KeyStore for StoreKeys {
    async fn key(&self, subject: &Subject) -> Result<Key> {
        if let Some(key) = self.find(subject).await? {
            return Ok(key);
        }
        let question = self.question();
        let key = self.create(subject, &stream_of(subject)?).await?;
        self.keep(subject, &key, &question);
        Ok(key)
    }

    async fn find(&self, subject: &Subject) -> Result<Option<Key>> {
        if let Some(key) = self.cached(subject) {
            return Ok(Some(key));
        }
        let question = self.question();
        let key = self.read(&stream_of(subject)?).await?;
        if let Some(key) = &key {
            self.keep(subject, key, &question);
        }
        Ok(key)
    }

    async fn forget(&self, subject: &Subject) -> Result<()> {
        let stream = stream_of(subject)?;
        let outcome = self.store.tombstone(&stream, ExpectedVersion::Any).await;
        {
            // After the tombstone, so that no older answer comes in; on an error too, since it may
            // have been written all the same.
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
    // Not the store: one in memory shows its events, and so the keys.
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
    Error::new(ErrorKind::Corrupt, "the stream of a key does not hold one").with_stream(stream)
}
