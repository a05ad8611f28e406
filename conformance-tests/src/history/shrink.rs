//! Makes a program that failed smaller.

use std::time::Instant;

use futures::{StreamExt, stream};

use super::{
    play::Stage,
    program::Program,
    trial::{Failure, trial},
};

/// How often each smaller program is run: a race does not happen in every run.
const RUNS: u64 = 40;
/// How many of these runs are under way at once, so that they disturb each other.
const AT_ONCE: usize = 8;

/// The smallest program that failed as well, and how many programs were tried.
pub(super) async fn shrink(stage: &Stage, first: &Failure, until: Instant) -> (Failure, usize) {
    let (mut smallest, mut tried) = (first.clone(), 0);
    'smaller: loop {
        for program in smallest.program.simpler() {
            if Instant::now() >= until {
                return (smallest, tried);
            }
            tried += 1;
            if let Some(failure) = fails(stage, &program, smallest.attempt).await {
                smallest = failure;
                continue 'smaller;
            }
        }
        return (smallest, tried);
    }
}

async fn fails(stage: &Stage, program: &Program, attempt: u64) -> Option<Failure> {
    let attempts = (0..RUNS).map(|n| trial(stage, program.clone(), attempt.wrapping_add(n)));
    let mut runs = stream::iter(attempts).buffer_unordered(AT_ONCE);
    while let Some(judged) = runs.next().await {
        if let Err(failure) = judged {
            return Some(failure);
        }
    }
    None
}
