//! Appends that wait share a transaction.
//!
//! A commit costs the server the same for one append as for thirty. So each task here takes all
//! that wait when it begins; an append that comes alone is sent alone, at once, in one statement.
//! A transaction is one statement in any case: it ends on the server, whatever happens here, and
//! holds its locks for as long as the server works on it, not for as long as a network hangs.

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use annals_core::{Append, Appended, Error, ErrorKind, Result, StreamId};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    append::{self, Answer, Asked, Next},
    connections::Connections,
    error::{driver, internal, unreachable},
    notify::Notifier,
    resend::{Sent, Tries},
    sql::Sql,
};

/// The most appends of a transaction: beyond, a commit is a small part of it already, and each
/// holds its locks for as long as the last takes.
const MOST_APPENDS: usize = 64;
/// The most events of a transaction, unless one append has more.
const MOST_EVENTS: usize = 1_024;
/// The most bytes of a transaction, unless one append has more.
const MOST_BYTES: usize = 1024 * 1024;
/// How many appends have to wait before another task takes some of them. Measured: with fewer, 32
/// writers were spread over two connections and a fifth slower.
const SHARE: usize = 48;
/// How long a task waits for its answer before another takes what waits behind it: many times what
/// a transaction takes, unless it waits for a lock.
const STUCK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Writers {
    connections: Arc<Connections>,
    notifier: Arc<Notifier>,
    sql: Arc<Sql>,
    lock_key: i32,
    /// The most tasks.
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// How many tasks there are; of those, how many have not taken anything yet, and how many wait
    /// for longer than usual.
    active: usize,
    starting: usize,
    stuck: usize,
}

impl Queue {
    /// Whether another task is worth it. Larger batches beat more of them: so one, until as many
    /// appends wait as make a batch, or until the others are stuck.
    fn begin(&mut self, most: usize) -> bool {
        let working = self.active - self.stuck;
        let begin = self.active < most
            && !self.jobs.is_empty()
            && (working == 0 || self.jobs.len() >= SHARE * (self.starting + 1));
        self.active += usize::from(begin);
        self.starting += usize::from(begin);
        begin
    }
}

/// An append, or several to be written all or none.
#[derive(Debug)]
struct Job {
    appends: Vec<Append>,
    answer: oneshot::Sender<Result<Vec<Appended>>>,
}

impl Job {
    fn is_multi(&self) -> bool {
        self.appends.len() > 1
    }

    fn events(&self) -> usize {
        self.appends.iter().map(|append| append.events.len()).sum()
    }

    fn bytes(&self) -> usize {
        let events = self.appends.iter().flat_map(|append| &append.events);
        events.map(annals_core::NewEvent::size).sum()
    }

    fn answer(self, answer: Result<Vec<Appended>>) {
        // Who asked may have gone away.
        drop(self.answer.send(answer));
    }
}

impl Writers {
    pub(crate) fn new(
        connections: Arc<Connections>,
        notifier: Arc<Notifier>,
        sql: Arc<Sql>,
        lock_key: i32,
        most: usize,
    ) -> Arc<Self> {
        Arc::new(Self { connections, notifier, sql, lock_key, most, queue: Mutex::default() })
    }

    /// Writes appends, one or several all or none. Goes on when what this returns is dropped, unless
    /// nothing was begun.
    pub(crate) async fn append(self: &Arc<Self>, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let runtime = runtime()?;
        let (answer, answered) = oneshot::channel();
        self.queue().jobs.push_back(Job { appends, answer });
        self.begin(&runtime);
        answered.await.unwrap_or_else(|_| Err(ended().with_outcome_unknown()))
    }

    /// Starts another task, where it is worth it.
    fn begin(self: &Arc<Self>, runtime: &Handle) {
        if self.queue().begin(self.most) {
            runtime.spawn(Writer::new(self.clone()).run());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change under the lock is one step, so a poisoned lock is sound.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "this needs a Tokio runtime").with_source(e)
    })
}

pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the runtime shuts down")
}

/// One task, and its connection.
struct Writer {
    writers: Arc<Writers>,
    sent: Sent,
    /// Whether it is counted in the queue in this way.
    is_active: bool,
    is_starting: bool,
    is_stuck: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_active {
            return;
        }
        // The runtime shuts down. Unless another task is left, nobody would ever answer these.
        let mut queue = self.writers.queue();
        queue.active -= 1;
        queue.starting -= usize::from(self.is_starting);
        queue.stuck -= usize::from(self.is_stuck);
        if queue.active == 0 {
            for job in queue.jobs.drain(..) {
                job.answer(Err(ended()));
            }
        }
    }
}

impl Writer {
    fn new(writers: Arc<Writers>) -> Self {
        Self { writers, sent: Sent::default(), is_active: true, is_starting: true, is_stuck: false }
    }

    async fn run(mut self) {
        while let Some(batch) = self.take() {
            let is_shared = batch.len() > 1;
            self.write(batch).await;
            if is_shared {
                // Those who were answered come back, and go along with those who wait already.
                tokio::task::yield_now().await;
            }
        }
        self.sent.keep();
    }

    /// What waits, as much as goes into one transaction; none where nothing does.
    fn take(&mut self) -> Option<Vec<Job>> {
        let mut queue = self.writers.queue();
        queue.starting -= usize::from(std::mem::take(&mut self.is_starting));
        let (mut batch, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(job) = queue.jobs.front() {
            // Who asked has gone away.
            if job.answer.is_closed() {
                queue.jobs.pop_front();
                continue;
            }
            events += job.events();
            bytes += job.bytes();
            let full = batch.len() == MOST_APPENDS
                || events > MOST_EVENTS
                || bytes > MOST_BYTES
                || job.is_multi();
            if full && !batch.is_empty() {
                break;
            }
            let alone = job.is_multi();
            batch.extend(queue.jobs.pop_front());
            if alone {
                break;
            }
        }
        if batch.is_empty() {
            queue.active -= 1;
            self.is_active = false;
            return None;
        }
        Some(batch)
    }

    async fn write(&mut self, batch: Vec<Job>) {
        self.sent.is_unknown = false;
        if batch.len() == 1 {
            for job in batch {
                let done = self.write_all_or_none(&job.appends).await;
                job.answer(done);
            }
            return;
        }
        let (jobs, rounds) = in_rounds(batch);
        let asked: Vec<Asked<'_>> = jobs.iter().filter_map(Asked::of).collect();
        let answers = match self.send(&asked, &rounds, false).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(%error, appends = jobs.len(), "trying each append alone");
                let is_unknown = self.sent.is_unknown;
                for job in jobs {
                    self.sent.is_unknown = is_unknown;
                    // Where there is no server, each alone would only take as long again.
                    let done = match unreachable(&error) {
                        Some(error) => Err(self.sent.outcome(error)),
                        None => self.write_all_or_none(&job.appends).await,
                    };
                    job.answer(done);
                }
                return;
            }
        };
        // First those that are done, so that nobody waits for what the others take.
        let mut left = Vec::new();
        for (job, answer) in jobs.into_iter().zip(answers) {
            match answer {
                Answer::Written(appended) => job.answer(Ok(vec![appended])),
                Answer::Found { .. } => left.push((job, answer)),
            }
        }
        let is_unknown = self.sent.is_unknown;
        for (job, answer) in left {
            self.sent.is_unknown = is_unknown;
            let done = self.finish(&job.appends, vec![answer]).await;
            job.answer(done);
        }
    }

    /// Writes the appends of one job.
    async fn write_all_or_none(&mut self, appends: &[Append]) -> Result<Vec<Appended>> {
        let asked: Vec<Asked<'_>> = appends.iter().map(Asked::new).collect();
        let answers = self.send(&asked, &[count(asked.len())], asked.len() > 1).await?;
        self.finish(appends, answers).await
    }

    /// Makes answers of what the database said: of appends that were written, or that were not,
    /// since they had been before, or because they conflict.
    async fn finish(&mut self, appends: &[Append], answers: Vec<Answer>) -> Result<Vec<Appended>> {
        let mut asked: Vec<Asked<'_>> = appends.iter().map(Asked::new).collect();
        let mut done = Vec::with_capacity(appends.len());
        let mut versions = Vec::with_capacity(appends.len());
        for (one, answer) in asked.iter_mut().zip(answers) {
            let (head, seen_at) = match answer {
                Answer::Written(appended) => {
                    done.push(Some(appended));
                    continue;
                }
                Answer::Found { head, seen_at } => (head, seen_at),
            };
            versions.push(head.version);
            let base = match one.next(&head, seen_at) {
                Next::Refuse(error) => return Err(error),
                Next::Holds => {
                    done.push(None);
                    continue;
                }
                Next::LookAfter(base) => base,
            };
            // To be had again at once: who holds one must not wait for another.
            self.sent.keep();
            let Writers { connections, sql, .. } = &*self.writers;
            let found = one.written_after(connections, sql, base).await;
            let found = found.map_err(|e| self.sent.outcome(driver(e)))?;
            if found.is_none() {
                if seen_at.is_none() {
                    let Append { stream, expected, .. } = one.append;
                    return Err(Error::lost_race(stream, *expected, head.version));
                }
                one.is_new = true;
            }
            done.push(found);
        }
        if let Some(all) = done.iter().copied().collect() {
            return Ok(all);
        }
        let replayed = asked.iter().zip(&versions).zip(&done).find(|(_, done)| done.is_some());
        if let Some(((one, version), _)) = replayed {
            // Written before, but not together with the others: not this append.
            let Append { stream, expected, .. } = one.append;
            return Err(Error::lost_race(stream, *expected, *version));
        }
        self.send_as_new(&asked).await
    }

    /// Sends appends again whose first ids stand in their streams, but are no retry.
    async fn send_as_new(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Appended>> {
        let answers = self.send(asked, &[count(asked.len())], asked.len() > 1).await?;
        let mut done = Vec::with_capacity(answers.len());
        let mut held = None;
        for (one, answer) in asked.iter().zip(answers) {
            let Append { stream, expected, .. } = one.append;
            match answer {
                Answer::Written(appended) => done.push(appended),
                Answer::Found { head, seen_at } => match one.next(&head, seen_at) {
                    Next::Refuse(error) => return Err(error),
                    Next::LookAfter(_) => {
                        return Err(Error::lost_race(stream, *expected, head.version));
                    }
                    Next::Holds => held = Some(internal("an append was not written")),
                },
            }
        }
        held.map_or(Ok(done), Err)
    }

    /// Sends appends, and tells subscribers of what was written, or may have been.
    async fn send(
        &mut self,
        asked: &[Asked<'_>],
        rounds: &[i32],
        all_or_none: bool,
    ) -> Result<Vec<Answer>> {
        let sent = self.try_send(asked, rounds, all_or_none).await;
        let is_written = |answer: &Answer| matches!(answer, Answer::Written(_));
        if self.sent.is_unknown || sent.as_ref().is_ok_and(|answers| answers.iter().any(is_written))
        {
            self.writers.notifier.committed();
        }
        sent.map_err(|error| self.sent.outcome(error))
    }

    async fn try_send(
        &mut self,
        asked: &[Asked<'_>],
        rounds: &[i32],
        all_or_none: bool,
    ) -> Result<Vec<Answer>> {
        let writers = self.writers.clone();
        let Writers { connections, sql, lock_key, .. } = &*writers;
        let mut tries = Tries::default();
        loop {
            let mut lease = self.sent.lease(connections, &mut tries).await?;
            let sent = append::send(&mut lease, sql, *lock_key, asked, rounds, all_or_none);
            let answer = self.answered(connections.within(sent)).await;
            let done = self.sent.answered(connections, lease, answer, &mut tries);
            if let ControlFlow::Break(done) = done {
                return done;
            }
        }
    }
}

impl Writer {
    /// Waits for an answer, and lets another task take what waits behind it, where that takes long:
    /// one stream that is locked must not hold up the others.
    async fn answered<T>(&mut self, sent: impl Future<Output = T>) -> T {
        let mut sent = pin!(sent);
        if let Ok(answer) = tokio::time::timeout(STUCK, &mut sent).await {
            return answer;
        }
        self.writers.queue().stuck += 1;
        self.is_stuck = true;
        self.writers.begin(&Handle::current());
        let answer = sent.await;
        self.writers.queue().stuck -= 1;
        self.is_stuck = false;
        answer
    }
}

impl<'a> Asked<'a> {
    fn new(append: &'a Append) -> Self {
        Self { append, is_new: false }
    }

    fn of(job: &'a Job) -> Option<Self> {
        job.appends.first().map(Self::new)
    }
}

fn count(appends: usize) -> i32 {
    i32::try_from(appends).unwrap_or(i32::MAX)
}

/// Orders appends so that no stream is twice in a round, and those to one stream keep their order;
/// with the number of appends at which each round ends.
fn in_rounds(batch: Vec<Job>) -> (Vec<Job>, Vec<i32>) {
    let mut seen: HashMap<StreamId, usize> = HashMap::with_capacity(batch.len());
    let mut numbered: Vec<(usize, Job)> = Vec::with_capacity(batch.len());
    for job in batch {
        let round = job.appends.first().map_or(0, |append| {
            let next = seen.entry(append.stream.clone()).or_default();
            *next += 1;
            *next
        });
        numbered.push((round, job));
    }
    numbered.sort_by_key(|(round, _)| *round);
    let ends = numbered.chunk_by(|(one, _), (next, _)| one == next).scan(0, |end, round| {
        *end += round.len();
        Some(count(*end))
    });
    let ends = ends.collect();
    (numbered.into_iter().map(|(_, job)| job).collect(), ends)
}
