//! The same for CI servers: JUnit XML, a test suite for each theme.

use std::{collections::BTreeMap, time::Duration};

use annals_conformance::Outcome;
use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};

use crate::conformance::{Ran, report::Report};

pub(crate) fn report(report: &Report, url: &str) -> quick_junit::Report {
    let mut themes: BTreeMap<&str, Vec<&Ran>> = BTreeMap::new();
    for ran in &report.ran {
        themes.entry(ran.case.theme).or_default().push(ran);
    }
    let mut xml = quick_junit::Report::new("annals conformance");
    xml.set_time(report.ran.iter().map(|ran| ran.time).sum());
    for (theme, cases) in themes {
        let mut suite = TestSuite::new(theme);
        suite.set_time(cases.iter().map(|ran| ran.time).sum::<Duration>());
        suite.add_property(Property::new("store", url));
        suite.add_property(Property::new("seed", report.seed.to_string()));
        for ran in cases {
            suite.add_test_case(test_case(ran, report));
        }
        xml.add_test_suite(suite);
    }
    xml
}

fn test_case(ran: &Ran, report: &Report) -> TestCase {
    let status = match &ran.outcome {
        Outcome::Ignored(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
        Outcome::Failed(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.lines().next().unwrap_or_default());
            status.set_description(format!("{reason}\n{}", ran.replay(report.seed)));
            status
        }
        _ => TestCaseStatus::success(),
    };
    let mut case = TestCase::new(ran.case.name, status);
    case.set_classname(format!("{}.{}", report.backend, ran.case.theme)).set_time(ran.time);
    if ran.outcome == Outcome::Declared {
        case.set_system_out("the store declares that it cannot, and refuses");
    }
    case
}
