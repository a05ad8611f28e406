//! `annals conformance`.

use std::fs::read_to_string;

use annals_test_stores::{Fresh, Kind};
use quick_junit::Report;

use crate::{annals, free_port, interrupt, leftovers};

pub(crate) async fn on(kind: Kind) {
    let (fresh, dir) = (Fresh::open(&kind).await, tempfile::tempdir().unwrap());
    let path = |name| dir.path().join(name).to_str().unwrap().to_owned();
    let file = path("junit.xml");
    let skip = "append::any_creates_a_stream=known, 1 < 2";
    let mut arguments =
        vec!["conformance", &fresh.url, "--junit", &file, "--seed=7", "--skip", skip];
    let others = ["json", "html", "badge"].map(|form| format!("--{form}={}", path(form)));
    arguments.extend(others.iter().map(String::as_str));
    // All of it where that is quickest.
    if kind.name() != "memory" {
        arguments.extend(["--filter=append::", "--filter=expect::", "--filter=newer"]);
    }
    let ran = annals(&arguments).ended_with(0);
    let pid = ran.pid;
    assert!(ran.stdout.contains("no case failed"), "{}", ran.stdout);
    assert!(ran.stdout.contains("refused as declared"), "{}", ran.stdout);
    assert!(ran.stderr.contains("seed 7"), "{}", ran.stderr);
    assert_eq!(ran.stderr.contains("keeps the streams"), kind.name() == "eventstoredb");
    let xml = read_to_string(&file).unwrap();
    let report = Report::deserialize_from_str(&xml).unwrap();
    assert_eq!((report.failures, report.errors), (0, 0));
    assert!(report.tests > 10, "{xml}");
    assert!(report.test_suites.iter().any(|suite| suite.name.as_str() == "append"));
    // One needs harm that the command does not do, and says so.
    assert!(xml.contains("does no harm"), "{xml}");
    assert!(ran.stdout.contains("skipped: known, 1 < 2"), "{}", ran.stdout);
    let [json, html, badge] =
        ["json", "html", "badge"].map(|form| read_to_string(path(form)).unwrap());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["failed"], &json["backend"]), (&0.into(), &kind.name().into()));
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(json["cases"].as_array().map(Vec::len), Some(report.tests), "{json}");
    let skipped = cases.iter().find(|case| case["name"] == "append::any_creates_a_stream").unwrap();
    assert_eq!(skipped["reason"], "skipped: known, 1 < 2");
    let append = json["groups"].as_array().unwrap().iter().find(|group| group["name"] == "append");
    assert_eq!(append.unwrap()["ignored"], 1, "{json}");
    assert!(html.contains("<td>append::any_creates_a_stream</td>"), "{html}");
    assert!(html.contains("skipped: known, 1 &lt; 2"), "{html}");
    let ran = json["cases"].as_array().unwrap().len() - json["ignored"].as_u64().unwrap() as usize;
    assert!(badge.contains(&format!("{ran} cases passed")), "{badge}");
    assert_eq!(leftovers::of(&kind, &fresh.url, pid).await, [""; 0]);
}

/// Lets the cases under way end, begins no other, and cleans up.
pub(crate) async fn interrupted_on(kind: Kind) {
    if !cfg!(unix) || matches!(kind.name(), "memory" | "eventstoredb") {
        // There is no telling from outside that it has begun.
        return;
    }
    let fresh = Fresh::open(&kind).await;
    let ran = interrupt(&["conformance", &fresh.url, "--jobs=1"], &kind, &fresh.url).await;
    let ran = ran.ended_with(130);
    assert!(ran.stderr.contains("cases were not run"), "{}", ran.stderr);
    assert_eq!(leftovers::of(&kind, &fresh.url, ran.pid).await, [""; 0]);
}

/// The gateway takes ids of 255 bytes, the namespace included: one of the longest is refused.
pub(crate) async fn a_failure_on(kind: Kind) {
    if kind.name() != "eventstoredb" {
        return;
    }
    let fresh = Fresh::open(&kind).await;
    let case = "payload::stream_ids_are_kept_apart";
    let ran = annals(&["conformance", &fresh.url, "--filter", case, "--seed=7"]).ended_with(3);
    for part in
        [&format!("failed {case}\n"), "1 of 1 failed", "rule 10 of the contract", "--seed 7"]
    {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    // What it fails by is told there, and nowhere else.
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

pub(crate) fn names_are_listed_and_chosen() {
    let all = annals(&["conformance", "--list"]).ended_with(0).stdout;
    assert!(all.lines().count() > 50, "{all}");
    let some = annals(&["conformance", "--list", "--filter=read::"]).ended_with(0).stdout;
    assert!(some.lines().all(|name| name.contains("read::")), "{some}");
    for wrong in ["--filter=no-such-case", "--skip=append::no_such_case=why", "--skip=append::x"] {
        let none = annals(&["conformance", "memory:", wrong]).ended_with(2);
        assert!(!none.stderr.is_empty());
    }
    let one = ["conformance", "memory:", "--filter=append::any_creates", "--json"];
    let json: serde_json::Value = serde_json::from_str(&annals(&one).ended_with(0).stdout).unwrap();
    assert_eq!((&json["cases"][0]["outcome"], &json["passed"]), (&"passed".into(), &1.into()));
    annals(&[&one[..], &["--html"]].concat()).ended_with(2);
}

pub(crate) fn a_store_that_cannot_be_made_fails_once() {
    let postgres = format!("postgres://u:hunter2@127.0.0.1:{}/x", free_port());
    for url in ["sqlite:///no/such/directory/e.db", &postgres] {
        let ran = annals(&["conformance", url]);
        assert!(matches!(ran.code, Some(1 | 2)), "{:?}", ran.code);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}
