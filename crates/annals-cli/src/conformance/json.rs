//! The results as one JSON object.

use std::{
    io::{self, Write},
    time::Duration,
};

use annals_conformance::{Counts, Outcome, VERSION};
use serde::Serialize;

use crate::conformance::report::Report;

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
    all: JsonCounts,
    groups: Vec<Group<'a>>,
    cases: Vec<Case<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
    #[serde(flatten)]
    counts: JsonCounts,
}

#[derive(Serialize)]
struct JsonCounts {
    cases: usize,
    passed: usize,
    refused_as_declared: usize,
    ignored: usize,
    failed: usize,
    seconds: f64,
}

impl From<Counts> for JsonCounts {
    fn from(counts: Counts) -> Self {
        Self {
            cases: counts.cases(),
            passed: counts.passed,
            refused_as_declared: counts.declared,
            ignored: counts.ignored,
            failed: counts.failed,
            seconds: rounded(counts.time),
        }
    }
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
    let cases = report.results.iter().map(|result| {
        let (outcome, reason) = outcome(&result.outcome);
        let (rules, seconds) = (result.case.rules, rounded(result.time));
        Case { name: result.name(), outcome, reason, rules, seconds }
    });
    let groups = report.groups().into_iter();
    let groups = groups.map(|(name, counts)| Group { name, counts: counts.into() });
    let json = Json {
        suite: VERSION,
        store: &report.store,
        backend: report.backend,
        began: report.began.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        seed: report.seed,
        all: report.all().into(),
        groups: groups.collect(),
        cases: cases.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &json)?;
    writeln!(out)?;
    out.flush()
}
