//! `annals conformance`: the suite that the adapters are built with, against any store.

mod junit;
mod report;

use std::{
    fs::File,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use annals::Store;
use annals_conformance::{BoxError, Case, Fault, Harness, Outcome, cases, run_case};
use async_trait::async_trait;
use clap::Args;
use futures::StreamExt;
use indicatif::ProgressBar;

use crate::{
    conformance::report::Report,
    failure::{Code, Failure},
    interrupt::Interrupt,
    namespace::Namespaces,
    output,
    url::shown,
};

/// More at once than this crowd each other out, on a server with a hundred connections.
const MOST_JOBS: usize = 8;

#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct Conformance {
    /// Where the store is, or could be.
    #[arg(env = "ANNALS_URL", hide_env_values = true, required_unless_present = "list")]
    url: Option<String>,
    /// Run only cases whose `theme::name` contains this; more than one widens the choice.
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// How many cases to run at the same time [default: one for each core, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Replay the random choices of an earlier run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write what became of each case as JUnit XML, for a CI server.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Only list the cases.
    #[arg(long)]
    list: bool,
}

const AFTER: &str = "\
Each case has a namespace of its own, which is removed after it: a file next to the one named, a \
schema, a table, a namespace of streams. The store itself is neither read nor written. What a run \
that was killed leaves behind is recognised by `annals_tmp_` in its name. Cases that harm a server \
(cut its connections, restart it) are ignored: only the tests of the adapters can do that.

Exit status: 0 where no case failed, 3 where one did, 130 after Ctrl-C, which lets the cases under way \
end.";

/// What became of a case.
pub(crate) struct Ran {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
    pub(crate) time: Duration,
}

impl Ran {
    pub(crate) fn name(&self) -> String {
        name(&self.case)
    }

    /// Where the promise stands, and how to see it broken again.
    pub(crate) fn replay(&self, seed: u64) -> String {
        let rules = self.case.rules.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let word = if self.case.rules.len() == 1 { "rule" } else { "rules" };
        format!(
            "{word} {rules} of the contract; replay with --filter {} --seed {seed}",
            self.name()
        )
    }
}

fn name(case: &Case) -> String {
    format!("{}::{}", case.theme, case.name)
}

impl Conformance {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let cases = self.cases()?;
        if self.list {
            output::written(report::list(&mut output::stdout(), &cases))?;
            return Ok(ExitCode::SUCCESS);
        }
        let url = self.url.as_deref().unwrap_or_default();
        // Before anything runs: whoever waits for the report wants to know now.
        let junit = self.junit.as_ref().map(|path| {
            File::create(path).map_err(|error| Failure::from(error).at(path.display()))
        });
        let junit = junit.transpose()?;
        let interrupt = Interrupt::listen();
        let namespaces = Arc::new(Namespaces::at(url).await?);
        namespaces.probe().await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or(cores.min(MOST_JOBS), usize::from);
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        anstream::eprintln!(
            "{} cases on {}, {jobs} at a time, seed {seed}",
            cases.len(),
            shown(url)
        );
        let due = cases.len();
        let harness = Arc::new(OwnNamespaces(namespaces.clone()));
        let ran = run(harness, cases, jobs, seed, &interrupt).await;
        let report = Report { backend: namespaces.backend(), seed, ran };
        output::written(report.write(&mut output::stdout()))?;
        if let Some(file) = junit {
            junit::report(&report, &shown(url)).serialize(file).map_err(|error| {
                Failure::new("the JUnit report cannot be written").because(&error)
            })?;
        }
        if let Some(left) = namespaces.leftovers() {
            anstream::eprintln!("{left}");
        }
        if report.ran.len() < due {
            anstream::eprintln!("stopped: {} cases were not run", due - report.ran.len());
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
            return Err(Failure::usage("no case has that in its name; --list shows all names"));
        }
        Ok(cases)
    }
}

/// Runs cases, several at a time; no further ones after an interrupt. In their order.
async fn run(
    harness: Arc<dyn Harness>,
    cases: Vec<Case>,
    jobs: usize,
    seed: u64,
    interrupt: &Interrupt,
) -> Vec<Ran> {
    // A case fails by panicking, and its outcome has the text.
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
            Some((nth, Ran { case, outcome, time: began.elapsed() }))
        }
    });
    let ran: Vec<_> = futures::stream::iter(runs).buffer_unordered(jobs).collect().await;
    progress.finish_and_clear();
    std::panic::set_hook(hook);
    let mut ran: Vec<_> = ran.into_iter().flatten().collect();
    ran.sort_by_key(|(nth, _)| *nth);
    ran.into_iter().map(|(_, ran)| ran).collect()
}

/// On standard error, where that is a terminal.
fn progress(cases: usize) -> ProgressBar {
    ProgressBar::new(u64::try_from(cases).unwrap_or(u64::MAX))
        .with_style(output::bar("{bar:30} {pos}/{len} {elapsed} {wide_msg}"))
}

/// A store whose namespaces it makes and removes, and which it cannot harm.
struct OwnNamespaces(Arc<Namespaces>);

#[async_trait]
impl Harness for OwnNamespaces {
    fn name(&self) -> &str {
        self.0.backend()
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

    /// Forgets every event, as it opens another store each time.
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
        let ran = run(harness.clone(), cases, 3, 7, &Interrupt::listen()).await;
        assert!(harness.0.lock().unwrap().is_empty());
        assert_eq!(ran.iter().map(Ran::name).collect::<Vec<_>>(), due);
        let report = Report { backend: "forgetful", seed: 7, ran };
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
