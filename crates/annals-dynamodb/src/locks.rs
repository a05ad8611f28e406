//! One append at a time to a stream, within this store.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use annals_core::{Append, StreamId};
use tokio::sync::{Mutex, MutexGuard};

/// So many that two streams which are written to at the same time rarely meet.
const LOCKS: u64 = 1_024;

/// Appends to one stream would only make each other fail, and be tried again. What is correct does
/// not depend on this.
#[derive(Debug)]
pub(crate) struct Locks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub(crate) fn new() -> Self {
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        Self { locks, hasher: RandomState::new() }
    }

    /// Waits until nobody else writes to any of the streams.
    pub(crate) async fn lock(&self, appends: &[Append]) -> Vec<MutexGuard<'_, ()>> {
        // Each once and in the same order everywhere, or two could wait for each other.
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
