//! Remembers recent appends under `Any` and `StreamExists`, so that a retry of one is recognised
//! also if other appends to its stream came in between.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{
    Append, Appended, Error, ExpectedVersion, ReadStream, Recognition, RecordedEvent, Store,
    StreamId, TryStreamExt, Version,
};
use lru::LruCache;
use uuid::Uuid;

/// How many appends are remembered: those of some seconds, in which applications retry.
const APPENDS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The first version of each append, by its stream and the id of its first event.
type Versions = LruCache<(StreamId, Uuid), Version>;

#[derive(Debug)]
pub(super) struct RecentAppends {
    /// `None` if the store itself guarantees that it recognises every retry.
    versions: Option<Mutex<Versions>>,
}

impl RecentAppends {
    pub(super) fn new(store: &dyn Store) -> Self {
        let guaranteed = store.capabilities().retry_recognition == Recognition::Guaranteed;
        if !guaranteed {
            tracing::info!(
                "the store does not recognise every retry of an append to any revision; the \
                 gateway recognises those of the last {APPENDS} such appends since it started"
            );
        }
        Self { versions: (!guaranteed).then(|| Mutex::new(LruCache::new(APPENDS))) }
    }

    /// The key of an append that is to be remembered.
    pub(super) fn key(&self, append: &Append) -> Option<(StreamId, Uuid)> {
        self.versions.as_ref()?;
        match append.expected {
            ExpectedVersion::Any | ExpectedVersion::StreamExists => {
                Some((append.stream.clone(), append.events.first()?.id()))
            }
            _ => None,
        }
    }

    pub(super) fn remember(&self, key: Option<(StreamId, Uuid)>, appended: &Appended) {
        if let (Some(key), Some(mut versions)) = (key, self.lock()) {
            versions.put(key, appended.first_version);
        }
    }

    /// The last event of this append, if the append was made before and its events are still there.
    pub(super) async fn replayed(
        &self,
        store: &dyn Store,
        append: &Append,
    ) -> Result<Option<RecordedEvent>, Error> {
        let Some(key) = self.key(append) else { return Ok(None) };
        let Some(first) = self.lock().and_then(|mut versions| versions.get(&key).copied()) else {
            return Ok(None);
        };
        let count = append.events.len() as u64;
        let options = ReadStream::default().with_from(first).with_limit(count);
        let events: Vec<_> = store.read_stream(&append.stream, options).try_collect().await?;
        let found = events.iter().map(|event| (event.version.get(), event.id));
        let ids = append.events.iter().map(|event| event.id());
        let same = found.eq((first.get()..).zip(ids));
        Ok(events.into_iter().next_back().filter(|_| same))
    }

    fn lock(&self) -> Option<MutexGuard<'_, Versions>> {
        Some(self.versions.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
