//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::BoxError;

/// How often a condition is checked: much less than a server takes to start, and much more than a
/// check takes.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds. The condition is checked at least once.
///
/// # Errors
/// If the condition does not hold `within` this time. The error says `what` was waited for.
pub async fn until<C, F>(what: &str, within: Duration, mut condition: C) -> Result<(), BoxError>
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let deadline = Instant::now() + within;
    let mut ticks = interval(INTERVAL);
    loop {
        ticks.tick().await;
        if condition().await {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("timed out after {within:?} while waiting: {what}").into());
        }
    }
}
