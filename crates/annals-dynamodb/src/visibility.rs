//! Waiting for items of a transaction.

use std::time::Duration;

use annals_core::adapter::Backoff;
use tokio::time::sleep;

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

    /// Waits before the caller looks again. Returns false if the caller has looked often enough to
    /// know that the item is missing.
    pub(crate) async fn look_again(&mut self) -> bool {
        self.looks += 1;
        if self.looks > LOOKS {
            return false;
        }
        sleep(self.backoff.next_pause()).await;
        true
    }
}
