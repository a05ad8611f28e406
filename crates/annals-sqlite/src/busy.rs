//! Waits while other connections hold a lock on the database.

use std::{
    thread,
    time::{Duration, Instant},
};

use annals_core::adapter::Backoff;

use crate::error::{Failure, is_busy};

/// The first and the longest pause between two tries. SQLite's own busy handler sleeps for up to
/// 100 ms, so it starves beside a writer that pauses for less than that.
const PAUSES: (Duration, Duration) = (Duration::from_micros(400), Duration::from_millis(1));

/// Retries work while the database is locked, until the busy timeout is over. Several pieces of
/// work can share one timeout.
#[derive(Debug)]
pub(crate) struct BusyRetry {
    timeout: Duration,
    /// When the timeout ends. The first failed try sets it, so that work that does not wait reads
    /// no clock.
    until: Option<Instant>,
    backoff: Backoff,
}

impl BusyRetry {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, until: None, backoff: Backoff::new(PAUSES.0, PAUSES.1) }
    }

    /// Does the work, and repeats it while it fails because the database is locked.
    pub(crate) fn retry<T>(
        &mut self,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            match work() {
                Err(Failure::Driver(error)) if is_busy(&error) => {
                    if !self.pause() {
                        return Err(error.into());
                    }
                }
                done => return done,
            }
        }
    }

    /// Sleeps for a short time. Returns `false`, without a sleep, if the timeout is over.
    fn pause(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert_with(|| {
            tracing::debug!("the database is locked by another connection; waiting");
            // If the clock cannot represent the end of the timeout, wait for 34 years.
            now.checked_add(self.timeout).unwrap_or(now + Duration::from_secs(1 << 30))
        });
        if now >= until {
            return false;
        }
        thread::sleep(self.backoff.next_pause().min(until - now));
        true
    }
}
