//! Which rules have which cases, and which broken stores prove that the cases work.

use std::{collections::BTreeSet, fmt::Write};

use annals_conformance::{Case, cases};
use annals_core::contract;
use libtest_mimic::Failed;

use crate::bug::BUGS;

/// The chapter of the book with the table. `ANNALS_UPDATE=1` writes it again.
const CHAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/coverage.md");

/// Each rule has a case and a broken store; each broken store names a case that checks its rule.
pub(crate) fn complete() -> Result<(), Failed> {
    let cases = cases();
    let (mut checked, mut broken_rules) = (BTreeSet::<u8>::new(), BTreeSet::new());
    cases.iter().for_each(|case| checked.extend(case.rules));
    for broken in BUGS {
        let case = cases.iter().find(|case| name(case) == broken.case);
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
    let due = chapter();
    if std::env::var_os("ANNALS_UPDATE").is_some_and(|value| value == "1") {
        return std::fs::write(CHAPTER, due).map_err(|e| format!("{CHAPTER}: {e}").into());
    }
    let found = std::fs::read_to_string(CHAPTER).map_err(|e| format!("{CHAPTER}: {e}"))?;
    if found == due {
        return Ok(());
    }
    Err("docs/book/src/coverage.md shows another coverage: run this with ANNALS_UPDATE=1".into())
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
            let name = name(case);
            let broken = BUGS.iter().filter(|bug| bug.rule == rule && bug.case == name);
            let broken: Vec<_> = broken.map(|bug| format!("{:?}", bug.bug)).collect();
            writeln!(text, "| `{name}` | {} |", broken.join(", ")).unwrap();
        }
    }
    text
}

fn name(case: &Case) -> String {
    format!("{}::{}", case.theme, case.name)
}
