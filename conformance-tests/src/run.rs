//! Runs the cases: as tests of a test target, or one by one from a program.

use std::{
    any::Any,
    collections::HashSet,
    num::NonZero,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::{
    Case, Harness, Table,
    case::{Context, Stop},
    cases, child, refuse,
};

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The store keeps the promise that the case checks.
    Passed,
    /// The store declares that it lacks a capability that the case needs, and refuses its use.
    Declared,
    /// The case was not run, for this reason.
    Ignored(String),
    /// The store breaks the promise, or the case was not able to check it.
    Failed(String),
}

/// The environment variable with the seed of every random choice.
const SEED: &str = "ANNALS_SEED";
/// The environment variable with the names of the harnesses that must be available, separated by
/// commas.
const REQUIRE: &str = "ANNALS_REQUIRE";

/// Runs every case as a test: the whole `main` of a test target with `harness = false`. It takes
/// the command line of `cargo test`, works under `cargo nextest`, and prints a table of the themes
/// if it ran more than one case.
pub fn main(harness: impl Harness) -> ExitCode {
    run(&Arguments::from_args(), vec![Arc::new(harness)])
}

/// Does what [`main`] does, for several harnesses and with a parsed command line.
pub fn run(arguments: &Arguments, harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => Arc::new(runtime),
        Err(e) => {
            eprintln!("annals-conformance: cannot start the tokio runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(code) = child::run(&runtime, &harnesses) {
        return code;
    }
    let seed = seed();
    let table = Arc::new(Mutex::new(Table::default()));
    let mut trials = Vec::new();
    for harness in harnesses {
        let unavailable = unavailable(&runtime, &*harness);
        trials.extend(skips_that_name_no_case(&*harness));
        for case in cases() {
            let (harness, runtime, table) = (harness.clone(), runtime.clone(), table.clone());
            let known = unavailable.clone().or_else(|| ignored(&*harness, &case));
            // `cargo nextest` learns only from the list that a case is ignored. `cargo test` is
            // told when the case runs, with the reason.
            let list_as_ignored = arguments.list && matches!(known, Some(Outcome::Ignored(_)));
            let name = format!("{}::{}", harness.name(), case.full_name());
            let full_name = name.clone();
            let trial = Trial::ignorable_test(name, move || {
                let began = Instant::now();
                let outcome = match known {
                    Some(outcome) => outcome,
                    None => runtime.block_on(run_case(harness.clone(), case, seed)),
                };
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.add(harness.name(), &case, &outcome, began.elapsed());
                match outcome {
                    Outcome::Passed | Outcome::Declared => Ok(Completion::Completed),
                    Outcome::Ignored(reason) => Ok(Completion::ignored_with(reason)),
                    Outcome::Failed(reason) => Err(Failed::from(format!(
                        "{reason}\n{}\nreplay with {SEED}={seed} {}",
                        case.rules_in_words(),
                        command(&full_name)
                    ))),
                }
            });
            trials.push(trial.with_ignored_flag(list_as_ignored));
        }
    }
    let arguments = Arguments { test_threads: Some(cases_at_once(arguments)), ..arguments.clone() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.forget_single_cases();
    print!("{table}");
    conclusion.exit_code()
}

/// How many cases run at the same time: four for each core if the user does not say, since most cases
/// wait for the store's server most of the time.
fn cases_at_once(arguments: &Arguments) -> usize {
    let given = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
    arguments.test_threads.or(given).unwrap_or(4 * cores)
}

/// The command that runs one test of this program again.
fn command(test: &str) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    // Cargo sets this variable, and gives the program of the target `conformance` a name such as
    // `conformance-6a0274e10b95452d`.
    match (std::env::var("CARGO_PKG_NAME"), program.file_stem().and_then(|stem| stem.to_str())) {
        (Ok(package), Some(stem)) => {
            let target = stem.rsplit_once('-').map_or(stem, |(target, _)| target);
            format!("cargo test -p {package} --test {target} -- --exact {test}")
        }
        _ => format!("{} --exact {test}", program.display()),
    }
}

fn runtime() -> std::io::Result<Runtime> {
    // At least two threads, so that concurrent cases run in parallel on every machine.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// The outcome of every case, if the store cannot be reached.
fn unavailable(runtime: &Runtime, harness: &dyn Harness) -> Option<Outcome> {
    let reason = runtime.block_on(harness.unavailable())?;
    let required = std::env::var(REQUIRE).unwrap_or_default();
    let is_required = required.split(',').any(|name| name.trim() == harness.name());
    Some(if is_required {
        Outcome::Failed(format!("{reason} (and {REQUIRE} names {})", harness.name()))
    } else {
        Outcome::Ignored(reason)
    })
}

/// A failure for each case that the harness skips and that does not exist: a case that got another name
/// would else run again without a word.
fn skips_that_name_no_case(harness: &dyn Harness) -> Vec<Trial> {
    let names: HashSet<_> = cases().iter().map(Case::full_name).collect();
    let unknown = harness.skips().iter().filter(|(name, _)| !names.contains(*name));
    let trials = unknown.map(|(name, _)| {
        let message = format!("the harness skips `{name}`, but the suite has no such case");
        let trial = format!("{}::skips::{name}", harness.name());
        Trial::test(trial, move || Err(Failed::from(message)))
    });
    trials.collect()
}

/// The outcome of a case, if the harness skips it, or cannot inject a fault that the case needs.
fn ignored(harness: &dyn Harness, case: &Case) -> Option<Outcome> {
    let full_name = case.full_name();
    if let Some((_, reason)) = harness.skips().iter().find(|(name, _)| *name == full_name) {
        return Some(Outcome::Ignored(format!("skipped: {reason}")));
    }
    let cannot = |&fault| harness.cannot_inject(fault).map(|reason| format!("{fault:?}: {reason}"));
    case.faults.iter().find_map(cannot).map(Outcome::Ignored)
}

/// Runs one case in a new namespace, and cleans the namespace up.
pub async fn run_case(harness: Arc<dyn Harness>, case: Case, seed: u64) -> Outcome {
    if let Some(outcome) = ignored(&*harness, &case) {
        return outcome;
    }
    let cx = Context::new(harness, seed);
    if let Err(e) = cx.prepare(case.faults).await {
        return Outcome::Failed(format!("the harness cannot prepare the case: {e}"));
    }
    let deadline = cx.deadline();
    let mut run = {
        let cx = cx.clone();
        tokio::spawn(async move {
            let missing = {
                let store = cx.open().await;
                let mut needs = case.needs.iter().copied();
                needs.find(|need| !need.is_met(store.capabilities()))
            };
            match missing {
                Some(need) => refuse::check(cx, need).await.map(|()| Outcome::Declared),
                None => (case.run)(cx).await.map(|()| Outcome::Passed),
            }
        })
    };
    let mut outcome = match tokio::time::timeout(deadline, &mut run).await {
        Ok(Ok(Ok(outcome))) => outcome,
        Ok(Ok(Err(Stop::Ignored(reason)))) => Outcome::Ignored(reason),
        Ok(Ok(Err(Stop::Failed(reason)))) => Outcome::Failed(reason),
        Ok(Err(e)) => Outcome::Failed(panic_text(e)),
        Err(_) => {
            run.abort();
            Outcome::Failed(format!("the case has not ended after {deadline:?}"))
        }
    };
    if let (Err(e), Outcome::Passed | Outcome::Declared) = (cx.clean_up().await, &outcome) {
        outcome = Outcome::Failed(format!("the harness cannot clean up: {e}"));
    }
    outcome
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let text = |payload: &(dyn Any + Send)| {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    };
    match error.try_into_panic() {
        Ok(payload) => text(&*payload).unwrap_or_else(|| "panicked".to_owned()),
        Err(error) => error.to_string(),
    }
}
