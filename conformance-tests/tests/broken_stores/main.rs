//! Proves that the suite works: on stores that break one rule each, the case of that rule has to
//! fail.
//!
//! Every broken store is the reference in memory behind a simulated server ([`server`]), with one
//! [`Bug`]. The whole suite runs on each of them. The case that [`BUGS`] names must be among those
//! that fail, and not by a timeout unless the bug can only show so. The store without a bug must
//! pass every case, with none ignored.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub)]

mod bug;
mod lease;
mod names;
mod place;
mod server;
mod snapshot;
mod store;
mod subscription;
mod transfer;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use annals_conformance::{Arguments, Case, Outcome, cases, run_case};
use bug::{BUGS, Broken, Bug};
use libtest_mimic::{Failed, Trial};
use server::Simulated;

/// The number of the last rule of the contract that has cases here.
const RULES: u8 = 25;
/// How long a case on a broken store waits for something that may never happen.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The cases panic here hundreds of times, as they should: do not print each panic.
    std::panic::set_hook(Box::new(|_| {}));
    let mut trials = vec![
        Trial::test("the_intact_store_passes", intact),
        Trial::test("every_rule_has_a_case_and_a_broken_store", coverage),
    ];
    for broken in BUGS {
        trials.push(Trial::test(format!("broken::{:?}", broken.bug), || caught(broken)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs all cases concurrently, since many of them do nothing but wait.
fn run_all(bug: Option<Bug>, patience: Duration) -> Result<Vec<(Case, Outcome)>, Failed> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(20_240_607);
    let runtime = runtime.map_err(|e| Failed::from(e.to_string()))?;
    let harness = Arc::new(Simulated::new(bug, patience));
    let runs = cases().into_iter().map(|case| {
        let run = runtime.spawn(run_case(harness.clone(), case, seed));
        async move { (case, run.await.unwrap_or_else(|e| Outcome::Failed(e.to_string()))) }
    });
    let outcomes = runtime.block_on(futures::future::join_all(runs));
    runtime.shutdown_background();
    Ok(outcomes)
}

fn intact() -> Result<(), Failed> {
    let wrong: Vec<String> = run_all(None, LONG)?
        .into_iter()
        .filter(|(_, outcome)| *outcome != Outcome::Passed)
        .map(|(case, outcome)| format!("{}::{}: {outcome:?}", case.theme, case.name))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn caught(broken: &Broken) -> Result<(), Failed> {
    let mut failures: BTreeMap<String, String> = BTreeMap::new();
    for (case, outcome) in run_all(Some(broken.bug), SHORT)? {
        if let Outcome::Failed(reason) = outcome {
            failures.insert(format!("{}::{}", case.theme, case.name), reason);
        }
    }
    match failures.get(broken.case) {
        Some(reason) if !broken.by_waiting && reason.contains("timed out after") => {
            Err(format!("{} failed only by a timeout: {reason}", broken.case).into())
        }
        Some(_) => Ok(()),
        None => Err(format!("{} did not fail; these did: {failures:#?}", broken.case).into()),
    }
}

fn coverage() -> Result<(), Failed> {
    let cases = cases();
    let by_name = |name: &str| cases.iter().find(|c| format!("{}::{}", c.theme, c.name) == name);
    let (mut checked, mut broken_rules) = (BTreeSet::<u8>::new(), BTreeSet::new());
    cases.iter().for_each(|case| checked.extend(case.rules));
    for broken in BUGS {
        let case = by_name(broken.case).ok_or_else(|| format!("no case {}", broken.case))?;
        if !case.rules.contains(&broken.rule) {
            return Err(format!("{} does not check rule {}", broken.case, broken.rule).into());
        }
        broken_rules.insert(broken.rule);
    }
    for rule in 1..=RULES {
        if !checked.contains(&rule) || !broken_rules.contains(&rule) {
            return Err(format!("rule {rule} has no case, or no broken store").into());
        }
    }
    let names: BTreeSet<_> = BUGS.iter().map(|broken| format!("{:?}", broken.bug)).collect();
    if names.len() == BUGS.len() { Ok(()) } else { Err("a bug is listed twice".into()) }
}
