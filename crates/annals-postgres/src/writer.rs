//! Writes appends. Those that wait share a transaction.
//!
//! A commit costs the server the same for one append as for thirty. So a task takes all appends
//! that wait when it begins a transaction; an append that comes alone is sent alone, at once. A
//! transaction is always one statement: the server ends it whatever happens to the client, so that
//! its locks last as long as the server works on it, and not as long as a network hangs.

use std::{ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use annals_core::{Append, Appended, Error, Result, adapter};
use tokio::runtime::Handle;

use crate::{
    append::{self, AppendOutcome, AppendRequest},
    call::{AppendCall, count, in_rounds},
    database::Database,
    error::{copy_if_unreachable, internal, runtime, runtime_ended},
    queue::{Queue, WritingTask},
    resend::{Attempts, WriteSession},
};

/// How long a task waits for its answer before another task may take the appends behind it: many
/// times as long as a transaction takes that does not wait for a lock.
const STUCK: Duration = Duration::from_millis(10);

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
        let (call, answered) = AppendCall::new(appends);
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
            Err(error) => {
                tracing::debug!(%error, appends = calls.len(), "sending each append by itself");
                for call in calls {
                    self.session.outcome_unknown = outcome_unknown;
                    // If there is no server, each append would only wait as long again.
                    let done = match copy_if_unreachable(&error) {
                        Some(error) => Err(self.session.mark(error)),
                        None => self.write_call(&call.appends).await,
                    };
                    call.answer(done);
                }
                return;
            }
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

    /// Writes the appends of one call.
    async fn write_call(&mut self, appends: &[Append]) -> Result<Vec<Appended>> {
        let requests: Vec<_> = appends.iter().map(AppendRequest::new).collect();
        let outcomes = self.send(&requests, &[count(requests.len())], requests.len() > 1).await?;
        self.finish(appends, outcomes).await
    }

    /// Makes the answer of a call. Appends that were not written are retries, or conflicts, or are
    /// sent again.
    async fn finish(
        &mut self,
        appends: &[Append],
        outcomes: Vec<AppendOutcome>,
    ) -> Result<Vec<Appended>> {
        let (mut written, mut unwritten, mut judged) = (Vec::new(), Vec::new(), Vec::new());
        for (append, outcome) in appends.iter().zip(outcomes) {
            let (head, retry_after) = match outcome {
                AppendOutcome::Written(appended) => {
                    written.push(appended);
                    continue;
                }
                AppendOutcome::NotWritten { head, retry_after } => (head, retry_after),
            };
            let base = head.compare_after(append, || retry_after)?;
            let replayed = match base {
                Some(base) => {
                    // Looking for ids takes a connection, and this task may hold the last one.
                    self.session.give_back();
                    let Database { connections, sql, .. } = &*self.writers.database;
                    let found = append::find_replayed(connections, sql, append, base).await;
                    head.compared(append, found.map_err(|e| self.session.mark(e.into()))?)?
                }
                None => None,
            };
            unwritten.push(AppendRequest { append, is_new: base.is_some() });
            judged.push((head, replayed));
        }
        if unwritten.is_empty() {
            return Ok(written);
        }
        if !written.is_empty() {
            return Err(internal("a part of an append was written"));
        }
        match adapter::all_or_none(appends, &judged)? {
            Some(replayed) => Ok(replayed),
            None => self.send_again(&unwritten).await,
        }
    }

    /// Sends appends again that are no retries, and whose expectations hold.
    async fn send_again(&mut self, requests: &[AppendRequest<'_>]) -> Result<Vec<Appended>> {
        let outcomes = self.send(requests, &[count(requests.len())], requests.len() > 1).await?;
        let mut written = Vec::with_capacity(outcomes.len());
        for (AppendRequest { append, .. }, outcome) in requests.iter().zip(outcomes) {
            match outcome {
                AppendOutcome::Written(appended) => written.push(appended),
                AppendOutcome::NotWritten { head, retry_after } => {
                    if head.compare_after(append, || retry_after)?.is_some() {
                        let Append { stream, expected, .. } = append;
                        return Err(Error::lost_race(stream, *expected, head.version));
                    }
                }
            }
        }
        if written.len() < requests.len() {
            return Err(internal("an append was not written"));
        }
        Ok(written)
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
            let mut connection = session.connection(connections, &mut attempts).await?;
            let sent = append::send(&mut connection, sql, *lock_key, requests, rounds, all_or_none);
            let answer = writers.watch(task, connections.with_timeout(sent)).await;
            let next = session.answered(connections, connection, answer, &mut attempts);
            if let ControlFlow::Break(done) = next {
                return done;
            }
        }
    }
}
