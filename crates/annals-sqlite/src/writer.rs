//! The thread that makes every change, as many in one transaction as wait.
//!
//! One transaction costs one wait for the disk, however many changes it holds, and SQLite has one
//! writer at a time in any case. Each change is judged by itself: one that is refused costs the
//! others nothing.

use std::{
    slice,
    sync::Arc,
    thread::{self, JoinHandle},
};

use annals_core::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::{
    busy::Patience,
    database::Database,
    error::driver,
    notify::Notifier,
    queue::{Answer, Job, Queue},
    session::{Aborted, Session},
};

/// Starts the thread. It ends, and closes its connection, when the queue is closed and empty.
pub(crate) fn start(
    database: Arc<Database>,
    connection: Connection,
    notifier: Arc<Notifier>,
) -> Result<(Arc<Queue>, JoinHandle<()>)> {
    let queue = Arc::new(Queue::new());
    let mut writer = Writer {
        database,
        notifier,
        queue: queue.clone(),
        jobs: Vec::new(),
        alone: false,
        now: DateTime::UNIX_EPOCH,
    };
    let thread = thread::Builder::new()
        .name("annals-sqlite".to_owned())
        .spawn(move || writer.run(connection))
        .map_err(|e| {
            Error::new(ErrorKind::Unavailable, "no thread could be started").with_source(e)
        })?;
    Ok((queue, thread))
}

struct Writer {
    database: Arc<Database>,
    notifier: Arc<Notifier>,
    queue: Arc<Queue>,
    /// What was taken from the queue and not answered yet.
    jobs: Vec<Job>,
    /// Whether they failed together, and are to be tried one by one.
    alone: bool,
    /// The clock, as it was read last.
    now: DateTime<Utc>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also where the thread unwinds: nobody waits for it then.
        self.queue.end();
    }
}

impl Writer {
    fn run(&mut self, connection: Connection) {
        let mut connection = Some(connection);
        loop {
            if self.jobs.is_empty() && !self.queue.take(&mut self.jobs, 0) {
                return;
            }
            let opened = match connection.take() {
                Some(connection) => Ok(connection),
                None => self.database.writer().map_err(Error::from),
            };
            match opened {
                Ok(connection) => self.serve(&connection),
                Err(error) => self.refuse(error),
            }
        }
    }

    /// Makes changes until there are no more, or the connection is lost.
    fn serve(&mut self, connection: &Connection) {
        let database = self.database.clone();
        let mut session = match Session::new(&database, connection, self.now) {
            Ok(session) => session,
            Err(error) => return self.refuse(driver(error)),
        };
        loop {
            let count = self.jobs.len();
            let usable = self.batch(&mut session);
            self.now = session.now;
            if !usable || !self.queue.take(&mut self.jobs, count) {
                return;
            }
        }
    }

    /// Makes the changes that were taken, together; where that fails, each alone, so that one that
    /// cannot be made harms only itself. Says whether the connection can still be used.
    fn batch(&mut self, session: &mut Session<'_>) -> bool {
        let mut patience = Patience::new(self.database.config.busy_timeout);
        let mut jobs = std::mem::take(&mut self.jobs);
        if !self.alone && jobs.len() > 1 {
            match session.transact(&jobs, &mut patience) {
                Ok(answers) => {
                    self.committed(session, jobs.len());
                    self.answer(jobs.drain(..).zip(answers).collect());
                    self.jobs = jobs;
                    return true;
                }
                Err(Aborted { error, usable }) => {
                    tracing::debug!(%error, changes = jobs.len(), "trying each change alone");
                    self.alone = true;
                    if !usable {
                        self.jobs = jobs;
                        return false;
                    }
                }
            }
        }
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            match session.transact(slice::from_ref(&job), &mut patience) {
                Ok(mut answers) => {
                    self.committed(session, 1);
                    if let Some(answer) = answers.pop() {
                        self.answer_one(job, answer);
                    }
                }
                Err(Aborted { error, usable }) => {
                    self.answer_one(job, Err(error));
                    if !usable {
                        self.jobs = jobs.collect();
                        return false;
                    }
                }
            }
        }
        self.alone = false;
        true
    }

    fn committed(&self, session: &Session<'_>, changes: usize) {
        self.queue.count_commit();
        if session.has_appended {
            self.notifier.wake();
        }
        tracing::debug!(changes, "committed");
    }

    /// Answers those who asked by a task of the runtime in which they wait: to wake another task
    /// there costs next to nothing, from here a call of the kernel for each.
    fn answer(&self, mut answers: Vec<(Job, Result<Answer>)>) {
        self.queue.release(answers.iter().map(|(job, _)| job.units as usize).sum());
        while let Some((job, _)) = answers.first() {
            let runtime = job.runtime.clone();
            let here = |(job, _): &mut (Job, _)| job.runtime.id() == runtime.id();
            let together: Vec<_> = answers.extract_if(.., here).collect();
            runtime.spawn(async move {
                together.into_iter().for_each(|(job, answer)| job.answer(answer));
            });
        }
    }

    /// Answers somebody who is alone, and so not worth a task.
    fn answer_one(&self, job: Job, answer: Result<Answer>) {
        self.queue.release(job.units as usize);
        job.answer(answer);
    }

    /// Answers all that was taken by the error that kept it from being begun.
    fn refuse(&mut self, error: Error) {
        let error = Arc::new(error);
        let jobs = std::mem::take(&mut self.jobs);
        let refused = jobs.into_iter().map(|job| {
            let message = "the writer has no connection to the database";
            (job, Err(Error::new(error.kind(), message).with_source(error.clone())))
        });
        self.answer(refused.collect());
    }
}
