//! Runs the histories of a case.

use std::time::Instant;

use futures::{StreamExt, stream};

use super::{
    play::Stage,
    program::{Mix, Program},
    report::report,
    shrink::shrink,
    trial::{Failure, trial},
};
use crate::case::{CaseResult, Context, Stop};

/// The environment variable with the number of histories that a run has, over all its cases.
const HISTORIES: &str = "ANNALS_HISTORIES";
/// The environment variable with the number of the only history to run, and how often it is run.
const HISTORY: &str = "ANNALS_HISTORY";
const REPLAYS: u64 = 1_000;

/// How many histories share a namespace. To open one takes longer than to run a history, but a read of
/// all that goes backwards looks at the events of all histories before.
const IN_A_NAMESPACE: usize = 100;
/// How many histories run at once: more of them would disturb each other more, but a read of all has to
/// look at the events of all.
const AT_ONCE: usize = 4;
/// How many handles the tasks of a history share.
const HANDLES: usize = 3;

/// Runs histories: so many in a hundred of those of a whole run.
pub(crate) async fn check(cx: Context, case: &str, mut mix: Mix, percent: u64) -> CaseResult {
    if let Some(reason) = cx.removes_in_steps().filter(|_| mix.removals > 0) {
        if mix.only_removes() {
            return Err(Stop::Ignored(reason));
        }
        mix.removals = 0;
    }
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let all = number(HISTORIES).unwrap_or_else(|| cx.histories().into());
    let runs: Vec<(u64, u64)> = match number(HISTORY) {
        Some(nth) => (0..REPLAYS).map(|attempt| (nth, attempt)).collect(),
        None => (0..(all * percent / 100).max(1)).map(|nth| (nth, 0)).collect(),
    };
    for runs in runs.chunks(IN_A_NAMESPACE) {
        let place = cx.another();
        let handles = place.open_unwatched(HANDLES).await;
        let stage = Stage { handles, patience: cx.patience() };
        let failed = first_failure(&cx, &stage, &mix, runs.to_vec()).await;
        if let Some((nth, first)) = failed {
            let (smallest, tried) = shrink(&stage, &first, Instant::now() + cx.patience()).await;
            let replay = replay(&cx, case, nth);
            return Err(Stop::Failed(report(nth, &first, &smallest, tried, &replay)));
        }
        drop(stage);
        place.clean_up().await.map_err(|e| Stop::Failed(format!("cannot clean up: {e}")))?;
    }
    Ok(())
}

async fn first_failure(
    cx: &Context,
    stage: &Stage,
    mix: &Mix,
    runs: Vec<(u64, u64)>,
) -> Option<(u64, Failure)> {
    let started = runs.into_iter().map(|(nth, attempt)| {
        let seed = cx.rng(nth).u64(..);
        let (stage, mix) = (stage.clone(), *mix);
        async move {
            let run = tokio::spawn(async move {
                let program = Program::new(seed, &mix, stage.capabilities());
                trial(&stage, program, attempt).await
            });
            (nth, run.await.unwrap())
        }
    });
    let mut ended = stream::iter(started).buffer_unordered(AT_ONCE);
    while let Some((nth, judged)) = ended.next().await {
        if let Err(failure) = judged {
            return Some((nth, failure));
        }
    }
    None
}

fn replay(cx: &Context, case: &str, nth: u64) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let (seed, harness) = (cx.seed(), cx.harness_name());
    let program = program.display();
    format!("ANNALS_SEED={seed} {HISTORY}={nth} {program} --exact {harness}::history::{case}")
}
