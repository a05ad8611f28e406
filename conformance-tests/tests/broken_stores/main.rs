//! Proves that the suite works: on stores that break one rule each, the case of that rule has to
//! fail.
//!
//! Every broken store is the reference in memory behind a simulated server ([`server`]), with one
//! [`Bug`]. The case that [`BUGS`] names must fail on it, and not by a timeout unless the bug can only
//! show so. If it does not, the whole suite runs, to say which cases noticed the bug. The store without
//! a bug must pass every case.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub)]

mod bug;
mod coverage;
mod lease;
mod names;
mod place;
mod racing;
mod server;
mod snapshot;
mod store;
mod subscription;
mod transfer;

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use annals_conformance::{Arguments, Case, Outcome, cases, run_case};
use bug::{BUGS, Broken, Bug};
use libtest_mimic::{Failed, Trial};
use server::Simulated;

/// Cases that may be ignored here: the log of the first is not a part of the repository, and `dying.rs`
/// tests the second, since the simulated server lives in one process.
const ELSEWHERE: [&str; 2] = ["a_real_event_log_is_kept", "what_a_dying_process_appended_stays"];

/// How long a case on a broken store waits for something that may never happen.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The cases panic here hundreds of times, as they should: do not print each panic.
    std::panic::set_hook(Box::new(|_| {}));
    let mut trials = vec![
        Trial::test("the_intact_store_passes", intact),
        Trial::test("every_rule_has_a_case_and_a_broken_store", coverage::complete),
        Trial::test("the_book_shows_the_coverage", coverage::shown),
        Trial::test("the_names_of_cases_are_listed", coverage::listed),
    ];
    for broken in BUGS {
        trials.push(Trial::test(format!("broken::{:?}", broken.bug), || caught(broken)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs cases concurrently, since many of them do nothing but wait.
fn run_cases(
    cases: impl IntoIterator<Item = Case>,
    bug: Option<Bug>,
    patience: Duration,
) -> Result<Vec<(Case, Outcome)>, Failed> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(20_240_607);
    let runtime = runtime.map_err(|e| Failed::from(e.to_string()))?;
    let harness = Arc::new(Simulated::new(bug, patience));
    let runs: Vec<_> = cases
        .into_iter()
        .map(|case| {
            let run = runtime.spawn(run_case(harness.clone(), case, seed));
            async move { (case, run.await.unwrap_or_else(|e| Outcome::Failed(e.to_string()))) }
        })
        .collect();
    let outcomes = runtime.block_on(futures::future::join_all(runs));
    runtime.shutdown_background();
    Ok(outcomes)
}

fn intact() -> Result<(), Failed> {
    let wrong: Vec<String> = run_cases(cases(), None, LONG)?
        .into_iter()
        .filter(|(case, outcome)| match outcome {
            Outcome::Passed => false,
            Outcome::Ignored(reason) if ELSEWHERE.contains(&case.name) => {
                eprintln!("ignored {}::{}: {reason}", case.theme, case.name);
                false
            }
            _ => true,
        })
        .map(|(case, outcome)| format!("{}::{}: {outcome:?}", case.theme, case.name))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn caught(broken: &Broken) -> Result<(), Failed> {
    let named = cases().into_iter().filter(|case| case.full_name() == broken.case);
    match run_cases(named, Some(broken.bug), SHORT)?.pop() {
        Some((_, Outcome::Failed(reason)))
            if !broken.by_waiting && reason.contains("timed out after") =>
        {
            Err(format!("{} failed only by a timeout: {reason}", broken.case).into())
        }
        Some((_, Outcome::Failed(_))) => Ok(()),
        not_noticed => {
            let outcome = not_noticed.map(|(_, outcome)| outcome);
            let others: BTreeMap<_, _> = run_cases(cases(), Some(broken.bug), SHORT)?
                .into_iter()
                .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
                .map(|(case, outcome)| (case.full_name(), outcome))
                .collect();
            Err(format!("{}: {outcome:?}; these failed: {others:#?}", broken.case).into())
        }
    }
}
