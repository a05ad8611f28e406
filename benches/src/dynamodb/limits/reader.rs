//! The model of a subscriber to all, in its own process, as annals-dynamodb reads slots.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::service::{MILLISECOND, Time, latency};

/// These are the store's constants.
const WINDOW: usize = 256;
const LOOK: (Time, Time) = (5 * MILLISECOND, 50 * MILLISECOND);
const CLOSE_AFTER: Time = 500 * MILLISECOND;
/// The pause before the reader looks for more slots, while there are new ones.
const SOON: Time = 20 * MILLISECOND;

/// The kind of a reader's request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// The number of slots.
    Counter,
    /// The slots of a window.
    Window,
    /// The slot that is missing.
    Slot,
    /// The missing slot was closed, or was written before that.
    Closed,
}

pub(super) struct Reader {
    pub(super) next: usize,
    to: usize,
    read: BTreeSet<usize>,
    read_to: usize,
    missing: Option<Time>,
    pause: Time,
    /// The pause before the reader tries again to close a slot.
    before_close: Time,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            to: 0,
            read: BTreeSet::new(),
            read_to: 0,
            missing: None,
            pause: LOOK.0,
            before_close: 0,
        }
    }

    /// The reader's next request, and the pause before it. `None` if the reader closes the next
    /// slot.
    pub(super) fn after(
        &mut self,
        look: Look,
        now: Time,
        given_out: usize,
        is_known: impl Fn(usize) -> bool,
    ) -> Option<(Time, Look)> {
        match look {
            Look::Counter => self.to = given_out,
            Look::Window => {
                let to = self.to.min(self.read_to + WINDOW);
                self.read = (self.read_to + 1..=to).filter(|slot| is_known(*slot)).collect();
                self.read_to = to;
                self.missing = None;
            }
            Look::Slot if !is_known(self.next) => {
                if self.missing.is_some_and(|since| now - since >= CLOSE_AFTER) {
                    self.before_close = 0;
                    return None;
                }
                let pause = self.pause;
                self.pause = (pause * 2).min(LOOK.1);
                return Some((pause, Look::Slot));
            }
            Look::Slot | Look::Closed => {
                self.read.insert(self.next);
            }
        }
        while self.read.remove(&self.next) {
            self.next += 1;
        }
        if !self.read.is_empty() {
            self.missing.get_or_insert(now);
            self.pause = LOOK.0;
            return Some((0, Look::Slot));
        }
        if self.read_to < self.to {
            return Some((0, Look::Window));
        }
        // Slots that were not written yet are read once more.
        self.read_to = self.next - 1;
        Some((SOON, Look::Counter))
    }

    pub(super) fn pause_before_close(&mut self, rng: &mut Rng, most: (Time, Time)) -> Time {
        self.before_close = (self.before_close * 2).clamp(most.0, most.1);
        latency(rng, false) + rng.u64(0..=self.before_close)
    }
}
