//! The appends that wait for a transaction, and the number of tasks that write them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use annals_core::{Append, Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    call::{self, AppendCall},
    error::runtime_ended,
};

/// The most appends of a transaction. With more, the commit would hardly cost less for each append,
/// and each would hold its lock until the last is written.
const MOST_APPENDS: usize = 64;
/// The most events of a transaction, unless one append has more.
const MOST_EVENTS: usize = 1_024;
/// The most bytes of a transaction, unless one append has more.
const MOST_BYTES: usize = 1024 * 1024;
/// How many appends have to wait before another task takes some of them. Measured: with fewer, 32
/// writers were spread over two connections, and a fifth slower.
const SHARE: usize = 48;
/// The memory that waiting appends may take, in units of 1 KiB: 64 MiB, as many as the largest append
/// has. An append that was cancelled takes its part until a task comes by.
const ROOM: u32 = 64 * 1024;
/// What an append takes at least, in the same unit, however small its events are.
const LEAST: usize = 1;

#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<VecDeque<AppendCall>>,
    room: Arc<Semaphore>,
    /// The most tasks that write at the same time.
    most_tasks: usize,
    /// The tasks that write.
    active: Counter,
    /// Those of them that have not taken their first batch yet.
    starting: Counter,
    /// Those of them whose transaction takes longer than usual.
    stuck: Counter,
}

impl Queue {
    pub(crate) fn new(most_tasks: usize) -> Arc<Self> {
        let [active, starting, stuck] = Default::default();
        let room = Arc::new(Semaphore::new(ROOM as usize));
        Arc::new(Self { waiting: Mutex::default(), room, most_tasks, active, starting, stuck })
    }

    /// Waits until there is memory for appends.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] after the timeout.
    pub(crate) async fn room_for(
        &self,
        appends: &[Append],
        timeout: Duration,
    ) -> Result<OwnedSemaphorePermit> {
        // An append that is larger than the room takes all of it.
        let units = (call::bytes(appends) / 1_024).max(LEAST);
        let units = u32::try_from(units).unwrap_or(ROOM).min(ROOM);
        if let Ok(room) = self.room.clone().try_acquire_many_owned(units) {
            return Ok(room);
        }
        let room = self.room.clone().acquire_many_owned(units);
        match tokio::time::timeout(timeout, room).await {
            Ok(room) => room.map_err(|e| runtime_ended().with_source(e)),
            Err(elapsed) => {
                let message = "too many bytes of other appends wait for the server; try again";
                Err(Error::new(ErrorKind::Busy, message).with_source(elapsed))
            }
        }
    }

    pub(crate) fn push(&self, call: AppendCall) {
        self.waiting().push_back(call);
    }

    /// Registers another task if one is worth its while. A larger batch is better than a second
    /// batch: so one task, until as many appends wait as make a batch, or the other tasks are
    /// stuck.
    pub(crate) fn register_task(self: &Arc<Self>) -> Option<WritingTask> {
        let waiting = self.waiting();
        let (active, starting) = (self.active.get(), self.starting.get());
        let working = active.saturating_sub(self.stuck.get());
        let is_needed = active < self.most_tasks
            && !waiting.is_empty()
            && (working == 0 || waiting.len() >= SHARE * (starting + 1));
        is_needed.then(|| WritingTask {
            queue: self.clone(),
            active: Some(self.active.count_one()),
            starting: Some(self.starting.count_one()),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<AppendCall>> {
        // Each change under the lock is one step, so a poisoned lock does no harm.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that writes, as the queue counts it. All counts but `stuck` go up under the queue's lock.
#[derive(Debug)]
pub(crate) struct WritingTask {
    queue: Arc<Queue>,
    active: Option<CountedOne>,
    starting: Option<CountedOne>,
}

impl WritingTask {
    /// Takes as many of the waiting calls as go into one transaction. `None` if no call waits: then
    /// the task no longer counts, and must end.
    pub(crate) fn take_batch(&mut self) -> Option<Vec<AppendCall>> {
        let mut waiting = self.queue.waiting();
        self.starting = None;
        let (mut batch, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(call) = waiting.front() {
            if call.is_cancelled() {
                waiting.pop_front();
                continue;
            }
            events += call.events();
            bytes += call.bytes();
            let is_full = batch.len() == MOST_APPENDS
                || events > MOST_EVENTS
                || bytes > MOST_BYTES
                || call.is_multi();
            if is_full && !batch.is_empty() {
                break;
            }
            let is_alone = call.is_multi();
            batch.extend(waiting.pop_front());
            if is_alone {
                break;
            }
        }
        if batch.is_empty() {
            // Still under the lock: a call that is pushed from now on finds no task, and starts
            // one.
            self.active = None;
            return None;
        }
        Some(batch)
    }

    /// Takes the calls that have waited since before a moment.
    pub(crate) fn take_older(&self, moment: Instant) -> Vec<AppendCall> {
        let mut waiting = self.queue.waiting();
        let older = waiting.iter().take_while(|call| call.since <= moment).count();
        waiting.drain(..older).collect()
    }

    /// Counts this task as stuck until the guard is dropped.
    pub(crate) fn stuck(&self) -> CountedOne {
        self.queue.stuck.count_one()
    }
}

impl Drop for WritingTask {
    /// A task that is dropped while it counts as active ends too early, because its runtime shuts
    /// down. If it was the last task, nobody would ever answer the calls that wait.
    fn drop(&mut self) {
        if self.active.take().is_none() {
            return;
        }
        let mut waiting = self.queue.waiting();
        if self.queue.active.get() == 0 {
            for call in waiting.drain(..) {
                call.answer(Err(runtime_ended()));
            }
        }
    }
}

/// Counts how many of its guards are alive.
#[derive(Debug, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn count_one(&self) -> CountedOne {
        self.0.fetch_add(1, Ordering::SeqCst);
        CountedOne(self.0.clone())
    }
}

/// Counts as one until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedOne(Arc<AtomicUsize>);

impl Drop for CountedOne {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
