//! Waiting for an empty slot: the readers of a process ask once for all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use annals_core::{Error, Result};
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use tokio::time::{Instant, sleep};

use super::slots::Log;
use crate::item::{Key, Slot};

/// After which pauses to look at an empty slot again, before it is closed. A writer that lives is late
/// by a few milliseconds; a fleet with many readers must not ask more often.
const LOOKS: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(80)];

type Found = BoxFuture<'static, Result<Slot, Arc<Error>>>;

/// The slots for which readers of this process wait.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<HashMap<u64, WeakShared<Found>>>);

impl Waits {
    /// The wait for a slot that other readers have begun, or a new one.
    fn join(&self, slot: u64, begin: impl FnOnce() -> Found) -> Shared<Found> {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A wait whose readers are all gone cannot be joined.
        waits.retain(|_, wait| wait.upgrade().is_some_and(|wait| wait.peek().is_none()));
        if let Some(wait) = waits.get(&slot).and_then(WeakShared::upgrade) {
            return wait;
        }
        let wait = begin().shared();
        waits.extend(wait.downgrade().map(|weak| (slot, weak)));
        wait
    }
}

impl Log {
    /// Waits until a slot is written; `since` is when the caller found it empty. After `close_after`
    /// closes it, so that its writer has to take a later one.
    pub(super) async fn wait_for(self: &Arc<Self>, slot: u64, since: Instant) -> Result<Slot> {
        let log = self.clone();
        let begin = || async move { log.ask(slot, since).await.map_err(Arc::new) }.boxed();
        self.waits.join(slot, begin).await.map_err(|error| {
            let message = "waiting for a slot of the log failed";
            Error::new(error.kind(), message).with_source(error)
        })
    }

    async fn ask(&self, slot: u64, since: Instant) -> Result<Slot> {
        let key = Key::slot(slot, self.stripes);
        for pause in LOOKS {
            let left = self.close_after.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0).min(left)).await;
            if let Some(found) = self.table.get(&key).await? {
                return Slot::of(&found);
            }
        }
        sleep(self.close_after.saturating_sub(since.elapsed())).await;
        tracing::debug!(slot, "closing a slot that its writer did not write");
        self.close(slot).await
    }
}
