//! The results as one JSON object.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use annals_conformance::{Outcome, VERSION};
use serde::Serialize;

use crate::conformance::{report::Report, result::CaseResult};

/// The form of the object. A reader of another version finds what it knows: names are only added.
#[derive(Serialize)]
struct Json<'a> {
    /// The version of the suite.
    suite: &'static str,
    store: &'a str,
    backend: &'a str,
    began: String,
    seed: u64,
    #[serde(flatten)]
    all: Counts,
    groups: Vec<Group<'a>>,
    cases: Vec<Case<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
    #[serde(flatten)]
    counts: Counts,
}

/// How many cases ended how, and the sum of their times.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) cases: usize,
    pub(super) passed: usize,
    pub(super) refused_as_declared: usize,
    pub(super) ignored: usize,
    pub(super) failed: usize,
    pub(super) seconds: f64,
}

#[derive(Serialize)]
struct Case<'a> {
    name: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    rules: &'static [u8],
    seconds: f64,
}

impl Counts {
    fn add(&mut self, result: &CaseResult) {
        self.cases += 1;
        self.seconds += rounded(result.time);
        *match result.outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Declared => &mut self.refused_as_declared,
            Outcome::Ignored(_) => &mut self.ignored,
            _ => &mut self.failed,
        } += 1;
    }
}

/// The counts of all cases, and those of each theme, which are the groups.
pub(super) fn counts(report: &Report) -> (Counts, BTreeMap<&str, Counts>) {
    let mut all = Counts::default();
    let mut groups = BTreeMap::<_, Counts>::new();
    for result in &report.results {
        all.add(result);
        groups.entry(result.case.theme).or_default().add(result);
    }
    (all, groups)
}

/// The word for an outcome, and its reason.
pub(super) fn outcome(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Declared => ("refused as declared", None),
        Outcome::Ignored(reason) => ("ignored", Some(reason)),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        _ => ("unknown", None),
    }
}

/// Milliseconds are enough.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let (all, groups) = counts(report);
    let cases = report.results.iter().map(|result| {
        let (outcome, reason) = outcome(&result.outcome);
        let (rules, seconds) = (result.case.rules, rounded(result.time));
        Case { name: result.name(), outcome, reason, rules, seconds }
    });
    let json = Json {
        suite: VERSION,
        store: &report.store,
        backend: report.backend,
        began: report.began.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        seed: report.seed,
        all,
        groups: groups.into_iter().map(|(name, counts)| Group { name, counts }).collect(),
        cases: cases.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &json)?;
    writeln!(out)?;
    out.flush()
}
