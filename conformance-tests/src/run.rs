//! Runs the cases: each as a test of its own, or all of them from a program.

use std::{
    any::Any,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::{
    Case, Harness, Table,
    case::{Context, Stop},
    cases, refuse,
};

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The store keeps the promise.
    Passed,
    /// The store declares that it does not make the promise, and refuses.
    Declared,
    /// The case could not be run, for this reason.
    Ignored(String),
    /// The store breaks the promise, or the case could not do what it must be able to.
    Failed(String),
}

/// The environment variable with the seed of every random choice.
const SEED: &str = "ANNALS_SEED";
/// The environment variable with the harnesses that must not be ignored, separated by commas.
const REQUIRE: &str = "ANNALS_REQUIRE";

/// Runs every case as a test of its own: the whole `main` of a test target with `harness = false`.
/// Takes the command line of `cargo test`, works under `cargo nextest`, and prints a table of the
/// themes when it ran more than one case.
pub fn main(harness: impl Harness) -> ExitCode {
    run(&Arguments::from_args(), vec![Arc::new(harness)])
}

/// [`main`], for several harnesses and with parsed arguments.
pub fn run(arguments: &Arguments, harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => Arc::new(runtime),
        Err(e) => {
            eprintln!("annals-conformance: no runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let seed = seed();
    let table = Arc::new(Mutex::new(Table::default()));
    let mut trials = Vec::new();
    for harness in harnesses {
        let unavailable = unavailable(&runtime, &*harness);
        for case in cases() {
            let (harness, runtime, table) = (harness.clone(), runtime.clone(), table.clone());
            let known = unavailable.clone().or_else(|| ignored(&*harness, &case));
            // `cargo nextest` lists first, and has no other way to learn that a case is ignored;
            // `cargo test` is told why.
            let list_as_ignored = arguments.list && matches!(known, Some(Outcome::Ignored(_)));
            let name = format!("{}::{}::{}", harness.name(), case.theme, case.name);
            let trial = Trial::ignorable_test(name, move || {
                let outcome = match known {
                    Some(outcome) => outcome,
                    None => runtime.block_on(run_case(harness.clone(), case, seed)),
                };
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.add(harness.name(), &case, &outcome);
                match outcome {
                    Outcome::Passed | Outcome::Declared => Ok(Completion::Completed),
                    Outcome::Ignored(reason) => Ok(Completion::ignored_with(reason)),
                    Outcome::Failed(reason) => Err(Failed::from(format!(
                        "{reason}\nrules {:?} of the contract; replay with {SEED}={seed}",
                        case.rules
                    ))),
                }
            });
            trials.push(trial.with_ignored_flag(list_as_ignored));
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.forget_single_cases();
    print!("{table}");
    conclusion.exit_code()
}

fn runtime() -> std::io::Result<Runtime> {
    // At least two threads, so that concurrent cases are concurrent on every machine.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// What becomes of every case where the store cannot be reached.
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

/// What becomes of a case that needs harm which cannot be done.
fn ignored(harness: &dyn Harness, case: &Case) -> Option<Outcome> {
    let cannot = |&fault| harness.cannot_inject(fault).map(|reason| format!("{fault:?}: {reason}"));
    case.faults.iter().find_map(cannot).map(Outcome::Ignored)
}

/// Runs one case in a namespace of its own, and cleans up after it.
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
