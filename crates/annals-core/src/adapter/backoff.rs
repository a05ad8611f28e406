//! Pauses between tries.

use std::time::Duration;

/// The pauses between tries of the same thing: each about twice as long as the one before, up to a
/// longest. A pause is a random time between half and all of its length, so that many clients that
/// failed together do not come back together.
///
/// ```
/// use std::time::Duration;
/// use annals_core::adapter::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// assert!(backoff.next_pause() <= Duration::from_millis(20));
/// assert!(backoff.next_pause() <= Duration::from_millis(40));
/// assert!((0..99).all(|_| backoff.next_pause() <= Duration::from_secs(1)));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with a first pause of this length. Equal lengths give pauses that do not grow.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first.min(longest), longest }
    }

    /// How long to wait now.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
