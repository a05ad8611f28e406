//! `annals conformance`: runs the conformance suite, which tests the adapters, on any store.

mod junit;
mod report;
mod result;

use std::{fs::File, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use annals::{Backend, Store};
use annals_conformance::{BoxError, Case, Fault, Harness, cases, run_case};
use async_trait::async_trait;
use clap::Args;
use futures::StreamExt;
use indicatif::ProgressBar;

use crate::{
    conformance::{
        report::Report,
        result::{CaseResult, name},
    },
    failure::{Code, Failure},
    interrupt::Interrupt,
    namespace::Namespaces,
    output,
};

/// The most cases at once. Each opens several stores of ten connections, and many servers allow a
/// hundred.
const MOST_JOBS: usize = 8;

#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct Conformance {
    /// A store, which need not exist.
    #[arg(env = "ANNALS_URL", hide_env_values = true, required_unless_present = "list")]
    url: Option<String>,
    /// Run only cases whose `theme::name` contains this text. May be repeated.
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// How many cases to run at the same time [default: one for each core, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Replay the random choices of an earlier run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the result of each case to this file as JUnit XML, for a CI server.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// List the cases, and run none.
    #[arg(long)]
    list: bool,
}

const AFTER: &str = "\
Each case runs in a namespace of its own, which is removed at its end: a file next to the one named, a \
schema, a table, or a prefix of streams. The store itself is neither read nor written. If a run is \
killed, its namespaces stay; their names contain `annals_tmp_`. Cases that harm a server (cut its \
connections, restart it) are ignored: only the tests of the adapters can do that.

Exit status: 0 if no case failed, 3 if a case failed, 130 after Ctrl-C. After Ctrl-C the running cases \
end first.";

impl Conformance {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let cases = self.cases()?;
        if self.list {
            output::written(report::list(&mut output::stdout(), &cases))?;
            return Ok(ExitCode::SUCCESS);
        }
        let url = self.url.as_deref().unwrap_or_default();
        // Create the file before the suite runs, so that a path that cannot be written fails at once.
        let junit = self.junit.as_ref().map(|path| {
            File::create(path).map_err(|error| Failure::from(error).at(path.display()))
        });
        let junit = junit.transpose()?;
        let interrupt = Interrupt::listen();
        let namespaces = Arc::new(Namespaces::at(url)?);
        namespaces.probe().await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or(cores.min(MOST_JOBS), usize::from);
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        output::say(format_args!(
            "{} cases on {}, {jobs} at a time, seed {seed}",
            cases.len(),
            namespaces.url()
        ));
        let due = cases.len();
        let harness = Arc::new(InNamespaces(namespaces.clone()));
        let results = run(harness, cases, jobs, seed, &interrupt).await;
        let report = Report { backend: namespaces.backend(), seed, results };
        output::written(report.write(&mut output::stdout()))?;
        if let Some(file) = junit {
            junit::report(&report, &namespaces.url().to_string()).serialize(file).map_err(
                |error| Failure::new("the JUnit report cannot be written").because(&error),
            )?;
        }
        if let Some(left) = namespaces.leftovers() {
            output::say(left);
        }
        if report.results.len() < due {
            let left = due - report.results.len();
            output::say(format_args!("stopped: {left} cases were not run"));
            return Ok(Code::Interrupted.into());
        }
        Ok(if report.has_failures() { Code::Found.into() } else { ExitCode::SUCCESS })
    }

    fn cases(&self) -> Result<Vec<Case>, Failure> {
        let wanted = |case: &Case| {
            let name = name(case);
            self.filter.is_empty() || self.filter.iter().any(|text| name.contains(text.as_str()))
        };
        let cases: Vec<Case> = cases().into_iter().filter(wanted).collect();
        if cases.is_empty() {
            return Err(Failure::usage(
                "no case has that text in its name; --list shows all names",
            ));
        }
        Ok(cases)
    }
}

/// Runs cases, `jobs` at a time, and returns their results in the order of the cases. After an
/// interrupt no further case is started.
async fn run(
    harness: Arc<dyn Harness>,
    cases: Vec<Case>,
    jobs: usize,
    seed: u64,
    interrupt: &Interrupt,
) -> Vec<CaseResult> {
    // A case fails by panicking. Its outcome has the message, so the hook need not print it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let progress = progress(cases.len());
    let runs = cases.into_iter().enumerate().map(|(nth, case)| {
        let (harness, progress, interrupt) = (harness.clone(), progress.clone(), interrupt.clone());
        async move {
            if interrupt.is_set() {
                return None;
            }
            progress.set_message(name(&case));
            let began = Instant::now();
            let outcome = run_case(harness, case, seed).await;
            progress.inc(1);
            Some((nth, CaseResult { case, outcome, time: began.elapsed() }))
        }
    });
    let results: Vec<_> = futures::stream::iter(runs).buffer_unordered(jobs).collect().await;
    progress.finish_and_clear();
    std::panic::set_hook(hook);
    let mut results: Vec<_> = results.into_iter().flatten().collect();
    results.sort_by_key(|(nth, _)| *nth);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A progress bar, which is shown if standard error is a terminal.
fn progress(cases: usize) -> ProgressBar {
    ProgressBar::new(u64::try_from(cases).unwrap_or(u64::MAX))
        .with_style(output::bar("{bar:30} {pos}/{len} {elapsed} {wide_msg}"))
}

/// Runs each case in a namespace of a store that the harness cannot harm.
struct InNamespaces(Arc<Namespaces>);

#[async_trait]
impl Harness for InNamespaces {
    fn name(&self) -> &str {
        self.0.backend()
    }

    fn random_programs(&self) -> u32 {
        match self.0.url().backend() {
            Backend::Memory | Backend::Sqlite => 200,
            _ => 32,
        }
    }

    fn histories(&self) -> u32 {
        match self.0.url().backend() {
            Backend::Memory | Backend::Sqlite => 1_000,
            _ => 100,
        }
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        Ok(self.0.open(namespace).await?)
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.0.remove(namespace).await
    }

    fn cannot_inject(&self, _fault: Fault) -> Option<String> {
        Some("the command does no harm".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex};

    use super::*;

    /// A backend whose stores cannot be opened. It counts the namespaces that are not cleaned up.
    #[derive(Default)]
    struct Forgetful(Mutex<HashMap<String, usize>>);

    #[async_trait]
    impl Harness for Forgetful {
        fn name(&self) -> &str {
            "forgetful"
        }

        async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
            *self.0.lock().unwrap().entry(namespace.to_owned()).or_default() += 1;
            Err("it has forgotten how to open".into())
        }

        async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
            self.0.lock().unwrap().remove(namespace);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_is_reported_with_reason_rules_and_seed() {
        let harness = Arc::new(Forgetful::default());
        let theme = |case: &Case| case.theme == "append";
        let cases: Vec<_> = cases().into_iter().filter(theme).collect();
        let due: Vec<_> = cases.iter().map(name).collect();
        let results = run(harness.clone(), cases, 3, 7, &Interrupt::listen()).await;
        assert!(harness.0.lock().unwrap().is_empty());
        assert_eq!(results.iter().map(CaseResult::name).collect::<Vec<_>>(), due);
        let report = Report { backend: "forgetful", seed: 7, results };
        assert!(report.has_failures());
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&text).unwrap()).to_string();
        let first = format!("failed {}\n", due[0]);
        for part in [&first, "forgotten how to open", "replay with --filter append::", "--seed 7"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let xml = junit::report(&report, "forgetful:").to_string().unwrap();
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((read.tests, read.failures), (due.len(), due.len()));
    }
}
