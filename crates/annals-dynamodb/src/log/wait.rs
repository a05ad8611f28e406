//! Waiting for an empty slot: the readers of a process ask once for all of them.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use annals_core::Result;
use tokio::time::{Instant, sleep};

use super::slots::Log;
use crate::item::{Key, Slot};

/// After which pauses to look at an empty slot again, before it is closed. A writer that lives is late
/// by a few milliseconds; a fleet with many readers must not ask more often.
const LOOKS: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(80)];

/// How many times `close_after` is doubled at most.
const MOST_DOUBLED: u32 = 3;

impl Log {
    /// Waits until a slot is written; `since` is when the caller found it empty. After `close_after`
    /// closes it, so that its writer has to take a later one.
    ///
    /// If closing takes longer than `close_after`, DynamoDB throttles the stripe, and the writers of its
    /// next slots as well: they get twice as long. Otherwise each would pay for a transaction that fails.
    pub(super) async fn wait_for(self: &Arc<Self>, slot: u64, since: Instant) -> Result<Slot> {
        let log = self.clone();
        self.waits.ask(slot, || async move { log.ask(slot, since).await }).await
    }

    async fn ask(&self, slot: u64, since: Instant) -> Result<Slot> {
        let key = Key::slot(slot, self.stripes);
        let patience = usize::try_from(slot % self.stripes).ok().and_then(|n| self.patience.get(n));
        let doubled = patience.map_or(0, |patience| patience.load(SeqCst));
        let close_after = self.close_after * 2_u32.pow(doubled);
        for pause in LOOKS {
            let left = close_after.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0).min(left)).await;
            if let Some(found) = self.table.get(&key).await? {
                return Slot::of(&found);
            }
        }
        sleep(close_after.saturating_sub(since.elapsed())).await;
        tracing::debug!(slot, "closing a slot that its writer did not write");
        let began = Instant::now();
        let closed = self.close(slot).await;
        let is_slow = began.elapsed() > self.close_after;
        let doubled = if is_slow { (doubled + 1).min(MOST_DOUBLED) } else { 0 };
        if let Some(patience) = patience {
            patience.store(doubled, SeqCst);
        }
        closed
    }
}
