//! Futures that are dropped while they wait, as if their process had died at that point.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Polls a future at most this many times, then drops it. Returns its result if it was ready by then.
pub(crate) async fn dropped_after<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Random numbers. The seed is printed, and `ANNALS_SEED` sets it.
pub(crate) fn rng(test: &str) -> fastrand::Rng {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: ANNALS_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
