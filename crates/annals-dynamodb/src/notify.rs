//! Wakes those who wait for events: at once where this store has written them, and by looking now
//! and then where somebody else did.

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
    item::Key,
    table::{Table, count},
};

/// How soon it is looked again when there was something.
const SOON: Duration = Duration::from_millis(20);

/// How often to look: soon while there is something, then ever more rarely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    next: Duration,
    most: Duration,
}

impl Pace {
    pub(crate) fn new(most: Duration) -> Self {
        Self { next: SOON.min(most), most }
    }

    /// There was something.
    pub(crate) fn quicken(&mut self) {
        self.next = SOON.min(self.most);
    }

    /// How long to wait before it is looked again.
    pub(crate) fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = step.mul_f64(1.5).min(self.most);
        step
    }
}

#[derive(Debug)]
pub(crate) struct Notifier {
    /// The last slot that is known to have been given out.
    slot: watch::Sender<u64>,
    streams: Mutex<HashMap<StreamId, watch::Sender<u64>>>,
    turn: Mutex<Turn>,
}

/// Whose turn it is to look on behalf of all: whoever comes first after this time.
#[derive(Debug)]
struct Turn {
    next: Instant,
    pace: Pace,
}

/// After so long, whoever looks is taken for somebody who is not polled any more.
const STUCK: Duration = Duration::from_secs(1);

impl Notifier {
    pub(crate) fn new(poll_interval: Duration) -> Self {
        Self {
            slot: watch::Sender::new(0),
            streams: Mutex::default(),
            turn: Mutex::new(Turn { next: Instant::now(), pace: Pace::new(poll_interval) }),
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<StreamId, watch::Sender<u64>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that these streams have new events, in that slot if there is a log.
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
                        sender.send_modify(|times| *times += 1);
                        if sender.is_closed() {
                            waiting.remove(stream);
                        }
                    }
                }
            }
        }
        if let Some(slot) = slot {
            self.given_out(slot);
        }
    }

    pub(crate) fn given_out(&self, slot: u64) {
        self.slot.send_if_modified(|known| {
            let more = *known < slot;
            *known = slot.max(*known);
            more
        });
    }

    /// Tells of slots.
    pub(crate) fn slots(&self) -> watch::Receiver<u64> {
        self.slot.subscribe()
    }

    /// Tells of a stream's events that this store has written.
    pub(crate) fn stream(&self, stream: &StreamId) -> watch::Receiver<u64> {
        let mut streams = self.streams();
        // Those that nobody waits for any more go when somebody comes.
        streams.retain(|_, sender| !sender.is_closed());
        streams.entry(stream.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for slots that others were given, for ever, in turn with all who do. To be kept where
    /// something else ends a wait: begun anew each time, it might never come to an end.
    pub(crate) async fn keep_looking(&self, table: &Table) -> Infallible {
        loop {
            let next = {
                let turn = self.turn();
                // While somebody else looks, often enough to take over from who is not polled.
                turn.next.min(Instant::now() + turn.pace.most)
            };
            sleep_until(next).await;
            self.look(table).await;
        }
    }

    async fn look(&self, table: &Table) {
        {
            let mut turn = self.turn();
            let now = Instant::now();
            if turn.next > now {
                return;
            }
            turn.next = now + STUCK;
        }
        let found = table.glance(&Key::counter()).await;
        match found.and_then(|item| item.as_ref().map_or(Ok(0), count)) {
            Ok(slot) => {
                if slot > *self.slot.borrow() {
                    self.turn().pace.quicken();
                    self.given_out(slot);
                }
            }
            Err(error) => tracing::debug!(%error, "cannot look for appends of others"),
        }
        let mut turn = self.turn();
        turn.next = Instant::now() + turn.pace.step();
    }
}
