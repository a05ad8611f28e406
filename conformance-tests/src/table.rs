//! The table of themes at the end of a run.

use std::{collections::BTreeMap, fmt, iter::Sum, time::Duration};

use crate::{Case, Outcome};

/// How many cases ended how, and the sum of their times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The cases that passed.
    pub passed: usize,
    /// The cases that the store refused as it declares.
    pub declared: usize,
    /// The cases that were not run.
    pub ignored: usize,
    /// The cases that failed.
    pub failed: usize,
    /// How long all of them took.
    pub time: Duration,
}

/// Counts the outcomes of the cases by harness and theme, and adds up their times; its `Display` is the
/// table.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, BTreeMap<&'static str, Counts>>);

impl Table {
    /// Counts one case, which took this time.
    pub fn add(&mut self, harness: &str, case: &Case, outcome: &Outcome, time: Duration) {
        let themes = self.0.entry(harness.to_owned()).or_default();
        let counts = themes.entry(case.theme).or_default();
        counts.time += time;
        *match outcome {
            Outcome::Passed => &mut counts.passed,
            Outcome::Declared => &mut counts.declared,
            Outcome::Ignored(_) => &mut counts.ignored,
            Outcome::Failed(_) => &mut counts.failed,
        } += 1;
    }

    /// The counts of each theme of a harness, in the order of the table.
    pub fn themes(&self, harness: &str) -> impl Iterator<Item = (&'static str, Counts)> {
        self.0.get(harness).into_iter().flatten().map(|(theme, counts)| (*theme, *counts))
    }

    /// Removes the harnesses of which only one case ran, for which a table would say nothing: the
    /// user asked for one case, or `cargo nextest` runs each case in a process of its own.
    pub(crate) fn forget_single_cases(&mut self) {
        self.0.retain(|_, themes| themes.values().map(Counts::cases).sum::<usize>() > 1);
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |one, other| Self {
            passed: one.passed + other.passed,
            declared: one.declared + other.declared,
            ignored: one.ignored + other.ignored,
            failed: one.failed + other.failed,
            time: one.time + other.time,
        })
    }
}

impl Counts {
    /// All cases that were counted.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.passed + self.declared + self.ignored + self.failed
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let Self { passed, declared, ignored, failed, time } = self;
        let seconds = time.as_secs_f64();
        writeln!(
            f,
            "  {name:12} {passed:>8} {declared:>20} {ignored:>8} {failed:>8} {seconds:>9.1}"
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (harness, themes) in &self.0 {
            writeln!(
                f,
                "{harness:14} {:>8} {:>20} {:>8} {:>8} {:>9}",
                "passed", "refused as declared", "ignored", "failed", "seconds"
            )?;
            for (theme, counts) in themes {
                counts.write(f, theme)?;
            }
            themes.values().copied().sum::<Counts>().write(f, "all")?;
            writeln!(f)?;
        }
        Ok(())
    }
}
