//! The end of the log, which the subscriptions of a process read together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use annals_core::Result;
use tokio::time::Instant;

use super::{share::Questions, slots::Log};
use crate::item::Slot;

/// For how long the slots that were read last are given to other subscriptions. Events that another process
/// removes meanwhile are still in them.
const FRESH: Duration = Duration::from_secs(1);

/// A range of slots, both ends included.
type Range = (u64, u64);
type Slots = Arc<BTreeMap<u64, Slot>>;

/// The slots at the end of the log, and the requests for them.
#[derive(Debug, Default)]
pub(super) struct LogTail {
    asked: Questions<Range, Slots>,
    last: Mutex<LastRead>,
}

#[derive(Debug, Default)]
struct LastRead {
    /// The last range of which each slot was written, and when it was read.
    slots: Option<(Instant, Range, Slots)>,
    /// How many removals this process has made: what was read before one is not kept.
    removals: u64,
}

impl LogTail {
    fn last(&self) -> MutexGuard<'_, LastRead> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was read, because this process has removed events from it.
    pub(super) fn forget(&self) {
        let mut last = self.last();
        last.slots = None;
        last.removals += 1;
        self.asked.forget();
    }

    fn known(&self, (from, to): Range) -> Option<BTreeMap<u64, Slot>> {
        let last = self.last();
        let (at, (first, end), slots) = last.slots.as_ref()?;
        let covers = *first <= from && to <= *end && at.elapsed() < FRESH;
        covers.then(|| slots.range(from..=to).map(|(slot, it)| (*slot, it.clone())).collect())
    }
}

impl Log {
    /// Notes that this process has removed events from slots.
    pub(crate) fn removed(&self) {
        self.tail.forget();
    }

    /// Reads slots at the end of the log, for subscriptions that are woken at the same time.
    pub(super) async fn read_tail(
        self: &Arc<Self>,
        from: u64,
        to: u64,
    ) -> Result<BTreeMap<u64, Slot>> {
        if let Some(known) = self.tail.known((from, to)) {
            return Ok(known);
        }
        let log = self.clone();
        let slots = self.tail.asked.ask((from, to), || async move {
            let removals = log.tail.last().removals;
            let slots = Arc::new(log.read(from, to).await?);
            let mut last = log.tail.last();
            // A slot that is still empty has to be read again.
            if slots.len() as u64 == to + 1 - from && last.removals == removals {
                last.slots = Some((Instant::now(), (from, to), slots.clone()));
            }
            drop(last);
            Ok(slots)
        });
        Ok(BTreeMap::clone(&*slots.await?))
    }
}
