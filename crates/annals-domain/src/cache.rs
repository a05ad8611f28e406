//! The states of the aggregates that were used last.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use annals_core::StreamId;
use lru::LruCache;
use tokio::sync::Mutex;

/// The state of one aggregate, which one command at a time works on. `None` if it was not loaded
/// yet, or if the last load failed.
type Slot<S> = Arc<Mutex<Option<S>>>;

pub(crate) struct Cache<S> {
    slots: StdMutex<LruCache<StreamId, Slot<S>>>,
}

impl<S> Cache<S> {
    pub(crate) fn new(aggregates: NonZeroUsize) -> Self {
        Self { slots: StdMutex::new(LruCache::new(aggregates)) }
    }

    /// The slot of an aggregate. If a slot is evicted while a command uses it, the aggregate may get
    /// a second one; commands in the two then conflict as if they ran in two processes.
    pub(crate) fn slot(&self, stream: &StreamId) -> Slot<S> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get_or_insert_ref(stream, Slot::default).clone()
    }

    pub(crate) fn forget(&self, stream: &StreamId) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop(stream);
    }
}
