//! Wakes subscribers: at once after an append of this store, and by polling the table for appends
//! of other processes.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use annals_core::StreamId;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    item::{Key, count},
    table::Table,
};

/// How soon to poll again after a poll that found something.
const SOON: Duration = Duration::from_millis(20);
/// If a subscriber began to poll and has not finished after this time, perhaps nobody awaits it any
/// more: another subscriber takes over.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How often to poll: soon after there was something, and then ever more rarely. This is no
/// [`Backoff`](annals_core::adapter::Backoff): users set the longest pause, and nothing failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollPace {
    next: Duration,
    longest: Duration,
}

impl PollPace {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { next: SOON.min(longest), longest }
    }

    /// Notes that the last poll found something.
    pub(crate) fn quicken(&mut self) {
        self.next = SOON.min(self.longest);
    }

    /// How long to wait before the next poll.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.mul_f64(1.5).min(self.longest);
        pause
    }
}

/// Tells subscribers of new events.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// The last slot that is known to be allocated.
    slot: watch::Sender<u64>,
    /// How often this store has appended to each stream that has a subscriber.
    streams: Mutex<HashMap<StreamId, watch::Sender<u64>>>,
    turn: Mutex<PollTurn>,
}

/// When to poll next. The subscribers of a store take turns: the first that is awake after this
/// time polls for all.
#[derive(Debug)]
struct PollTurn {
    next: Instant,
    pace: PollPace,
}

impl Notifier {
    pub(crate) fn new(poll_interval: Duration) -> Self {
        Self {
            slot: watch::Sender::new(0),
            streams: Mutex::default(),
            turn: Mutex::new(PollTurn { next: Instant::now(), pace: PollPace::new(poll_interval) }),
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<StreamId, watch::Sender<u64>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that this store has appended to these streams, in this slot if there is a log.
    pub(crate) fn appended<'a>(
        &self,
        streams: impl Iterator<Item = &'a StreamId>,
        slot: Option<u64>,
    ) {
        {
            let mut waiting = self.streams();
            if !waiting.is_empty() {
                for stream in streams {
                    if let Some(sender) = waiting.get(stream) {
                        sender.send_modify(|appends| *appends += 1);
                        if sender.is_closed() {
                            waiting.remove(stream);
                        }
                    }
                }
            }
        }
        if let Some(slot) = slot {
            self.allocated(slot);
        }
    }

    /// Tells that slots up to this one are allocated.
    fn allocated(&self, slot: u64) {
        self.slot.send_if_modified(|known| {
            let more = *known < slot;
            *known = slot.max(*known);
            more
        });
    }

    /// The last slot that is known to be allocated, and its changes.
    pub(crate) fn slots(&self) -> watch::Receiver<u64> {
        self.slot.subscribe()
    }

    /// Changes whenever this store appends to a stream.
    pub(crate) fn stream(&self, stream: &StreamId) -> watch::Receiver<u64> {
        let mut streams = self.streams();
        // Forget streams whose subscribers were dropped.
        streams.retain(|_, sender| !sender.is_closed());
        streams.entry(stream.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn turn(&self) -> MutexGuard<'_, PollTurn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls for slots that other processes have allocated, in turn with the other subscribers, and
    /// never ends. A subscriber must keep this future while it waits again and again: begun anew
    /// after each wait, the poll might never be finished.
    pub(crate) async fn keep_polling(&self, table: &Table) -> Infallible {
        loop {
            let next = {
                let turn = self.turn();
                // Look often enough to take over from a subscriber that is stuck.
                turn.next.min(Instant::now() + turn.pace.longest)
            };
            sleep_until(next).await;
            self.poll(table).await;
        }
    }

    async fn poll(&self, table: &Table) {
        {
            let mut turn = self.turn();
            let now = Instant::now();
            if turn.next > now {
                return;
            }
            turn.next = now + STUCK_AFTER;
        }
        let found = table.get_eventually(&Key::counter()).await;
        match found.and_then(|item| item.as_ref().map_or(Ok(0), count)) {
            Ok(slot) => {
                if slot > *self.slot.borrow() {
                    self.turn().pace.quicken();
                    self.allocated(slot);
                }
            }
            Err(error) => tracing::debug!(%error, "polling for appends of other processes failed"),
        }
        let mut turn = self.turn();
        turn.next = Instant::now() + turn.pace.next_pause();
    }
}
