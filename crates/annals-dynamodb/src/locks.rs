//! Locks on streams, so that a store sends one append to a stream at a time.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use annals_core::StreamId;
use tokio::{
    runtime::Handle,
    sync::{Mutex, MutexGuard},
};

/// So many that two streams which are written to at the same time rarely share a lock.
const LOCKS: u64 = 1_024;

/// Locks on streams. They only save requests: concurrent appends to one stream would make each
/// other fail and be tried again. No rule depends on them.
#[derive(Debug)]
pub(crate) struct StreamLocks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl StreamLocks {
    pub(crate) fn new() -> Self {
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        Self { locks, hasher: RandomState::new() }
    }

    /// Waits until no other append of this store, on this runtime, writes to any of the streams.
    pub(crate) async fn lock(
        &self,
        streams: impl IntoIterator<Item = &StreamId>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let wanted = self.wanted(streams);
        let mut guards = Vec::new();
        for lock in wanted {
            guards.push(lock.lock().await);
        }
        guards
    }

    /// Locks the streams if no other append writes to any of them or waits for it.
    pub(crate) fn try_lock<'a>(
        &self,
        streams: impl IntoIterator<Item = &'a StreamId>,
    ) -> Option<Vec<MutexGuard<'_, ()>>> {
        self.wanted(streams).map(|lock| lock.try_lock().ok()).collect()
    }

    /// The locks of the streams: each once and in a fixed order, so that two appends never wait for each
    /// other. A runtime has locks of its own, because the holder of a lock stands still if nobody drives
    /// its runtime any more.
    fn wanted<'a>(
        &self,
        streams: impl IntoIterator<Item = &'a StreamId>,
    ) -> impl Iterator<Item = &Mutex<()>> {
        let runtime = Handle::current().id();
        let indexes = streams.into_iter().map(|stream| {
            usize::try_from(self.hasher.hash_one((runtime, stream)) % LOCKS).unwrap_or(0)
        });
        let indexes: BTreeSet<_> = indexes.collect();
        indexes.into_iter().filter_map(|index| self.locks.get(index))
    }
}
