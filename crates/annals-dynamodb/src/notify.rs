//! Wakes those who wait for events: at once where this store has written them, and by looking now
//! and then where somebody else did.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use annals_core::StreamId;
use tokio::{sync::watch, time::sleep};

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

    /// Waits until it is time to look.
    pub(crate) async fn wait(&mut self) {
        sleep(self.next).await;
        self.next = self.next.mul_f64(1.5).min(self.most);
    }
}

#[derive(Debug)]
pub(crate) struct Notifier {
    /// The last slot that is known to have been given out.
    slot: watch::Sender<u64>,
    streams: Mutex<HashMap<StreamId, watch::Sender<u64>>>,
    /// Whoever has it looks on behalf of all.
    pace: tokio::sync::Mutex<Pace>,
}

impl Notifier {
    pub(crate) fn new(poll_interval: Duration) -> Self {
        Self {
            slot: watch::Sender::new(0),
            streams: Mutex::default(),
            pace: tokio::sync::Mutex::new(Pace::new(poll_interval)),
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

    /// Looks for slots that others were given, for as long as it is polled: one for all who wait.
    pub(crate) async fn look(&self, table: &Table) {
        let mut pace = self.pace.lock().await;
        loop {
            pace.wait().await;
            let found = table.glance(&Key::counter()).await;
            match found.and_then(|item| item.as_ref().map_or(Ok(0), count)) {
                Ok(slot) => {
                    if slot > *self.slot.borrow() {
                        pace.quicken();
                        self.given_out(slot);
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot look for appends of others"),
            }
        }
    }
}
