//! Which rules have which cases, and which broken stores prove that the cases work.

use std::{collections::BTreeSet, fmt::Write};

use annals_conformance::{Case, VERSION, cases};
use annals_core::contract;
use libtest_mimic::Failed;

use crate::bug::BUGS;

/// The chapter of the book with the table. `ANNALS_UPDATE=1` writes it again.
const CHAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/coverage.md");

/// The names of all cases.
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cases.txt");

/// Each rule has a case and a broken store; each broken store names a case that checks its rule.
pub(crate) fn complete() -> Result<(), Failed> {
    let cases = cases();
    let (mut checked, mut broken_rules) = (BTreeSet::<u8>::new(), BTreeSet::new());
    cases.iter().for_each(|case| checked.extend(case.rules));
    for broken in BUGS {
        let case = cases.iter().find(|case| case.full_name() == broken.case);
        let case = case.ok_or_else(|| format!("no case {}", broken.case))?;
        if !case.rules.contains(&broken.rule) {
            return Err(format!("{} does not check rule {}", broken.case, broken.rule).into());
        }
        broken_rules.insert(broken.rule);
    }
    for rule in contract::rules() {
        if !checked.contains(&rule) || !broken_rules.contains(&rule) {
            return Err(format!("rule {rule} has no case, or no broken store").into());
        }
    }
    let names: BTreeSet<_> = BUGS.iter().map(|broken| format!("{:?}", broken.bug)).collect();
    if names.len() == BUGS.len() { Ok(()) } else { Err("a bug is listed twice".into()) }
}

/// The book shows the coverage as it is.
pub(crate) fn shown() -> Result<(), Failed> {
    written(CHAPTER, chapter())
}

/// The names of the cases stand in a file, so that a name which changes or goes is seen, and makes another
/// version of the suite.
pub(crate) fn listed() -> Result<(), Failed> {
    let names: Vec<_> = cases().iter().map(Case::full_name).collect();
    written(LIST, format!("annals-conformance {VERSION}\n{}\n", names.join("\n")))
}

/// Compares a file with what is due there, or writes it if it is to be updated.
fn written(file: &str, due: String) -> Result<(), Failed> {
    if std::env::var_os("ANNALS_UPDATE").is_some_and(|value| value == "1") {
        return std::fs::write(file, due).map_err(|e| format!("{file}: {e}").into());
    }
    let found = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    if found == due {
        return Ok(());
    }
    Err(format!("{file} says something else: run this with ANNALS_UPDATE=1").into())
}

fn chapter() -> String {
    let cases = cases();
    let mut text = format!(
        "# What the suite checks\n\n\
         The conformance suite has {} cases. It is tested on {} stores that are broken on purpose, each \
         in one way:\nthe case beside a broken store is the one that has to notice it. Each rule of the \
         contract has at least one\ncase and one broken store.\n\n\
         This chapter is written by a test (`cargo test -p annals-conformance --test broken_stores`, \
         with\n`ANNALS_UPDATE=1` in the environment).\n",
        cases.len(),
        BUGS.len()
    );
    for rule in contract::rules() {
        let words = contract::rule(rule).unwrap_or_default();
        write!(text, "\n## Rule {rule}\n\n{words}\n\n").unwrap();
        text.push_str("| case | broken stores that it notices |\n|---|---|\n");
        for case in cases.iter().filter(|case| case.rules.contains(&rule)) {
            let name = case.full_name();
            let broken = BUGS.iter().filter(|bug| bug.rule == rule && bug.case == name);
            let broken: Vec<_> = broken.map(|bug| format!("{:?}", bug.bug)).collect();
            writeln!(text, "| `{name}` | {} |", broken.join(", ")).unwrap();
        }
    }
    text
}
