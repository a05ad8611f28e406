//! Settling the log: making sure that no slot up to the last written one can still be written.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use annals_core::Result;

use super::{reader::SlotReader, slots::Log};
use crate::item::{Key, Slot, attribute::COUNT, count};

/// A writer settles the log every so many slots, so that no reader has to settle more at once.
const SETTLE_EVERY: u64 = 1_024;
/// The table is told after so many settled slots, so that other processes need not read them again.
const STORE_EVERY: u64 = 256;

/// The end of the log up to which it is settled.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The number of the last slot; 0 if there is none.
    pub(crate) last: u64,
    /// Slots up to that one that were read to settle the log, in the order of the log: at most one of
    /// each stripe, and none if it was settled before.
    pub(crate) read: VecDeque<(u64, Slot)>,
}

impl Log {
    /// Makes sure that no slot up to the last written one can still be written, or up to `to` if that
    /// is less. Takes two requests if few slots were written since the log was last settled.
    pub(crate) async fn settle(self: &Arc<Self>, to: u64) -> Result<Settled> {
        let slots = self.unsettled(to).await?;
        self.settle_by(slots).await
    }

    /// A reader of the slots up to `to`, or to the last one that was allocated if that is less, without
    /// those that are known to be settled.
    async fn unsettled(self: &Arc<Self>, to: u64) -> Result<SlotReader> {
        // Other processes may have settled more: to ask costs less than to read their slots.
        let found = self.table.get_all(&[Key::counter(), Key::settled()]).await?;
        let number = |key| found.get(&key).map_or(Ok(0), count);
        let to = to.min(number(Key::counter())?);
        self.learn(number(Key::settled())?);
        Ok(SlotReader::new(self.clone(), self.settled() + 1, to, u64::MAX))
    }

    async fn settle_by(&self, mut slots: SlotReader) -> Result<Settled> {
        let mut read = VecDeque::new();
        while let Some(slot) = slots.next().await? {
            if read.len() as u64 == self.stripes {
                read.pop_front();
            }
            read.push_back(slot);
        }
        let last = slots.next - 1;
        let to = slots.to;
        if last >= self.settled_in_table.load(SeqCst) + STORE_EVERY {
            match self.table.raise(&Key::settled(), COUNT, last).await {
                Ok(_) => {
                    self.settled_in_table.fetch_max(last, SeqCst);
                }
                // Other processes then read these slots again.
                Err(error) => tracing::debug!(%error, "the settled slot could not be stored"),
            }
        }
        Ok(Settled { last: last.min(to), read })
    }

    /// Asks the table how much other processes have settled.
    pub(crate) async fn learn_settled(&self) -> Result<()> {
        let known = self.table.get(&Key::settled()).await?;
        self.learn(known.as_ref().map_or(Ok(0), count)?);
        Ok(())
    }

    fn learn(&self, settled: u64) {
        self.settled_in_table.fetch_max(settled, SeqCst);
        self.raise_settled(settled);
    }

    /// Settles the log in the background once every [`SETTLE_EVERY`] slots. A writer calls this
    /// with each slot that it has written.
    pub(crate) fn settle_sometimes(self: &Arc<Self>, slot: u64) {
        if !slot.is_multiple_of(SETTLE_EVERY) {
            return;
        }
        let log = self.clone();
        tokio::spawn(async move {
            let settled = match log.unsettled(slot).await {
                Ok(slots) => log.settle_by(slots.settling()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                tracing::debug!(slot, %error, "the log could not be settled");
            }
        });
    }
}
