//! Waiting for items of a transaction.

use std::time::Duration;

use annals_core::{Result, adapter::Backoff};
use tokio::time::sleep;

use crate::{item::Key, table::Table};

/// How often to look for an item that must exist, about two seconds in all.
const LOOKS: u32 = 100;
/// The first and the longest pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(30));

/// Waits for items that must exist: the items of a transaction become visible to queries one by
/// one, for as long as DynamoDB takes to write them.
#[derive(Debug)]
pub(crate) struct VisibilityWait {
    looks: u32,
    backoff: Backoff,
}

impl VisibilityWait {
    pub(crate) fn new() -> Self {
        Self { looks: 0, backoff: Backoff::new(PAUSE.0, PAUSE.1) }
    }

    /// Waits before the caller looks again for items that are written together with these. Returns false
    /// if the caller has looked often enough to know that one is missing.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) if the transaction that writes
    /// them has not ended.
    pub(crate) async fn look_again(&mut self, table: &Table, keys: &[Key]) -> Result<bool> {
        self.looks += 1;
        if self.looks <= LOOKS {
            sleep(self.backoff.next_pause()).await;
            return Ok(true);
        }
        if self.looks > LOOKS + 1 {
            return Ok(false);
        }
        table.check_not_in_progress(keys).await?;
        // What the transaction has written is visible now.
        Ok(true)
    }
}
