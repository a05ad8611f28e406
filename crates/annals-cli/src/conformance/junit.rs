//! The results as JUnit XML for CI servers, with a test suite for each theme.

use std::{collections::BTreeMap, time::Duration};

use annals_conformance::Outcome;
use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};

use crate::conformance::{report::Report, result::CaseResult};

pub(crate) fn report(report: &Report) -> quick_junit::Report {
    let mut themes: BTreeMap<&str, Vec<&CaseResult>> = BTreeMap::new();
    for result in &report.results {
        themes.entry(result.case.theme).or_default().push(result);
    }
    let mut xml = quick_junit::Report::new("annals conformance");
    xml.set_time(report.results.iter().map(|result| result.time).sum());
    for (theme, cases) in themes {
        let mut suite = TestSuite::new(theme);
        suite.set_time(cases.iter().map(|result| result.time).sum::<Duration>());
        suite.add_property(Property::new("store", report.store.as_str()));
        suite.add_property(Property::new("seed", report.seed.to_string()));
        for result in cases {
            suite.add_test_case(test_case(result, report));
        }
        xml.add_test_suite(suite);
    }
    xml
}

fn test_case(result: &CaseResult, report: &Report) -> TestCase {
    let status = match &result.outcome {
        Outcome::Ignored(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
        Outcome::Failed(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.lines().next().unwrap_or_default());
            status.set_description(format!("{reason}\n{}", result.replay(report.seed)));
            status
        }
        _ => TestCaseStatus::success(),
    };
    let mut case = TestCase::new(result.case.name, status);
    case.set_classname(format!("{}.{}", report.backend, result.case.theme)).set_time(result.time);
    if result.outcome == Outcome::Declared {
        case.set_system_out(
            "the store declares that it does not support this, and refuses the call",
        );
    }
    case
}
