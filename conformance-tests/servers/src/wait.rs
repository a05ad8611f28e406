//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::BoxError;

/// How often a condition is looked at: small beside the start of a server, large beside a check.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds, which is asked at least once.
///
/// # Errors
/// When it does not hold `within` that time; the error names `what` was waited for.
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
            return Err(format!("{what}: not after {within:?}").into());
        }
    }
}
