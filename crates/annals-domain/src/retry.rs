//! How often to try again, and how long to wait before.

use std::time::Duration;

use annals_core::{Error, Result};

use crate::observe;

/// How a call that failed is made again. The default: up to 100 lost races, and 12 failures in a
/// row, which with their pauses are about ten seconds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The most races that one command may lose. Each was won by another writer.
    pub max_conflicts: u32,
    /// The most failures of one call that may pass by themselves, or whose outcome is unknown.
    pub max_failures: u32,
    /// The pause after the first failure; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_conflicts: 100,
            max_failures: 12,
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// Sets how many races one command may lose.
    #[must_use]
    pub fn with_max_conflicts(mut self, conflicts: u32) -> Self {
        self.max_conflicts = conflicts;
        self
    }

    /// Sets how many failures of one call are tried again.
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

    /// Does the work until it succeeds, or fails for good. Where a try may have been written, so it
    /// may have been in the end, whatever the last one says; but for a conflict, which is what comes
    /// where it was not.
    pub(crate) async fn run<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut patience = self.patience();
        let mut unknown = false;
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            unknown |= error.outcome_unknown();
            if let Err(error) = patience.wait(error).await {
                let unknown = unknown && error.conflict().is_none();
                return Err(if unknown { error.with_outcome_unknown() } else { error });
            }
        }
    }

    pub(crate) fn patience(&self) -> Patience<'_> {
        Patience { policy: self, failures: 0 }
    }

    /// A pause for the loser of its `conflicts`th race, so that many do not meet again and again:
    /// none for the first few, since the winner is done.
    pub(crate) async fn after_conflict(&self, conflicts: u32) {
        const AT_ONCE: u32 = 4;
        if let Some(times) = conflicts.checked_sub(AT_ONCE) {
            self.pause(times.min(2)).await;
        }
    }

    /// A random time, up to the first pause doubled that often.
    pub(crate) async fn pause(&self, doublings: u32) {
        let longest = self.first_pause.saturating_mul(1 << doublings.min(20));
        let longest = longest.min(self.longest_pause);
        tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// What is left of the tries for one call.
pub(crate) struct Patience<'a> {
    policy: &'a RetryPolicy,
    failures: u32,
}

impl Patience<'_> {
    /// Returns when it is time to try again; or gives the error back, where that does not help.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<()> {
        let passing = error.is_retryable() || error.outcome_unknown();
        if !passing || self.failures >= self.policy.max_failures {
            return Err(error);
        }
        tracing::debug!(%error, failures = self.failures, "trying again");
        metrics::counter!(observe::RETRIES).increment(1);
        self.policy.pause(self.failures).await;
        self.failures += 1;
        Ok(())
    }
}
