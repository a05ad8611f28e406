//! Streams that were deleted and are written to again. EventStoreDB then writes where the stream begins
//! to the stream's metadata, as one more event.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{
    Append, ContentKind, Error, NewEvent, Payload, RecordedEvent, Store, StreamId, Version,
};
use lru::LruCache;

use crate::{metadata, names::type_from_wire};

/// How many streams are remembered, in about 10 MB.
const STREAMS: NonZeroUsize = NonZeroUsize::new(200_000).unwrap();

/// Remembers streams whose metadata does not say that they are deleted, so that it is read once for
/// each stream that is in use. A stream is remembered by its hash.
#[derive(Debug)]
pub(super) struct Revivals {
    live: Mutex<LruCache<u64, ()>>,
    hasher: RandomState,
}

impl Revivals {
    pub(super) fn new() -> Self {
        // The cache grows as it is used.
        let mut live = LruCache::unbounded();
        live.resize(STREAMS);
        Self { live: Mutex::new(live), hasher: RandomState::new() }
    }

    /// Notes that a stream was deleted.
    pub(super) fn deleted(&self, stream: &StreamId) {
        self.lock().pop(&self.hasher.hash_one(stream));
    }

    /// Called after an append whose first event got the version `first`.
    pub(super) async fn appended(&self, store: &dyn Store, stream: &StreamId, first: Version) {
        let key = self.hasher.hash_one(stream);
        if first.get() > 1 && self.lock().get(&key).is_some() {
            return;
        }
        // A stream that was deleted never begins at version 1.
        if first.get() > 1
            && let Err(error) = revive(store, stream, first.minus(1)).await
        {
            // Clients see the events even so: the mark of a deletion hides none.
            tracing::warn!(%stream, %error, "could not write where a revived stream begins");
            return;
        }
        self.lock().put(key, ());
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<u64, ()>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to the metadata of a stream that it has no events up to the version `hidden`, if the metadata
/// says that the stream is deleted.
pub(super) async fn revive(
    store: &dyn Store,
    stream: &StreamId,
    hidden: Version,
) -> Result<(), Error> {
    match metadata::current(store, stream).await? {
        Some(last) if metadata::means_deleted(&last) => {
            write(store, &last, metadata::truncated(hidden.get()).to_string().into()).await
        }
        _ => Ok(()),
    }
}

/// After the metadata of a stream that is deleted was replaced by `last`: adds where the stream begins.
/// The stream is not deleted any more.
pub(super) async fn revive_by_metadata(
    store: &dyn Store,
    last: &RecordedEvent,
    hidden: Version,
) -> Result<(), Error> {
    write(store, last, metadata::with_truncate_before(last.data.bytes(), hidden.get())).await
}

/// Writes metadata behind `last`.
async fn write(store: &dyn Store, last: &RecordedEvent, json: Vec<u8>) -> Result<(), Error> {
    let Ok(event_type) = type_from_wire(metadata::TYPE) else { return Ok(()) };
    let event = NewEvent::new(event_type, Payload::from_stored(ContentKind::Json, json));
    let append = Append::new(last.stream.clone(), last.version, [event]);
    match store.append(append).await {
        // Somebody else has written metadata meanwhile.
        Err(error) if error.conflict().is_some() => Ok(()),
        result => result.map(drop),
    }
}
