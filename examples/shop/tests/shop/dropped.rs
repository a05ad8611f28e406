//! Futures that are dropped where they wait.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Polls a future so many times; nothing where it needs more.
async fn polled<F: Future>(future: F, mut times: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if times <= 1 => Poll::Ready(None),
        Poll::Pending => {
            times -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Makes futures, and drops each at a random poll, later and later, until one comes to its end.
pub(crate) async fn dropped_again_and_again<F: Future>(
    seed: u64,
    mut make: impl FnMut() -> F,
) -> F::Output {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut most = 4;
    loop {
        if let Some(output) = polled(make(), random.u32(1..=most)).await {
            return output;
        }
        most += 2;
    }
}
