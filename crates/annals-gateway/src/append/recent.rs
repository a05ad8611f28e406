//! Remembers the events that were appended lately, so that a retry under `Any` or `StreamExists` is
//! recognised as EventStoreDB recognises one: by the ids of its events, in whatever order, and also if
//! other appends to the stream came in between.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{
    Append, Error, ExpectedVersion, ReadStream, Recognition, RecordedEvent, Store, StreamId,
    TryStreamExt, Version,
};
use lru::LruCache;
use uuid::Uuid;

/// How many events are remembered: those of some seconds, in which applications retry.
const EVENTS: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();

/// What the events of an append are to their stream.
pub(super) enum Known {
    /// The first event is new, so all of them are.
    No,
    /// All of them are there. With the last one in the order of the append.
    All(RecordedEvent),
    /// The first one is there, and another is not.
    Some,
}

#[derive(Debug)]
pub(super) struct RecentEvents {
    /// Each event's version, by the hash of its stream and its id.
    versions: Mutex<LruCache<(u64, Uuid), Version>>,
    hasher: RandomState,
}

impl RecentEvents {
    pub(super) fn new(store: &dyn Store) -> Self {
        if store.capabilities().retry_recognition != Recognition::Guaranteed {
            tracing::info!(
                "the store does not recognise every retry of an append to any revision; the \
                 gateway recognises those of the last {EVENTS} events since it started"
            );
        }
        Self { versions: Mutex::new(LruCache::new(EVENTS)), hasher: RandomState::new() }
    }

    pub(super) fn remember(
        &self,
        stream: &StreamId,
        ids: impl IntoIterator<Item = Uuid>,
        first: Version,
    ) {
        let (stream, mut versions) = (self.hasher.hash_one(stream), self.lock());
        for (id, version) in ids.into_iter().zip(first.get()..) {
            versions.put((stream, id), version.into());
        }
    }

    /// Looks for the events of an append under `Any` or `StreamExists` that was perhaps made before.
    /// Events that were removed since are not there.
    pub(super) async fn known(&self, store: &dyn Store, append: &Append) -> Result<Known, Error> {
        if !matches!(append.expected, ExpectedVersion::Any | ExpectedVersion::StreamExists) {
            return Ok(Known::No);
        }
        let Some(versions) = self.versions_of(append) else { return Ok(Known::No) };
        let there = read(store, &append.stream, versions.iter().flatten().copied()).await?;
        let found = append.events.iter().zip(&versions).map(|(event, version)| {
            version.and_then(|version| there.get(&version)).filter(|found| found.id == event.id())
        });
        let found: Vec<_> = found.collect();
        Ok(match (found.first(), found.last()) {
            (Some(Some(_)), Some(Some(last))) if found.iter().all(Option::is_some) => {
                Known::All((*last).clone())
            }
            (Some(Some(_)), _) => Known::Some,
            _ => Known::No,
        })
    }

    /// The version that each event of an append had. `None` if the first event is not remembered.
    fn versions_of(&self, append: &Append) -> Option<Vec<Option<Version>>> {
        let (stream, mut versions) = (self.hasher.hash_one(&append.stream), self.lock());
        versions.get(&(stream, append.events.first()?.id()))?;
        let mut version = |id| versions.get(&(stream, id)).copied();
        Some(append.events.iter().map(|event| version(event.id())).collect())
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(u64, Uuid), Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events at these versions. Those that stand next to each other are read together.
async fn read(
    store: &dyn Store,
    stream: &StreamId,
    versions: impl Iterator<Item = Version>,
) -> Result<HashMap<Version, RecordedEvent>, Error> {
    let mut versions: Vec<_> = versions.collect();
    versions.sort();
    versions.dedup();
    let mut there = HashMap::new();
    for run in versions.chunk_by(|one, next| one.plus(1) == *next) {
        let Some(first) = run.first() else { continue };
        let options = ReadStream::default().with_from(*first).with_limit(run.len() as u64);
        let events: Vec<_> = store.read_stream(stream, options).try_collect().await?;
        there.extend(events.into_iter().map(|event| (event.version, event)));
    }
    Ok(there)
}
