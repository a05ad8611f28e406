//! The counter that gives out the numbers of slots, and what to do when it is behind the log.
//!
//! DynamoDB copies the items of a table into a backup one by one: after a restore the counter can be
//! older than the slots. It would then give out numbers again that are used.

use annals_core::Result;
use futures::future::try_join_all;

use super::slots::Log;
use crate::{
    item::{Key, attribute::COUNT, count, sort},
    table::KeyRange,
};

impl Log {
    /// Allocates a slot for the caller alone, beyond every slot that anybody has seen.
    pub(crate) async fn allocate(&self) -> Result<u64> {
        count(&self.table.increment(&Key::counter()).await?)
    }

    /// The last slot that was allocated. Every append that returned before this call has this slot
    /// or an earlier one.
    pub(crate) async fn last_allocated(&self) -> Result<u64> {
        self.table.get(&Key::counter()).await?.as_ref().map_or(Ok(0), count)
    }

    /// How many slots are beyond the last one that was allocated: more than 0 only if the counter
    /// is behind the log.
    pub(crate) async fn slots_beyond_counter(&self) -> Result<u64> {
        let known = self.last_allocated().await?;
        let last = self.last_slot_after(known).await?;
        // Others may have appended since the counter was read.
        Ok(if last == 0 { 0 } else { last.saturating_sub(self.last_allocated().await?) })
    }

    /// Raises the counter to the last slot, and to a slot that the caller knows, if it is behind.
    /// Slots between that were lost are closed by the readers, like those of writers that died.
    pub(crate) async fn mend_counter(&self, known: u64) -> Result<()> {
        let last = self.last_slot_after(self.last_allocated().await?).await?.max(known);
        if last > 0 && self.table.raise(&Key::counter(), COUNT, last).await? {
            tracing::warn!(
                table = self.table.name,
                slot = last,
                "the counter of the log was behind the log, as after a restore of the table; it is \
                 raised"
            );
        }
        Ok(())
    }

    /// The number of the last slot after this one; 0 if there is none.
    async fn last_slot_after(&self, slot: u64) -> Result<u64> {
        let stripes = (0..self.stripes).map(|stripe| {
            let stripe = Key::stripe_partition(stripe);
            // In a log that is whole there is no such slot, and the request costs the least.
            self.table.first(KeyRange::new(stripe, sort(slot + 1), i64::MAX).backwards())
        });
        let found = try_join_all(stripes).await?;
        let mut numbers = found.iter().flatten().map(super::slots::slot_number);
        numbers.try_fold(0, |last, number| Ok(number?.max(last)))
    }
}
