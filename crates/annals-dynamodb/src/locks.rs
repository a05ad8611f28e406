//! Locks on streams, so that a store sends one append to a stream at a time.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use annals_core::{Append, StreamId};
use tokio::sync::{Mutex, MutexGuard};

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

    /// Waits until no other append of this store writes to any of the streams.
    pub(crate) async fn lock(&self, appends: &[Append]) -> Vec<MutexGuard<'_, ()>> {
        // Take each lock once and in a fixed order, so that two appends never wait for each other.
        let wanted: BTreeSet<_> = appends.iter().map(|append| self.index(&append.stream)).collect();
        let mut guards = Vec::with_capacity(wanted.len());
        for index in wanted {
            if let Some(lock) = self.locks.get(index) {
                guards.push(lock.lock().await);
            }
        }
        guards
    }

    fn index(&self, stream: &StreamId) -> usize {
        usize::try_from(self.hasher.hash_one(stream) % LOCKS).unwrap_or(0)
    }
}
