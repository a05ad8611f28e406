//! Settling the log: making sure that no slot up to the last written one can still be written.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use annals_core::Result;

use super::{reader::SlotReader, slots::Log};
use crate::item::{Key, attribute::COUNT, count};

/// A writer settles the log every so many slots, so that no reader has to settle more at once.
const SETTLE_EVERY: u64 = 1_024;
/// The table is told after so many settled slots, so that other processes need not read them again.
const STORE_EVERY: u64 = 256;

impl Log {
    /// Makes sure that no slot up to the last written one can still be written, and returns the
    /// number of that slot, at most `to`.
    pub(crate) async fn settle(self: &Arc<Self>, to: u64) -> Result<u64> {
        if self.settled() < to {
            // Other processes may have settled more: to ask costs less than to read their slots.
            let known = self.table.get(&Key::settled()).await?;
            let known = known.as_ref().map_or(Ok(0), count)?;
            self.settled_in_table.fetch_max(known, SeqCst);
            self.raise_settled(known);
        }
        let mut slots = SlotReader::new(self.clone(), self.settled() + 1, to, u64::MAX);
        while slots.next().await?.is_some() {}
        let last = slots.next - 1;
        if last >= self.settled_in_table.load(SeqCst) + STORE_EVERY {
            match self.table.raise(&Key::settled(), COUNT, last).await {
                Ok(_) => {
                    self.settled_in_table.fetch_max(last, SeqCst);
                }
                // Other processes then read these slots again.
                Err(error) => tracing::debug!(%error, "the settled slot could not be stored"),
            }
        }
        Ok(last.min(to))
    }

    /// Settles the log in the background once every [`SETTLE_EVERY`] slots. A writer calls this
    /// with each slot that it has written.
    pub(crate) fn settle_sometimes(self: &Arc<Self>, slot: u64) {
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
