//! The thread that makes all changes. It takes all changes that wait, and makes them in one
//! transaction.
//!
//! A transaction costs one wait for the disk, however many changes it has, and SQLite has only one
//! writer at a time in any case. Each change is judged by itself, so a refused change does not
//! affect the others.

use std::{
    mem, slice,
    sync::Arc,
    thread::{self, JoinHandle},
};

use annals_core::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::{
    busy::BusyRetry,
    database::Database,
    error::driver,
    notify::Notifier,
    queue::{Job, Queue},
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
        one_by_one: false,
        now: DateTime::UNIX_EPOCH,
    };
    let thread = thread::Builder::new()
        .name("annals-sqlite".to_owned())
        .spawn(move || writer.run(connection))
        .map_err(|e| {
            let message = "the writer's thread could not be started";
            Error::new(ErrorKind::Unavailable, message).with_source(e)
        })?;
    Ok((queue, thread))
}

struct Writer {
    database: Arc<Database>,
    notifier: Arc<Notifier>,
    queue: Arc<Queue>,
    /// The jobs that were taken from the queue and not answered yet.
    jobs: Vec<Job>,
    /// Whether these jobs failed in one transaction, so that each gets a transaction of its own.
    one_by_one: bool,
    /// The last time that was recorded.
    now: DateTime<Utc>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // This also runs if the thread panics: then no caller waits for ever.
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
                Err(error) => self.fail_all(error),
            }
        }
    }

    /// Makes changes on a connection until the queue is closed and empty, or the connection cannot
    /// be used any more.
    fn serve(&mut self, connection: &Connection) {
        let database = self.database.clone();
        let mut session = match Session::new(&database, connection, self.now) {
            Ok(session) => session,
            Err(error) => return self.fail_all(driver(error)),
        };
        loop {
            let count = self.jobs.len();
            let usable = self.make_changes(&mut session);
            self.now = session.now;
            if !usable || !self.queue.take(&mut self.jobs, count) {
                return;
            }
        }
    }

    /// Makes the changes that were taken, in one transaction. If that fails, gives each change a
    /// transaction of its own, so that a change that cannot be made does not affect the others.
    /// Returns whether the connection can still be used.
    fn make_changes(&mut self, session: &mut Session<'_>) -> bool {
        let mut busy = BusyRetry::new(self.database.config.busy_timeout);
        let mut jobs = mem::take(&mut self.jobs);
        if !self.one_by_one && jobs.len() > 1 {
            match transact(session, &mut jobs, &mut busy) {
                Ok(()) => {
                    self.committed(session, jobs.len());
                    answer_together(&mut jobs, Job::answer);
                    self.jobs = jobs;
                    return true;
                }
                Err(Aborted { error, usable }) => {
                    tracing::debug!(%error, changes = jobs.len(), "trying each change alone");
                    self.one_by_one = true;
                    if !usable {
                        self.jobs = jobs;
                        return false;
                    }
                }
            }
        }
        let mut jobs = jobs.into_iter();
        while let Some(mut job) = jobs.next() {
            let done = transact(session, slice::from_mut(&mut job), &mut busy);
            match done {
                Ok(()) => {
                    self.committed(session, 1);
                    job.answer();
                }
                Err(Aborted { error, usable }) => {
                    job.fail(error);
                    if !usable {
                        self.jobs = jobs.collect();
                        return false;
                    }
                }
            }
        }
        self.one_by_one = false;
        true
    }

    fn committed(&self, session: &Session<'_>, changes: usize) {
        self.queue.count_commit();
        if session.has_appended {
            self.notifier.wake();
        }
        tracing::debug!(changes, "committed");
    }

    /// Fails all jobs that were taken, because there is no connection to make their changes.
    fn fail_all(&mut self, error: Error) {
        let error = Arc::new(error);
        let mut jobs = mem::take(&mut self.jobs);
        answer_together(&mut jobs, move |job| {
            let message = "the writer has no connection to the database";
            job.fail(Error::new(error.kind(), message).with_source(error.clone()));
        });
    }
}

/// Answers jobs by one task of each runtime in which their callers wait. To wake a task from a
/// thread of its own runtime costs next to nothing; from the writer's thread it costs a system call
/// for each caller.
fn answer_together(jobs: &mut Vec<Job>, answer: impl Fn(Job) + Clone + Send + 'static) {
    while let Some(first) = jobs.first() {
        let runtime = first.runtime.clone();
        let of_runtime = |job: &mut Job| job.runtime.id() == runtime.id();
        let together: Vec<_> = jobs.extract_if(.., of_runtime).collect();
        let answer = answer.clone();
        runtime.spawn(async move { together.into_iter().for_each(answer) });
    }
}

/// Makes the changes of jobs in one transaction.
fn transact(
    session: &mut Session<'_>,
    jobs: &mut [Job],
    busy: &mut BusyRetry,
) -> Result<(), Aborted> {
    session.transact(busy, |session| jobs.iter_mut().try_for_each(|job| job.make(session)))
}
