//! Appends that wait to be written, and how many tasks write them.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::Result;
use tokio::sync::oneshot;

use super::new_item::{AppendOutcome, NewItem};
use crate::{item::POSITIONS_PER_SLOT, table::MOST_ITEMS};

/// The most bytes of one transaction, without what DynamoDB adds to them; its quota is 4 MB.
const MOST_BYTES: usize = 3_900_000;
/// The most appends that share a slot: with more, an append that was overtaken would make too many
/// others wait.
const MOST_SHARING: usize = 32;

/// Items that are written together or not at all, and the caller that waits for the outcome.
#[derive(Debug)]
pub(super) struct AppendRequest {
    pub(super) items: Vec<NewItem>,
    pub(super) reply: oneshot::Sender<Result<AppendOutcome>>,
}

impl AppendRequest {
    /// Replies to the caller. A dropped receiver means that the caller cancelled the append.
    pub(super) fn reply(self, outcome: Result<AppendOutcome>) {
        drop(self.reply.send(outcome));
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    most_tasks: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<AppendRequest>,
    tasks: usize,
}

impl Queue {
    pub(super) fn new(most_tasks: usize) -> Self {
        Self { state: Mutex::default(), most_tasks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request. If this returns true, the caller has to start a task, which counts already.
    #[must_use]
    pub(super) fn push(&self, request: AppendRequest) -> bool {
        let mut state = self.state();
        state.waiting.push_back(request);
        let start = state.tasks < self.most_tasks;
        state.tasks += usize::from(start);
        start
    }

    /// Takes the requests for one transaction: as many as fit, each for streams of its own. If none
    /// waits, the calling task no longer counts, and has to end: the next request starts another.
    pub(super) fn take_group(&self) -> Vec<AppendRequest> {
        let mut state = self.state();
        let mut group: Vec<AppendRequest> = Vec::new();
        let mut streams = HashSet::new();
        // One item is the slot.
        let (mut items, mut events, mut bytes) = (1, 0, 0);
        while group.len() < MOST_SHARING
            && let Some(request) = state.waiting.front()
        {
            items += request.items.len();
            events += request.items.iter().map(NewItem::count).sum::<u64>();
            bytes += request.items.iter().map(NewItem::size).sum::<usize>();
            let fits = items <= MOST_ITEMS && events <= POSITIONS_PER_SLOT && bytes <= MOST_BYTES;
            let apart = request.items.iter().all(|item| !streams.contains(&item.stream));
            if !(group.is_empty() || fits && apart) {
                break;
            }
            streams.extend(request.items.iter().map(|item| item.stream.clone()));
            group.extend(state.waiting.pop_front());
        }
        if group.is_empty() {
            state.tasks -= 1;
        }
        group
    }

    /// Notes that a task was dropped before it found the queue empty, because its runtime has shut
    /// down. If no task is left, the waiting requests are dropped, which tells their callers.
    pub(super) fn task_dropped(&self) {
        let mut state = self.state();
        state.tasks -= 1;
        if state.tasks == 0 {
            state.waiting.clear();
        }
    }
}
