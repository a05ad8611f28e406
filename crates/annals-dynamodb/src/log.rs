//! The order over all streams: a log of slots, each of which is written once, by one transaction
//! together with the events, or closed by a reader who found it empty.
//!
//! `docs/adr/0005-dynamodb.md` has the reasoning.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::Result;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{
    commit::Queue,
    error::internal,
    item::{Item, Key, Slot, sort},
    notify::Notifier,
    table::{Condition, Range, Table, Written, count},
};

/// How many slots of each stripe are read at once: what is read is charged by 4 KB, rounded up once
/// for each stripe.
const WINDOW: u64 = 128;
/// How often a slot that is empty is looked at again, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// After so many slots, a writer looks whether any was left empty, so that nobody has to look at
/// more.
const SETTLE_EVERY: u64 = 1_024;
/// Of so many settled slots the table is told, so that other processes need not look again.
const SAY_EVERY: u64 = 256;

/// The log of a store.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) table: Table,
    /// Over how many partitions it spreads.
    pub(crate) stripes: u64,
    pub(crate) writers: usize,
    pub(crate) queue: Queue,
    pub(crate) notifier: Arc<Notifier>,
    /// How long a slot may be empty before a reader closes it.
    close_after: Duration,
    /// Every slot up to this one is written or closed: a fact, and one that stays.
    settled: AtomicU64,
    /// What the table says of it.
    settled_in_table: AtomicU64,
}

impl Log {
    pub(crate) fn new(
        table: Table,
        stripes: u64,
        writers: usize,
        close_after: Duration,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            table,
            stripes,
            writers,
            queue: Queue::default(),
            notifier,
            close_after,
            settled: AtomicU64::new(0),
            settled_in_table: AtomicU64::new(0),
        }
    }

    /// A slot that nobody else has, beyond every slot that anybody has seen.
    pub(crate) async fn next_slot(&self) -> Result<u64> {
        count(&self.table.add(&Key::counter(), 1).await?)
    }

    /// The last slot that was given out, so that whatever was written before this call has none
    /// beyond it.
    pub(crate) async fn allocated(&self) -> Result<u64> {
        self.table.get(&Key::counter()).await?.as_ref().map_or(Ok(0), count)
    }

    /// Closes a slot that will not be used, so that no reader has to wait for it. If that fails, a
    /// reader will do it.
    pub(crate) fn abandon(self: &Arc<Self>, slot: u64) {
        let log = self.clone();
        tokio::spawn(async move {
            if let Err(error) = log.close(slot).await {
                tracing::debug!(slot, %error, "a slot could not be closed");
            }
        });
    }

    /// Closes a slot, if nobody has written to it, and returns what it is for ever.
    async fn close(&self, slot: u64) -> Result<Slot> {
        let mut item = Key::slot(slot, self.stripes).attributes();
        Slot::Void.insert_into(&mut item);
        match self.table.put(&item, &Condition::ABSENT).await? {
            Written::Done => Ok(Slot::Void),
            Written::Refused(found) => Slot::of(&found),
        }
    }

    /// The slots of a range that are there.
    pub(crate) async fn slots(&self, from: u64, to: u64) -> Result<BTreeMap<u64, Slot>> {
        let stripes = (from..=to).take(usize::try_from(self.stripes).unwrap_or(usize::MAX));
        let queries = stripes.map(|slot| {
            let stripe = Key::stripe(slot % self.stripes);
            self.table.query_all(Range::new(stripe, sort(from), sort(to)))
        });
        let items = try_join_all(queries).await?;
        items.iter().flatten().map(|item| Ok((slot_number(item)?, Slot::of(item)?))).collect()
    }

    /// How many slots to read at once for somebody who wants so many.
    pub(crate) fn window(&self, wanted: u64) -> u64 {
        wanted.clamp(self.stripes, WINDOW * self.stripes)
    }

    /// Makes sure that nobody can write to any slot up to the last that is written now, and returns
    /// that one: no more than `to`.
    pub(crate) async fn settle(self: &Arc<Self>, to: u64) -> Result<u64> {
        if self.settled.load(SeqCst) == 0 {
            let known = self.table.get(&Key::settled()).await?;
            let known = known.as_ref().map_or(Ok(0), count)?;
            self.settled_in_table.fetch_max(known, SeqCst);
            self.settled.fetch_max(known, SeqCst);
        }
        let settled = self.settled.load(SeqCst);
        let mut slots = Slots::new(self.clone(), settled + 1, to);
        while slots.next().await?.is_some() {}
        let last = slots.next - 1;
        if last >= self.settled_in_table.load(SeqCst) + SAY_EVERY {
            let n = crate::item::number(last);
            let condition = Condition::when("attribute_not_exists(n) OR n < :n", [(":n", n)]);
            match self.table.update(&Key::settled(), "SET n = :n", &condition).await {
                Ok(_) => {
                    self.settled_in_table.fetch_max(last, SeqCst);
                }
                // It only makes others look again.
                Err(error) => tracing::debug!(%error, "what is settled could not be said"),
            }
        }
        Ok(last.min(to))
    }

    /// Has a look now and then, on behalf of readers to come.
    pub(crate) fn keep_settled(self: &Arc<Self>, slot: u64) {
        if !slot.is_multiple_of(SETTLE_EVERY) {
            return;
        }
        let log = self.clone();
        tokio::spawn(async move {
            if let Err(error) = log.settle(slot).await {
                tracing::debug!(slot, %error, "the log could not be settled");
            }
        });
    }
}

fn slot_number(item: &Item) -> Result<u64> {
    u64::try_from(Key::of(item)?.sort).map_err(|e| internal("a negative slot").with_source(e))
}

/// Reads the slots one after the other, none left out.
#[derive(Debug)]
pub(crate) struct Slots {
    log: Arc<Log>,
    /// The next one.
    pub(crate) next: u64,
    /// The last that may be read.
    to: u64,
    /// What was read beyond the next.
    read: BTreeMap<u64, Slot>,
    read_to: u64,
    window: u64,
    /// When it was first seen that slots are missing.
    missing: Option<Instant>,
}

impl Slots {
    /// For whoever wants all of them.
    pub(crate) fn new(log: Arc<Log>, next: u64, to: u64) -> Self {
        Self::few(log, next, to, u64::MAX)
    }

    /// For whoever may have enough after so many: then as many more are read at once, and so on.
    pub(crate) fn few(log: Arc<Log>, next: u64, to: u64, enough: u64) -> Self {
        let window = log.window(enough);
        Self { log, next, to, read: BTreeMap::new(), read_to: next - 1, window, missing: None }
    }

    /// Reads on up to there, and once more what was not there yet.
    pub(crate) fn extend(&mut self, to: u64) {
        self.to = self.to.max(to);
        if self.read.is_empty() {
            self.read_to = self.next - 1;
        }
    }

    /// Whether there are slots that were given out and not written when it was last looked.
    pub(crate) fn awaits(&self) -> bool {
        self.next <= self.to
    }

    /// The next slot. None where none of those that are left had been written.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Slot)>> {
        loop {
            if let Some(slot) = self.read.remove(&self.next) {
                let number = self.next;
                self.next += 1;
                // Where this reader began further on, it cannot tell.
                let _ = self.log.settled.compare_exchange(number - 1, number, SeqCst, SeqCst);
                return Ok(Some((number, slot)));
            }
            if !self.read.is_empty() {
                let slot = self.resolve().await?;
                self.read.insert(self.next, slot);
            } else if self.read_to < self.to {
                let (from, to) = (self.read_to + 1, self.to.min(self.read_to + self.window));
                self.window = self.log.window(self.window * 2);
                self.read = self.log.slots(from, to).await?;
                self.read_to = to;
                self.missing = None;
            } else {
                return Ok(None);
            }
        }
    }

    /// What the next slot is, which is empty although a later one is not: waits a moment for whoever
    /// took it, and then closes it, so that it never will be written.
    async fn resolve(&mut self) -> Result<Slot> {
        let since = *self.missing.get_or_insert_with(Instant::now);
        let key = Key::slot(self.next, self.log.stripes);
        let mut pause = LOOK.0;
        loop {
            if let Some(found) = self.log.table.get(&key).await? {
                return Slot::of(&found);
            }
            if since.elapsed() >= self.log.close_after {
                tracing::debug!(slot = self.next, "a slot that nobody has written is closed");
                return self.log.close(self.next).await;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }
}
