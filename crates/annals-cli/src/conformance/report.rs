//! What people are told of the cases that ran.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use annals_conformance::{Case, Outcome, Table};

use crate::{
    conformance::{Ran, name},
    output::{BAD, DIM, GOOD, styled},
};

pub(crate) struct Report {
    pub(crate) backend: &'static str,
    pub(crate) seed: u64,
    pub(crate) ran: Vec<Ran>,
}

impl Report {
    pub(crate) fn has_failures(&self) -> bool {
        self.ran.iter().any(|ran| matches!(ran.outcome, Outcome::Failed(_)))
    }

    /// The failures, the reasons for which cases were ignored, and the table of themes.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut ignored: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut failed = 0;
        let mut table = Table::default();
        for ran in &self.ran {
            table.add(self.backend, &ran.case, &ran.outcome);
            match &ran.outcome {
                Outcome::Failed(reason) => {
                    failed += 1;
                    writeln!(out, "{} {}", styled(BAD, "failed"), ran.name())?;
                    for line in reason.lines() {
                        writeln!(out, "  {line}")?;
                    }
                    writeln!(out, "  {}\n", ran.replay(self.seed))?;
                }
                Outcome::Ignored(reason) => ignored.entry(reason).or_default().push(ran.name()),
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
        write!(out, "{table}")?;
        if failed == 0 {
            writeln!(out, "{}", styled(GOOD, "no case failed"))?;
        } else {
            writeln!(out, "{}", styled(BAD, format!("{failed} of {} failed", self.ran.len())))?;
        }
        out.flush()
    }
}

/// The names of all cases.
pub(crate) fn list(out: &mut impl Write, cases: &[Case]) -> io::Result<()> {
    for case in cases {
        writeln!(out, "{}", name(case))?;
    }
    out.flush()
}
