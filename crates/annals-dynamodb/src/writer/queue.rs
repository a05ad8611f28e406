//! Appends that wait to be written, and how many tasks write them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::Result;
use tokio::{runtime::Id, sync::oneshot};

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

/// The appends of each tokio runtime that wait, and its tasks. A runtime that nobody drives any more
/// stands still with its tasks: they must not count for the callers of another.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: Mutex<HashMap<Id, Lane>>,
    most_tasks: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<AppendRequest>,
    tasks: usize,
}

impl Queue {
    pub(super) fn new(most_tasks: usize) -> Self {
        Self { lanes: Mutex::default(), most_tasks }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Id, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request. If this returns true, the caller has to start a task, which counts already.
    #[must_use]
    pub(super) fn push(&self, runtime: Id, request: AppendRequest) -> bool {
        let mut lanes = self.lanes();
        let lane = lanes.entry(runtime).or_default();
        lane.waiting.push_back(request);
        let start = lane.tasks < self.most_tasks;
        lane.tasks += usize::from(start);
        start
    }

    /// Takes the requests for one transaction: as many as fit, each for streams of its own. If none
    /// waits, the calling task no longer counts, and has to end: the next request starts another.
    pub(super) fn take_group(&self, runtime: Id) -> Vec<AppendRequest> {
        let mut lanes = self.lanes();
        let Some(lane) = lanes.get_mut(&runtime) else { return Vec::new() };
        let group = lane.take_group();
        if group.is_empty() {
            lane.tasks -= 1;
            if lane.tasks == 0 {
                lanes.remove(&runtime);
            }
        }
        group
    }

    /// Notes that a task was dropped before it found the queue empty, because its runtime has shut
    /// down. If no task is left, the waiting requests are dropped, which tells their callers.
    pub(super) fn task_dropped(&self, runtime: Id) {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get_mut(&runtime) {
            lane.tasks -= 1;
            if lane.tasks == 0 {
                lanes.remove(&runtime);
            }
        }
    }
}

impl Lane {
    fn take_group(&mut self) -> Vec<AppendRequest> {
        let mut group: Vec<AppendRequest> = Vec::new();
        let mut streams = HashSet::new();
        // One item is the slot.
        let (mut items, mut events, mut bytes) = (1, 0, 0);
        while group.len() < MOST_SHARING
            && let Some(request) = self.waiting.front()
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
            group.extend(self.waiting.pop_front());
        }
        group
    }
}
