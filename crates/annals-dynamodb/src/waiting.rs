//! Appends under `Any` that wait until their stream can be written to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{Append, Appended, NewEvent, Result, StreamId};
use tokio::{runtime::Id, sync::oneshot};
use uuid::Uuid;

use crate::item::POSITIONS_PER_SLOT;

/// The most events that are written together: they have positions of one slot.
const MOST_EVENTS: usize = 1_000;
const _: () = assert!(MOST_EVENTS < POSITIONS_PER_SLOT as usize);
/// The most bytes of events that are written together. In nearly all cases they fit into one item.
const MOST_BYTES: usize = 300_000;

/// A caller's append, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) append: Append,
    pub(crate) reply: oneshot::Sender<Result<Appended>>,
}

impl Waiting {
    /// Replies to the caller. A dropped receiver means that the caller cancelled the append.
    pub(crate) fn reply(self, outcome: Result<Appended>) {
        drop(self.reply.send(outcome));
    }
}

/// The appends that wait, by their stream and the runtime of their callers: a runtime that nobody
/// drives any more must not hold up the callers of another.
#[derive(Debug, Default)]
pub(crate) struct WaitingAppends(Mutex<HashMap<(StreamId, Id), VecDeque<Waiting>>>);

impl WaitingAppends {
    fn waiting(&self) -> MutexGuard<'_, HashMap<(StreamId, Id), VecDeque<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the appends that wait, which tells their callers.
    pub(crate) fn forget(&self, key: &(StreamId, Id)) {
        self.waiting().remove(key);
    }

    /// Adds an append. If this returns true, the caller has to start a task that writes it.
    pub(crate) fn push(&self, key: &(StreamId, Id), waiting: Waiting) -> bool {
        let mut all = self.waiting();
        let starts = !all.contains_key(key);
        all.entry(key.clone()).or_default().push_back(waiting);
        starts
    }

    /// Takes appends that can be written together, but none whose caller has cancelled it. If none
    /// waits, the calling task has to end: the next append starts another.
    pub(crate) fn take(&self, key: &(StreamId, Id)) -> VecDeque<Waiting> {
        let mut all = self.waiting();
        let mut taken: VecDeque<Waiting> = VecDeque::new();
        let (mut events, mut bytes) = (0, 0);
        if let Some(queue) = all.get_mut(key) {
            while let Some(next) = queue.pop_front() {
                if next.reply.is_closed() {
                    continue;
                }
                events += next.append.events.len();
                bytes += next.append.events.iter().map(NewEvent::size).sum::<usize>();
                let fits = events <= MOST_EVENTS && bytes <= MOST_BYTES;
                // The second try of an append is recognised once the first is the stream's end.
                let again =
                    taken.back().is_some_and(|last| last_id(&last.append) == last_id(&next.append));
                if !taken.is_empty() && (again || !fits) {
                    queue.push_front(next);
                    break;
                }
                taken.push_back(next);
            }
        }
        if taken.is_empty() {
            all.remove(key);
        }
        taken
    }
}

fn last_id(append: &Append) -> Option<Uuid> {
    append.events.last().map(NewEvent::id)
}
