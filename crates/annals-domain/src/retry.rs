//! How often calls are retried, and the pauses in between.

use std::time::Duration;

use annals_core::{Error, ErrorKind, Result, adapter::Backoff};
use tokio::time::Instant;

use crate::observe;

/// How often to retry. By default, a command may lose up to 100 races against other writers, and a
/// call may fail 12 times in a row, but takes at most 30 seconds with all its tries.
///
/// ```
/// use std::time::Duration;
/// use annals_domain::RetryPolicy;
///
/// let policy = RetryPolicy::default()
///     .with_max_failures(5)
///     .with_deadline(Duration::from_secs(10))
///     .with_pauses(Duration::from_millis(20), Duration::from_secs(1));
/// # assert_eq!((policy.max_failures, policy.max_conflicts), (5, 100));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How many conflicts one command may have: each time, another writer was faster.
    pub max_conflicts: u32,
    /// How many failures in a row one call may have, if they are temporary or their outcome is
    /// unknown. Other failures are not retried.
    pub max_failures: u32,
    /// The pause after the first failure. Each further pause is twice as long. A pause is a random
    /// time between half and all of its length.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long one call of a command to the store may take, with all its tries and pauses, and how long
    /// a command may go on losing races. A try that is under way then is given up: the outcome of an
    /// append is unknown. For the calls of a running projection only the failures count.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_conflicts: 100,
            max_failures: 12,
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(2),
            deadline: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// Sets how many conflicts one command may have.
    #[must_use]
    pub fn with_max_conflicts(mut self, conflicts: u32) -> Self {
        self.max_conflicts = conflicts;
        self
    }

    /// Sets how many failures in a row one call may have.
    #[must_use]
    pub fn with_max_failures(mut self, failures: u32) -> Self {
        self.max_failures = failures;
        self
    }

    /// Sets the first and the longest pause.
    #[must_use]
    pub fn with_pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest);
        self
    }

    /// Sets how long one call to the store may take, with all its tries and pauses.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Reads: repeats the work until it succeeds or fails for good, or the deadline is over.
    pub(crate) async fn run<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempts = self.attempts();
        loop {
            match attempts.within_deadline(work()).await {
                Ok(done) => return Ok(done),
                Err(error) => attempts.pause_after(error).await?,
            }
        }
    }

    /// Writes: repeats the work until it succeeds or fails for good, or the deadline is over. If the
    /// outcome of any try is unknown, so is that of the whole, whatever error the last try returns. A
    /// conflict is the exception: it proves that no try was written, since a retry of a write is
    /// recognised.
    pub(crate) async fn write<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempts = Attempts { is_write: true, ..self.attempts() };
        let mut unknown = false;
        loop {
            let error = match attempts.within_deadline(work()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            unknown |= error.outcome_unknown();
            if let Err(error) = attempts.pause_after(error).await {
                let unknown = unknown && error.conflict().is_none();
                return Err(if unknown { error.with_outcome_unknown() } else { error });
            }
        }
    }

    pub(crate) fn attempts(&self) -> Attempts {
        Attempts { until: self.until(), ..self.attempts_without_deadline() }
    }

    pub(crate) fn attempts_without_deadline(&self) -> Attempts {
        let (max, backoff, deadline) = (self.max_failures, self.backoff(), self.deadline);
        Attempts { failures: 0, max, backoff, until: None, deadline, is_write: false, last: None }
    }

    fn until(&self) -> Option<Instant> {
        Instant::now().checked_add(self.deadline)
    }

    pub(crate) fn conflicts(&self) -> Conflicts {
        let longest = self.longest_pause.min(self.first_pause.saturating_mul(4));
        let backoff = Backoff::new(self.first_pause, longest);
        Conflicts { count: 0, max: self.max_conflicts, backoff, until: self.until() }
    }

    /// The pauses between tries, without a limit to their number.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.first_pause, self.longest_pause)
    }
}

/// The failures in a row of one call.
pub(crate) struct Attempts {
    failures: u32,
    max: u32,
    backoff: Backoff,
    /// `None` if there is no deadline.
    until: Option<Instant>,
    deadline: Duration,
    /// Whether a try that is given up may have written.
    is_write: bool,
    /// The text of the last failure.
    last: Option<(ErrorKind, String)>,
}

impl Attempts {
    /// Gives a try up when the deadline is over.
    pub(crate) async fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(until) = self.until else { return work.await };
        tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| {
            let deadline = self.deadline;
            let (kind, before) = match &self.last {
                Some((kind, before)) => (*kind, format!("; the last failure before: {before}")),
                None => (ErrorKind::Unavailable, String::new()),
            };
            let message = format!("the store gave no answer within {deadline:?}{before}");
            let error = Error::new(kind, message);
            Err(if self.is_write { error.with_outcome_unknown() } else { error })
        })
    }

    /// Pauses before the next try; or returns the error if there is to be none.
    pub(crate) async fn pause_after(&mut self, error: Error) -> Result<()> {
        let is_temporary = error.is_retryable() || error.outcome_unknown();
        let pause = self.backoff.next_pause();
        let is_late = self.until.is_some_and(|until| Instant::now() + pause >= until);
        if !is_temporary || self.failures >= self.max || is_late {
            return Err(error);
        }
        tracing::debug!(%error, failures = self.failures, "a call failed and is retried");
        metrics::counter!(observe::RETRIES).increment(1);
        self.last = Some((error.kind(), error.to_string()));
        tokio::time::sleep(pause).await;
        self.failures += 1;
        Ok(())
    }
}

/// The conflicts of one command.
pub(crate) struct Conflicts {
    pub(crate) count: u32,
    max: u32,
    backoff: Backoff,
    until: Option<Instant>,
}

impl Conflicts {
    /// Counts a conflict and pauses before the command decides again; or returns the error if it is
    /// another one, or one conflict too many.
    pub(crate) async fn pause_after(&mut self, error: Error) -> Result<()> {
        /// The first few conflicts need no pause, since the other writer is done. After those,
        /// pauses keep many writers from meeting again and again.
        const WITHOUT_PAUSE: u32 = 4;
        let is_over = self.until.is_some_and(|until| Instant::now() >= until);
        if error.conflict().is_none() || self.count >= self.max || is_over {
            return Err(error);
        }
        tracing::debug!(%error, conflicts = self.count, "another writer was faster");
        metrics::counter!(observe::COMMAND_CONFLICTS).increment(1);
        if self.count >= WITHOUT_PAUSE {
            tokio::time::sleep(self.backoff.next_pause()).await;
        }
        self.count += 1;
        Ok(())
    }
}
