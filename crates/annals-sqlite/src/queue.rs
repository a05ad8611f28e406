//! The way from any task to the writer's thread: bounded, and in order.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals_core::{
    Append, Appended, Error, ErrorKind, ExpectedVersion, LeaseName, LeaseRecord, NewEvent,
    Position, RecordedEvent, Result, Snapshot, StreamId, StreamState, SubscriberId, Version,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};

/// One change to the store.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Append),
    AppendMulti(Vec<Append>),
    Import(Vec<RecordedEvent>),
    Truncate { stream: StreamId, before: Version },
    Delete { stream: StreamId, expected: ExpectedVersion, state: StreamState },
    SaveSnapshot { stream: StreamId, snapshot: Snapshot },
    DeleteSnapshot { stream: StreamId },
    SaveCheckpoint { subscriber: SubscriberId, position: Position },
    ResetCheckpoint { subscriber: SubscriberId, position: Option<Position> },
    SwapLease { name: LeaseName, record: LeaseRecord },
}

/// What a change answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Appended(Appended),
    AppendedMulti(Vec<Appended>),
    Kept(Position),
    Swapped(bool),
    Done,
}

/// A change that waits for its turn.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Reply>,
    /// What it takes of [`ROOM`].
    pub(crate) units: u32,
    /// Where whoever asked is waiting.
    pub(crate) runtime: Handle,
}

/// The answer, and the change itself: to free its memory is left to whoever asked, since the writer
/// has the least time of all.
pub(crate) type Reply = (Result<Answer>, Command);

impl Job {
    /// Answers. Whoever asked may have gone; what was done stays done.
    pub(crate) fn answer(self, answer: Result<Answer>) {
        let _ = self.reply.send((answer, self.command));
    }
}

/// How much may wait, in KiB: 64 MiB, or 1,024 changes. More wait in their tasks, which is how
/// writers are held back. What is taken at once, and so a transaction, is bounded by it as well.
const ROOM: u32 = 64 * 1024;
/// What a change takes at least.
const LEAST: usize = ROOM as usize / 1_024;
/// What an event takes besides its payload, in bytes: names, ids, and the containers.
const EVENT_BYTES: usize = 256;

/// How long the writer waits for as many changes as it had the last time. Those who wrote then are
/// likely to come again; without it, half of them would take turns with the other half.
const GATHER: Duration = Duration::from_micros(100);

#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    room: Arc<Semaphore>,
    /// How many transactions were committed: what grouping is measured by.
    pub(crate) commits: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: Vec<Job>,
    /// How many jobs the writer sleeps for; 0 while it is awake.
    wanted: usize,
    /// No handle is left.
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

    /// Has a change made. Once it is queued it is made whole or not at all, also where this future
    /// is dropped.
    pub(crate) async fn submit(&self, command: Command) -> Result<Answer> {
        let units = command.units();
        match self.room.try_acquire_many(units) {
            Ok(permit) => permit.forget(),
            Err(_) => self.room.acquire_many(units).await.map_err(|_| ended())?.forget(),
        }
        let runtime = Handle::try_current().map_err(|e| {
            let message = "a change has to be made inside a Tokio runtime";
            Error::new(ErrorKind::InvalidInput, message).with_source(e)
        })?;
        let (reply, answer) = oneshot::channel();
        self.push(Job { command, reply, units, runtime })?;
        // The writer answers every job, unless its thread was torn down in the middle of one.
        match answer.await {
            Ok((answer, _)) => answer,
            Err(_) => Err(ended().with_outcome_unknown()),
        }
    }

    fn push(&self, job: Job) -> Result<()> {
        let wake = {
            let mut waiting = self.lock();
            if waiting.ended {
                return Err(ended());
            }
            waiting.jobs.push(job);
            (1..=waiting.jobs.len()).contains(&waiting.wanted)
        };
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// For the writer: moves all that waits to `jobs`, as soon as there is something; where the
    /// last batch had several, waits a moment for as many. False where nothing will come any more.
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

    /// For the writer: so many units are done with.
    pub(crate) fn release(&self, units: usize) {
        self.room.add_permits(units);
    }

    /// No more changes will come; those that wait are still made.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// The writer has ended: what waits gets no answer, and nothing more is taken.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        let left = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        for job in left {
            job.answer(Err(ended()));
        }
        self.room.close();
    }

    pub(crate) fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Each change under the lock is one step, so a poisoned lock is sound.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Command {
    /// How much of [`ROOM`] it takes; all of it, where it is larger than that.
    fn units(&self) -> u32 {
        let events = |append: &Append| {
            append.events.iter().map(|event| NewEvent::size(event) + EVENT_BYTES).sum::<usize>()
        };
        let bytes = match self {
            Self::Append(append) => events(append),
            Self::AppendMulti(appends) => appends.iter().map(events).sum(),
            Self::Import(imported) => imported.iter().map(|event| event.size() + EVENT_BYTES).sum(),
            Self::SaveSnapshot { snapshot, .. } => snapshot.size(),
            _ => 0,
        };
        u32::try_from((bytes / 1_024).max(LEAST)).unwrap_or(ROOM).min(ROOM)
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the store's writer has ended; open the store again")
}
