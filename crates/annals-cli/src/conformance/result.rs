//! The result of a case.

use std::time::Duration;

use annals_conformance::{Case, Outcome};

/// How a case ended, and how long it took.
pub(crate) struct CaseResult {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
    pub(crate) time: Duration,
}

impl CaseResult {
    pub(crate) fn name(&self) -> String {
        self.case.full_name()
    }

    /// The rules of the contract that the case tests, and the options that run it again.
    pub(crate) fn replay(&self, seed: u64) -> String {
        let rules = self.case.rules_in_words();
        format!("{rules}\nreplay with --filter {} --seed {seed}", self.name())
    }
}
