//! Aggregates that were used a short while ago.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use annals_core::StreamId;
use lru::LruCache;
use tokio::sync::Mutex;

use crate::load::Loaded;

/// One aggregate, which one command at a time works on; none that was loaded yet, or since a load
/// failed.
type Place<S> = Arc<Mutex<Option<Loaded<S>>>>;

pub(crate) struct Cache<S> {
    places: StdMutex<LruCache<StreamId, Place<S>>>,
}

impl<S> Cache<S> {
    pub(crate) fn new(aggregates: NonZeroUsize) -> Self {
        Self { places: StdMutex::new(LruCache::new(aggregates)) }
    }

    /// The place of an aggregate. One that is pushed out while it is in use may get a second place:
    /// then the two conflict as if they were in two processes.
    pub(crate) fn place(&self, stream: &StreamId) -> Place<S> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get_or_insert_ref(stream, Place::default).clone()
    }

    pub(crate) fn forget(&self, stream: &StreamId) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).pop(stream);
    }
}
