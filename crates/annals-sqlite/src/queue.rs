//! The queue of changes, from any task to the writer's thread: bounded, and in order.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals_core::{Error, ErrorKind, Result};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use crate::{error::Failure, runtime, session::Session};

/// How much may wait in the queue, in KiB: 64 MiB, or 1,024 changes. Further changes wait in their
/// tasks, which slows their writers down. A transaction has at most so much as well, because the
/// writer takes all that waits.
const ROOM: u32 = 64 * 1024;
/// What a change takes at least, in KiB.
const LEAST: usize = ROOM as usize / 1_024;

/// What an event takes besides its payloads, in bytes: its names and ids, and their containers.
const EVENT_BYTES: usize = 256;

/// How long the writer waits for as many changes as it had in the last transaction. Their writers
/// are likely to come again soon; without this wait the writers would split into two halves that
/// take turns.
const GATHER: Duration = Duration::from_micros(100);

/// The memory that events take, by the sizes of their payloads.
pub(crate) fn bytes(events: impl Iterator<Item = usize>) -> usize {
    events.map(|size| size + EVENT_BYTES).sum()
}

/// A change that waits for its turn.
pub(crate) struct Job {
    change: Box<dyn Change>,
    /// The part of [`ROOM`] that the change takes. However the job ends, this gives it back.
    permit: OwnedSemaphorePermit,
    /// The runtime in which the caller waits.
    pub(crate) runtime: Handle,
}

impl Job {
    /// Makes the change, inside a transaction. If the store refuses the change, the refusal is its
    /// answer, and the transaction can go on. The call can be repeated in another transaction.
    ///
    /// # Errors
    /// SQLite failed, so the transaction must be rolled back.
    pub(crate) fn make(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        self.change.make(session)
    }

    /// Sends the caller the answer of the last [`Job::make`], which is committed now.
    pub(crate) fn answer(self) {
        // Give back the room first: a queue is idle once all callers have their answers.
        drop(self.permit);
        self.change.answer(None);
    }

    /// Sends the caller an error instead: the change was not committed.
    pub(crate) fn fail(self, error: Error) {
        drop(self.permit);
        self.change.answer(Some(error));
    }
}

/// A change, whatever the type of its answer is.
trait Change: Send {
    fn make(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, error: Option<Error>);
}

/// A change whose answer is a `T`.
struct Typed<T, F> {
    change: F,
    made: Option<Result<T>>,
    /// Takes the answer, and the change itself: the caller frees its memory, because the writer has
    /// the least time of all threads.
    caller: oneshot::Sender<(Result<T>, F)>,
}

impl<T, F> Change for Typed<T, F>
where
    T: Send,
    F: FnMut(&mut Session<'_>) -> Result<T, Failure> + Send,
{
    fn make(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        self.made = Some(match (self.change)(session) {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Driver(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, error: Option<Error>) {
        let Self { change, made, caller } = *self;
        let answer = match error {
            Some(error) => Err(error),
            None => made.unwrap_or_else(|| Err(writer_ended())),
        };
        // A dropped receiver means that the caller cancelled the call. The change stays made.
        let _ = caller.send((answer, change));
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Wakes the writer.
    ready: Condvar,
    room: Arc<Semaphore>,
    /// How many transactions were committed, so that a test can see how changes are grouped.
    pub(crate) commits: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: Vec<Job>,
    /// For how many jobs the writer sleeps; 0 while it is awake.
    wanted: usize,
    /// The last handle was dropped.
    closed: bool,
    /// The writer has ended.
    ended: bool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            ready: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            commits: AtomicU64::new(0),
        }
    }

    /// Has a change made by the writer. `bytes` is roughly the memory that the change takes. Once
    /// the change is queued, it is made completely or not at all, even if this future is dropped.
    pub(crate) async fn submit<T, F>(&self, bytes: usize, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Session<'_>) -> Result<T, Failure> + Send + 'static,
    {
        // A change that is larger than the room takes all of it.
        let units = u32::try_from((bytes / 1_024).max(LEAST)).unwrap_or(ROOM).min(ROOM);
        let permit = match self.room.clone().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => {
                let acquired = self.room.clone().acquire_many_owned(units).await;
                acquired.map_err(|_| writer_ended())?
            }
        };
        let runtime = runtime::current()?;
        let (caller, answer) = oneshot::channel();
        let change = Box::new(Typed { change, made: None, caller });
        self.push(Job { change, permit, runtime })?;
        // The writer answers every job, unless its thread panics in the middle of one.
        match answer.await {
            Ok((answer, _)) => answer,
            Err(_) => Err(writer_ended().with_outcome_unknown()),
        }
    }

    fn push(&self, job: Job) -> Result<()> {
        let wake = {
            let mut waiting = self.lock();
            if waiting.ended {
                return Err(writer_ended());
            }
            waiting.jobs.push(job);
            (1..=waiting.jobs.len()).contains(&waiting.wanted)
        };
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// For the writer: waits for a job, and moves all that wait to `jobs`. If the last transaction
    /// had several jobs, `last` of them, it also waits a moment for as many. Returns `false` if the
    /// queue is closed and empty.
    pub(crate) fn take(&self, jobs: &mut Vec<Job>, last: usize) -> bool {
        let mut waiting = self.lock();
        if last > 1 && waiting.jobs.len() < last && !waiting.closed {
            waiting.wanted = last;
            let until = Instant::now() + GATHER;
            while waiting.jobs.len() < last && !waiting.closed {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let woken = self.ready.wait_timeout(waiting, left);
                waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return false;
            }
            waiting.wanted = 1;
            waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.wanted = 0;
        std::mem::swap(&mut waiting.jobs, jobs);
        true
    }

    /// Whether every change was answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.room.available_permits() == ROOM as usize
    }

    /// No more changes will come. The writer still makes those that wait.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// The writer has ended. The jobs that wait fail, and so does every later call.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        let left = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        for job in left {
            job.fail(writer_ended());
        }
        self.room.close();
    }

    pub(crate) fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Each change under the lock is one step, so the data behind a poisoned lock is right.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("permit", &self.permit).finish_non_exhaustive()
    }
}

fn writer_ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the store's writer has ended; open the store again")
}
