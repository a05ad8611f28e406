//! The table of themes at the end of a run.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{Case, Outcome};

/// Counts the outcomes of the cases by harness and theme, and adds up their times; its `Display` is the
/// table.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, BTreeMap<&'static str, Counts>>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: usize,
    declared: usize,
    ignored: usize,
    failed: usize,
    time: Duration,
}

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

    /// Removes the harnesses of which only one case ran, for which a table would say nothing: the
    /// user asked for one case, or `cargo nextest` runs each case in a process of its own.
    pub(crate) fn forget_single_cases(&mut self) {
        self.0.retain(|_, themes| themes.values().map(Counts::sum).sum::<usize>() > 1);
    }
}

impl Counts {
    fn sum(&self) -> usize {
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
            let mut all = Counts::default();
            for (theme, counts) in themes {
                counts.write(f, theme)?;
                all.passed += counts.passed;
                all.declared += counts.declared;
                all.ignored += counts.ignored;
                all.failed += counts.failed;
                all.time += counts.time;
            }
            all.write(f, "all")?;
            writeln!(f)?;
        }
        Ok(())
    }
}
