//! Reading slots one after the other.

use std::{collections::BTreeMap, sync::Arc};

use annals_core::Result;
use tokio::time::Instant;

use super::slots::Log;
use crate::item::Slot;

/// What slots are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A read, which must not get events that were removed before.
    Read,
    /// A subscription, which may get events that were removed a moment ago.
    Follow,
    /// To find out that they are written. What is in them does not matter.
    Settle,
}

/// Reads slots in the order of their numbers, and leaves none out: it waits for an empty slot, or
/// closes it, if a later slot is written.
#[derive(Debug)]
pub(crate) struct SlotReader {
    log: Arc<Log>,
    /// The number of the slot that is returned next.
    pub(crate) next: u64,
    /// The last slot to read.
    pub(super) to: u64,
    /// Slots that were read and not returned yet.
    read: BTreeMap<u64, Slot>,
    /// The last slot that was asked for.
    read_to: u64,
    /// How many slots to read at once.
    window: u64,
    purpose: Purpose,
    /// Since when this reader knows that the next slot is empty and a later one is not.
    missing_since: Option<Instant>,
}

impl SlotReader {
    /// Reads from `next` up to `to`, at first only about as many slots as are wanted at least, and
    /// then twice as many each time.
    pub(crate) fn new(log: Arc<Log>, next: u64, to: u64, wanted: u64) -> Self {
        let (window, read) = (log.window(wanted), BTreeMap::new());
        let (read_to, missing_since) = (next - 1, None);
        Self { log, next, to, read, read_to, window, purpose: Purpose::Read, missing_since }
    }

    /// Reads for a subscription: what is settled for half the price, and the end of the log together with
    /// the other subscriptions of the process.
    pub(crate) fn following(mut self) -> Self {
        self.purpose = Purpose::Follow;
        self
    }

    /// Reads slots only to settle the log: for half the price.
    pub(crate) fn settling(mut self) -> Self {
        self.purpose = Purpose::Settle;
        self
    }

    /// Reads on up to `to`, and asks once more for slots that were empty.
    pub(crate) fn extend(&mut self, to: u64) {
        self.to = self.to.max(to);
        if self.read.is_empty() {
            self.read_to = self.next - 1;
        }
    }

    /// Whether a slot up to `to` had not been written when it was last read.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.next <= self.to
    }

    /// The next slot; `None` if all slots from there up to `to` are empty.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Slot)>> {
        loop {
            if let Some(slot) = self.read.remove(&self.next) {
                let number = self.next;
                self.next += 1;
                self.log.settle_next(number);
                return Ok(Some((number, slot)));
            }
            if !self.read.is_empty() {
                let slot = self.wait_for_next().await?;
                self.read.insert(self.next, slot);
            } else if self.read_to < self.to {
                let (from, to) = (self.read_to + 1, self.to.min(self.read_to + self.window));
                self.window = self.log.window(self.window * 2);
                let settled = self.log.settled();
                (self.read, self.read_to) = match self.purpose {
                    Purpose::Follow if self.log.is_short(from, to) => {
                        (self.log.read_tail(from, to).await?, to)
                    }
                    Purpose::Follow if from <= settled => {
                        let to = to.min(settled);
                        (self.log.read_cheaply(from, to).await?, to)
                    }
                    Purpose::Settle => (self.log.read_cheaply(from, to).await?, to),
                    Purpose::Read | Purpose::Follow => (self.log.read(from, to).await?, to),
                };
                self.missing_since = None;
            } else {
                return Ok(None);
            }
        }
    }

    /// Waits until the next slot, which is empty although a later one is not, is written or closed.
    async fn wait_for_next(&mut self) -> Result<Slot> {
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        self.log.wait_for(self.next, since).await
    }
}
