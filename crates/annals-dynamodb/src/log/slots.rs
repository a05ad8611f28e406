//! The slots: reading them, and closing empty ones.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::Result;
use futures::future::try_join_all;

use super::{share::Questions, tail::LogTail};
use crate::{
    error::internal,
    item::{Item, Key, Slot, sort},
    table::{Condition, KeyRange, Table, WriteOutcome},
};

/// The most slots of each stripe that are read at once. A query is charged by 4 KB, rounded up once
/// for each stripe, so that few small queries would cost more.
const WINDOW: u64 = 128;

/// The log of a store.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) table: Table,
    /// Over how many partitions the log spreads.
    pub(crate) stripes: u64,
    /// How long a reader waits for an empty slot before it closes the slot.
    pub(crate) close_after: Duration,
    /// Every slot up to this one is written or closed, and so will never change.
    settled: AtomicU64,
    /// The value of `settled` in the table, as this process knows it.
    pub(super) settled_in_table: AtomicU64,
    /// For each stripe, how many times `close_after` was doubled.
    pub(super) patience: Box<[AtomicU32]>,
    /// The waits for slots that stay empty.
    pub(super) waits: Questions<u64, Slot>,
    pub(super) tail: LogTail,
}

impl Log {
    pub(crate) fn new(table: Table, stripes: u64, close_after: Duration) -> Self {
        let (settled, settled_in_table) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            table,
            stripes,
            close_after,
            patience: (0..stripes).map(|_| AtomicU32::new(0)).collect(),
            settled,
            settled_in_table,
            waits: Questions::default(),
            tail: LogTail::default(),
        }
    }

    /// The last slot up to which every slot is known to be written or closed.
    pub(super) fn settled(&self) -> u64 {
        self.settled.load(SeqCst)
    }

    pub(super) fn raise_settled(&self, slot: u64) {
        self.settled.fetch_max(slot, SeqCst);
    }

    /// Notes that a slot is written or closed. A reader that began further on does not know about
    /// the slots before, so that only the successor of the last settled slot counts.
    pub(super) fn settle_next(&self, slot: u64) {
        // An error means that the slot is not that successor.
        let _ = self.settled.compare_exchange(slot - 1, slot, SeqCst, SeqCst);
    }

    /// Closes in the background a slot that the caller will not use, so that no reader waits for
    /// it. If that fails, a reader closes the slot.
    pub(crate) fn abandon(self: &Arc<Self>, slot: u64) {
        let log = self.clone();
        tokio::spawn(async move {
            if let Err(error) = log.close(slot).await {
                tracing::debug!(slot, %error, "an unused slot could not be closed");
            }
        });
    }

    /// Closes a slot if it is empty, and returns its final content.
    pub(super) async fn close(&self, slot: u64) -> Result<Slot> {
        let item = self.item(slot, &Slot::Void);
        match self.table.put(&item, &Condition::absent()).await? {
            WriteOutcome::Written => Ok(Slot::Void),
            WriteOutcome::Refused(found) => Slot::of(&found),
        }
    }

    /// The item of a slot with this content.
    pub(crate) fn item(&self, number: u64, slot: &Slot) -> Item {
        let mut item = Key::slot(number, self.stripes).to_item();
        let (name, value) = slot.to_attribute();
        item.insert(name.to_owned(), value);
        item
    }

    /// Whether a range has at most one slot of each stripe.
    pub(crate) fn is_short(&self, from: u64, to: u64) -> bool {
        to < from + self.stripes
    }

    /// Reads the slots of a range that are not empty, by number.
    pub(crate) async fn read(&self, from: u64, to: u64) -> Result<BTreeMap<u64, Slot>> {
        if !self.is_short(from, to) {
            return self.query(from, to, true).await;
        }
        // One request for all slots costs the same as a query of each stripe.
        let keys: Vec<_> = (from..=to).map(|slot| Key::slot(slot, self.stripes)).collect();
        slots(self.table.get_all(&keys).await?.values())
    }

    /// Reads the slots of a range that are not empty, for half the price if all are written: the answer
    /// may still have events that were removed a moment ago. What is missing in it is asked for again,
    /// since the copy of the table that has answered may not have it yet.
    pub(super) async fn read_cheaply(&self, from: u64, to: u64) -> Result<BTreeMap<u64, Slot>> {
        let mut found = self.query(from, to, false).await?;
        let mut missing = (from..=to).filter(|slot| !found.contains_key(slot));
        if let Some(first) = missing.next() {
            let last = missing.next_back().unwrap_or(first);
            found.extend(self.read(first, last).await?);
        }
        Ok(found)
    }

    async fn query(&self, from: u64, to: u64, consistent: bool) -> Result<BTreeMap<u64, Slot>> {
        let stripes = (from..=to).take(usize::try_from(self.stripes).unwrap_or(usize::MAX));
        let queries = stripes.map(|slot| {
            let stripe = Key::stripe_partition(slot % self.stripes);
            let range = KeyRange::new(stripe, sort(from), sort(to));
            self.table.query_all(if consistent { range } else { range.eventually() })
        });
        slots(try_join_all(queries).await?.iter().flatten())
    }

    /// How many slots to read at once for a reader that wants so many.
    pub(crate) fn window(&self, wanted: u64) -> u64 {
        wanted.clamp(self.stripes, WINDOW * self.stripes)
    }
}

fn slots<'a>(items: impl Iterator<Item = &'a Item>) -> Result<BTreeMap<u64, Slot>> {
    items.map(|item| Ok((slot_number(item)?, Slot::of(item)?))).collect()
}

pub(super) fn slot_number(item: &Item) -> Result<u64> {
    u64::try_from(Key::of(item)?.sort)
        .map_err(|e| internal("a slot has a negative number").with_source(e))
}
