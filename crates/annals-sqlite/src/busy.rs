//! Waiting for others who hold a lock.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Failure, is_busy};

/// How long to sleep between two tries. SQLite's own handler sleeps up to 100 ms, and starves
/// next to a writer that pauses for less than that; random, so that two do not try in step.
const NAPS: std::ops::Range<Duration> = Duration::from_micros(200)..Duration::from_millis(1);

/// Tries again while the database is locked, for one timeout in all.
#[derive(Debug)]
pub(crate) struct Patience {
    timeout: Duration,
    /// When it ends; set by the first try that fails, so that the usual case reads no clock.
    until: Option<Instant>,
    random: u64,
}

impl Patience {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, until: None, random: 0 }
    }

    /// Does the work, again and again while it fails because of a lock.
    pub(crate) fn retry<T>(
        &mut self,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            match work() {
                Err(Failure::Driver(error)) if is_busy(&error) => {
                    if !self.wait() {
                        return Err(error.into());
                    }
                }
                done => return done,
            }
        }
    }

    /// Sleeps a little, unless the timeout is over.
    fn wait(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert_with(|| {
            tracing::debug!("the database is locked by others; waiting");
            self.random = RandomState::new().build_hasher().finish();
            // A timeout beyond what the clock can say is for ever, near enough.
            now.checked_add(self.timeout).unwrap_or(now + Duration::from_secs(1 << 30))
        });
        if now >= until {
            return false;
        }
        // Knuth's generator: good enough to be out of step.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let span = u64::try_from((NAPS.end - NAPS.start).as_micros()).unwrap_or(1);
        let nap = NAPS.start + Duration::from_micros((self.random >> 33) % span);
        thread::sleep(nap.min(until - now));
        true
    }
}
