//! Writes appends. Those that wait share a transaction.
//!
//! A commit costs the server the same for one append as for thirty. So a task takes all appends
//! that wait when it begins a transaction; an append that comes alone is sent alone, at once. A
//! transaction is always one statement: the server ends it whatever happens to the client, so that
//! its locks last as long as the server works on it, and not as long as a network hangs.

use std::{
    ops::ControlFlow,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_core::{Append, Appended, Error, Result};
use tokio::runtime::Handle;

use crate::{
    append::{self, AppendOutcome, AppendRequest, MOST_ROUNDS, Next},
    call::{AppendCall, count, in_rounds},
    database::Database,
    error::{Concerns, SharedError, concerns, runtime, runtime_ended},
    queue::{Queue, WritingTask},
    resend::{Attempts, WriteSession},
};

/// How long a task waits for its answer before another task may take the appends behind it: many
/// times as long as a transaction takes that does not wait for a lock.
const STUCK: Duration = Duration::from_millis(10);
/// How many appends of a batch are given as long as a statement may take, if the whole batch took too
/// long: one of them may have waited for the lock on its stream, so that the others succeed.
const MOST_WAITS: usize = 2;

/// The tasks that write to one store.
#[derive(Clone, Debug)]
pub(crate) struct Writers {
    database: Arc<Database>,
    queue: Arc<Queue>,
}

impl Writers {
    pub(crate) fn new(database: Arc<Database>, most_tasks: usize) -> Self {
        Self { database, queue: Queue::new(most_tasks) }
    }

    /// Writes appends, several of them all or none. If the future is dropped, an append whose
    /// transaction has begun is written all the same.
    pub(crate) async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let runtime = runtime()?;
        let timeout = self.database.connections.pool.options().get_acquire_timeout();
        let room = self.queue.room_for(&appends, timeout).await?;
        let (call, answered) = AppendCall::new(appends, room);
        self.queue.push(call);
        self.start_task(&runtime);
        answered.await.unwrap_or_else(|_| Err(runtime_ended().with_outcome_unknown()))
    }

    /// Starts another task if one is worth its while.
    fn start_task(&self, runtime: &Handle) {
        if let Some(task) = self.queue.register_task() {
            let writer = Writer { writers: self.clone(), task, session: WriteSession::default() };
            runtime.spawn(writer.run());
        }
    }

    /// Waits for an answer. If that takes long, another task may take the appends that wait: a
    /// locked stream must not hold up the others.
    async fn watch<T>(&self, task: &WritingTask, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = tokio::time::timeout(STUCK, &mut answer).await {
            return answer;
        }
        let _counted = task.stuck();
        self.start_task(&Handle::current());
        answer.await
    }
}

/// What one task does.
struct Writer {
    writers: Writers,
    task: WritingTask,
    session: WriteSession,
}

impl Writer {
    async fn run(mut self) {
        while let Some(calls) = self.task.take_batch() {
            let is_shared = calls.len() > 1;
            self.write(calls).await;
            if is_shared {
                // The callers that were answered may append again now, and so get into the next
                // transaction together with those that wait already.
                tokio::task::yield_now().await;
            }
        }
        self.session.give_back();
    }

    /// Writes calls in one transaction, and answers them.
    async fn write(&mut self, calls: Vec<AppendCall>) {
        self.session.outcome_unknown = false;
        if calls.len() == 1 {
            for call in calls {
                let done = self.write_call(&call.appends).await;
                call.answer(done);
            }
            return;
        }
        let (calls, rounds) = in_rounds(calls);
        let requests: Vec<_> =
            calls.iter().flat_map(|call| &call.appends).map(AppendRequest::new).collect();
        let sent = self.send(&requests, &rounds, false).await;
        let outcome_unknown = self.session.outcome_unknown;
        let outcomes = match sent {
            Ok(outcomes) => outcomes,
            Err(error) => return self.write_each(calls, error).await,
        };
        // First answer the calls that are done: the others take another statement.
        let mut unwritten = Vec::new();
        for (call, outcome) in calls.into_iter().zip(outcomes) {
            match outcome {
                AppendOutcome::Written(appended) => call.answer(Ok(vec![appended])),
                AppendOutcome::NotWritten { .. } => unwritten.push((call, outcome)),
            }
        }
        for (call, outcome) in unwritten {
            self.session.outcome_unknown = outcome_unknown;
            let done = self.finish(&call.appends, vec![outcome]).await;
            call.answer(done);
        }
    }

    /// Writes the calls of a batch that has failed, each by itself. If the error concerns all of them,
    /// each would only wait as long again, and so they get it at once.
    async fn write_each(&mut self, calls: Vec<AppendCall>, error: Error) {
        tracing::debug!(%error, appends = calls.len(), "a batch of appends has failed");
        let outcome_unknown = self.session.outcome_unknown;
        let (is_for_all, mut waits) = (concerns(&error) == Concerns::All, 0);
        let mut last = SharedError::new(error);
        for call in calls {
            self.session.outcome_unknown = outcome_unknown;
            if is_for_all || waits == MOST_WAITS {
                call.answer(Err(self.session.mark(last.copy())));
                continue;
            }
            let done = match self.write_call(&call.appends).await {
                Err(error) if concerns(&error) != Concerns::One => {
                    let is_unknown = error.outcome_unknown();
                    // Waiting for another such error would help nobody.
                    let is_all = concerns(&error) == Concerns::All;
                    waits = if is_all { MOST_WAITS } else { waits + 1 };
                    last = SharedError::new(error);
                    let error = last.copy();
                    Err(if is_unknown { error.with_outcome_unknown() } else { error })
                }
                done => done,
            };
            call.answer(done);
        }
    }

    /// Writes the appends of one call.
    async fn write_call(&mut self, appends: &[Append]) -> Result<Vec<Appended>> {
        let requests: Vec<_> = appends.iter().map(AppendRequest::new).collect();
        let outcomes = self.send(&requests, &[count(requests.len())], requests.len() > 1).await?;
        self.finish(appends, outcomes).await
    }

    /// Makes the answer of a call.
    async fn finish(
        &mut self,
        appends: &[Append],
        mut outcomes: Vec<AppendOutcome>,
    ) -> Result<Vec<Appended>> {
        // Each round but the last finds that an append with the same first id came in between.
        for _ in 0..MOST_ROUNDS {
            outcomes = match append::judge(appends, outcomes)? {
                Next::Answer(answers) => return Ok(answers),
                Next::SendAgain(again) => {
                    self.send(&again, &[count(again.len())], again.len() > 1).await?
                }
            };
        }
        Err(self.session.mark(append::in_the_way()))
    }

    /// Sends appends, and wakes subscribers if some were written, or may have been.
    async fn send(
        &mut self,
        requests: &[AppendRequest<'_>],
        rounds: &[i32],
        all_or_none: bool,
    ) -> Result<Vec<AppendOutcome>> {
        let sent = self.try_send(requests, rounds, all_or_none).await;
        let is_written = |outcome: &AppendOutcome| matches!(outcome, AppendOutcome::Written(_));
        let any_written = sent.as_ref().is_ok_and(|outcomes| outcomes.iter().any(is_written));
        if self.session.outcome_unknown || any_written {
            self.writers.database.notifier.committed();
        }
        sent.map_err(|error| self.session.mark(error))
    }

    async fn try_send(
        &mut self,
        requests: &[AppendRequest<'_>],
        rounds: &[i32],
        all_or_none: bool,
    ) -> Result<Vec<AppendOutcome>> {
        let Self { writers, task, session } = self;
        let Database { connections, sql, lock_key, .. } = &*writers.database;
        let mut attempts = Attempts::default();
        loop {
            let begun = Instant::now();
            let connection = session.connection(connections, &mut attempts);
            let connection = writers.watch(task, connection).await;
            let mut connection = match connection {
                Err(error) if concerns(&error) == Concerns::All => {
                    // The appends that wait behind these have waited for a connection as long.
                    let error = SharedError::new(error);
                    for call in task.take_older(begun) {
                        call.answer(Err(error.copy()));
                    }
                    return Err(error.copy());
                }
                connection => connection?,
            };
            let sent = async {
                let statement = append::statement(sql, *lock_key, requests, rounds, all_or_none);
                append::outcomes(&connection.run_one(statement).await?, requests)
            };
            let answer = writers.watch(task, connections.with_timeout(sent)).await;
            let next = session.answered(connections, connection, answer, &mut attempts);
            if let ControlFlow::Break(done) = next {
                return done;
            }
        }
    }
}
