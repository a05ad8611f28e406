//! The results as text.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use annals_conformance::{Case, Counts, Outcome, Table};

use chrono::{DateTime, Utc};

use crate::{
    conformance::result::CaseResult,
    output::{BAD, DIM, GOOD, styled},
};

/// What a run has found.
pub(crate) struct Report {
    pub(crate) backend: &'static str,
    /// The URL, without secrets.
    pub(crate) store: String,
    pub(crate) began: DateTime<Utc>,
    pub(crate) seed: u64,
    pub(crate) results: Vec<CaseResult>,
}

impl Report {
    pub(crate) fn has_failures(&self) -> bool {
        self.results.iter().any(|result| matches!(result.outcome, Outcome::Failed(_)))
    }

    /// The cases counted by theme.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::default();
        for CaseResult { case, outcome, time } in &self.results {
            table.add(self.backend, case, outcome, *time);
        }
        table
    }

    /// The counts of each theme, which are the groups of a report.
    pub(super) fn groups(&self) -> Vec<(&'static str, Counts)> {
        self.table().themes(self.backend).collect()
    }

    /// The counts of all cases.
    pub(super) fn all(&self) -> Counts {
        self.groups().into_iter().map(|(_, counts)| counts).sum()
    }

    /// Writes the failures, the reasons why cases were ignored, and a table of all themes.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut ignored: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut failed = 0;
        for result in &self.results {
            match &result.outcome {
                Outcome::Failed(reason) => {
                    failed += 1;
                    writeln!(out, "{} {}", styled(BAD, "failed"), result.name())?;
                    for line in reason.lines().chain(result.replay(self.seed).lines()) {
                        writeln!(out, "  {line}")?;
                    }
                    writeln!(out)?;
                }
                Outcome::Ignored(reason) => ignored.entry(reason).or_default().push(result.name()),
                _ => {}
            }
        }
        for (reason, names) in &ignored {
            writeln!(out, "{}: {reason}", styled(DIM, "ignored"))?;
            for name in names {
                writeln!(out, "  {name}")?;
            }
            writeln!(out)?;
        }
        write!(out, "{}", self.table())?;
        if failed == 0 {
            writeln!(out, "{}", styled(GOOD, "no case failed"))?;
        } else {
            writeln!(out, "{}", styled(BAD, format!("{failed} of {} failed", self.results.len())))?;
        }
        out.flush()
    }
}

/// Writes the names of cases.
pub(crate) fn list(out: &mut impl Write, cases: &[Case]) -> io::Result<()> {
    for case in cases {
        writeln!(out, "{}", case.full_name())?;
    }
    out.flush()
}
