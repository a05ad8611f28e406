//! `annals conformance`: runs the conformance suite, which tests the adapters, on any store.

mod badge;
mod html;
mod json;
mod junit;
mod report;
mod result;

use std::{fs::File, io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use annals::{Backend, Store};
use annals_conformance::{BoxError, Case, Fault, Harness, Outcome, cases, run_case};
use async_trait::async_trait;
use chrono::Utc;
use clap::Args;
use futures::StreamExt;
use indicatif::ProgressBar;

use crate::{
    conformance::{report::Report, result::CaseResult},
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
    /// Do not run this case, `theme::name=reason`; the report shows the reason. May be repeated.
    #[arg(long, value_name = "CASE=REASON", value_parser = skip)]
    skip: Vec<(String, String)>,
    /// How many cases to run at the same time [default: one for each core, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Replay the random choices of an earlier run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the result of each case to this file as JUnit XML, for a CI server.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the result as one JSON object, or write it to a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Print the result as an HTML page, or write it to a file: for people to look at.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    html: Option<PathBuf>,
    /// Write a badge for a README to this file, as an SVG image.
    #[arg(long, value_name = "FILE")]
    badge: Option<PathBuf>,
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
        let outputs = Outputs::create(&self)?;
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
        let (due, began) = (cases.len(), Utc::now());
        let harness = Arc::new(InNamespaces(namespaces.clone()));
        let results = run(harness, cases, &self.skip, jobs, seed, &interrupt).await;
        let (backend, store) = (namespaces.backend(), namespaces.url().to_string());
        let report = Report { backend, store, began, seed, results };
        outputs.write(&report)?;
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
        let names: Vec<_> = cases().iter().map(Case::full_name).collect();
        if let Some((name, _)) = self.skip.iter().find(|(name, _)| !names.contains(name)) {
            let message = format!("--skip names the case `{name}`, which the suite does not have");
            return Err(Failure::usage(&message));
        }
        let wanted = |case: &Case| {
            let name = case.full_name();
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

/// Reads `theme::name=reason`.
fn skip(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((case, reason)) if !reason.trim().is_empty() => {
            Ok((case.to_owned(), reason.to_owned()))
        }
        _ => Err("write `theme::name=reason`: whoever reads the report has to know why".to_owned()),
    }
}

/// Where the results are written beside standard output, which has the text if no other form is asked
/// for there.
struct Outputs {
    files: Vec<(Form, PathBuf, File)>,
    stdout: Form,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
    Html,
    Badge,
    Junit,
}

impl Outputs {
    /// Creates the files before the suite runs, so that a path that cannot be written fails at once.
    fn create(options: &Conformance) -> Result<Self, Failure> {
        let asked = [
            (Form::Json, &options.json),
            (Form::Html, &options.html),
            (Form::Badge, &options.badge),
            (Form::Junit, &options.junit),
        ];
        let mut outputs = Self { files: Vec::new(), stdout: Form::Text };
        for (form, path) in asked {
            let Some(path) = path else { continue };
            if matches!(form, Form::Json | Form::Html) && path.as_os_str() == "-" {
                if !matches!(outputs.stdout, Form::Text) {
                    return Err(Failure::usage(
                        "only one of --json and --html can be printed; give the other one a file",
                    ));
                }
                outputs.stdout = form;
                continue;
            }
            let file =
                File::create(path).map_err(|error| Failure::from(error).at(path.display()))?;
            outputs.files.push((form, path.clone(), file));
        }
        Ok(outputs)
    }

    fn write(self, report: &Report) -> Result<(), Failure> {
        output::written(self.stdout.write(report, &mut output::stdout()))?;
        for (form, path, mut file) in self.files {
            form.write(report, &mut file)
                .map_err(|error| Failure::from(error).at(path.display()))?;
        }
        Ok(())
    }
}

impl Form {
    fn write(self, report: &Report, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Text => report.write(out),
            Self::Json => json::write(report, out),
            Self::Html => html::write(report, out),
            Self::Badge => badge::write(report, out),
            Self::Junit => junit::report(report).serialize(out).map_err(std::io::Error::other),
        }
    }
}

/// Runs cases, `jobs` at a time, and returns their results in the order of the cases. After an
/// interrupt no further case is started.
async fn run(
    harness: Arc<dyn Harness>,
    cases: Vec<Case>,
    skips: &[(String, String)],
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
            let name = case.full_name();
            let began = Instant::now();
            let outcome = match skips.iter().find(|(skipped, _)| *skipped == name) {
                Some((_, reason)) => Outcome::Ignored(format!("skipped: {reason}")),
                None => {
                    progress.set_message(name);
                    run_case(harness, case, seed).await
                }
            };
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

    fn removes_in_steps(&self) -> Option<String> {
        let is_server = self.0.url().backend() == Backend::EventStoreDb;
        is_server.then(|| "a removal takes several requests of EventStoreDB".to_owned())
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
        let due: Vec<_> = cases.iter().map(Case::full_name).collect();
        let results = run(harness.clone(), cases, &[], 3, 7, &Interrupt::listen()).await;
        assert!(harness.0.lock().unwrap().is_empty());
        assert_eq!(results.iter().map(CaseResult::name).collect::<Vec<_>>(), due);
        let (store, began) = ("forgetful:".to_owned(), Utc::now());
        let report = Report { backend: "forgetful", store, began, seed: 7, results };
        assert!(report.has_failures());
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&text).unwrap()).to_string();
        let first = format!("failed {}\n", due[0]);
        for part in [&first, "forgotten how to open", "replay with --filter append::", "--seed 7"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let xml = junit::report(&report).to_string().unwrap();
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((read.tests, read.failures), (due.len(), due.len()));
    }
}
