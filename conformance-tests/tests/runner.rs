//! Runs the suite as users do, and checks its output and exit code, for a store that can be reached
//! and for one that cannot. The test starts its own program again, which then is the suite.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    process::{Command, ExitCode, Output},
    sync::{Arc, Mutex},
};

use annals_conformance::{Arguments, BoxError, Harness, cases};
use annals_core::Store;
use annals_memory::MemoryStore;
use libtest_mimic::{Failed, Trial};

/// The environment variable that turns this process into the suite: `reachable` or `unreachable`.
const ROLE: &str = "ANNALS_TEST_ROLE";

#[derive(Default)]
struct Memory {
    stores: Mutex<HashMap<String, MemoryStore>>,
    unreachable: bool,
}

#[async_trait::async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        if self.unreachable { "unreachable" } else { "reachable" }
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let mut stores = self.stores.lock().unwrap();
        Ok(Arc::new(stores.entry(namespace.to_owned()).or_default().clone()))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.stores.lock().unwrap().remove(namespace);
        Ok(())
    }

    fn skips(&self) -> &[(&str, &str)] {
        match std::env::var("ANNALS_TEST_SKIPS").as_deref() {
            Ok("known") => &[("expect::exact_zero_means_no_stream", "mended in 0.2")],
            Ok("unknown") => &[("expect::no_such_case", "it had another name")],
            _ => &[],
        }
    }

    async fn unavailable(&self) -> Option<String> {
        self.unreachable.then(|| "nobody listens".to_owned())
    }
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        let unreachable = role == "unreachable";
        return annals_conformance::main(Memory { unreachable, ..Memory::default() });
    }
    let trials = vec![
        Trial::test("passes_and_prints_a_table", passes_and_prints_a_table),
        Trial::test("lists_and_filters_single_cases", lists_and_filters_single_cases),
        Trial::test("an_unreachable_store_is_ignored", an_unreachable_store_is_ignored),
        Trial::test("a_required_store_must_be_there", a_required_store_must_be_there),
        Trial::test("a_seed_is_replayed", a_seed_is_replayed),
        Trial::test("a_case_is_skipped_with_its_reason", a_case_is_skipped_with_its_reason),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn suite(role: &str, required: &str, arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, .. } = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env(ROLE, role)
        .env("ANNALS_REQUIRE", required)
        .env("ANNALS_SEED", "7")
        .output()
        .unwrap();
    (status.success(), String::from_utf8(stdout).unwrap())
}

fn check(condition: bool, output: &str) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(output.into()) }
}

fn passes_and_prints_a_table() -> Result<(), Failed> {
    let (passed, output) = suite("reachable", "reachable", &["expect"]);
    check(
        passed && output.contains("test reachable::expect::exact_zero_means_no_stream"),
        &output,
    )?;
    let row = |name: &str| output.lines().find(|line| line.trim_start().starts_with(name));
    let counts = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect();
    let of_theme: Option<Vec<_>> = row("expect ").map(counts);
    let of_theme = of_theme.unwrap_or_default();
    check(of_theme.starts_with(&["7", "0", "0", "0"].map(str::to_owned)), &output)?;
    check(of_theme.get(4).is_some_and(|seconds| seconds.parse::<f64>().is_ok()), &output)?;
    check(output.contains("refused as declared") && output.contains("seconds"), &output)
}

fn lists_and_filters_single_cases() -> Result<(), Failed> {
    let (passed, output) = suite("reachable", "", &["--list"]);
    check(passed && output.matches(": test\n").count() == cases().len(), &output)?;
    let name = "reachable::live::a_waiting_subscriber_is_woken";
    let (passed, output) = suite("reachable", "", &["--exact", name]);
    check(passed && output.contains("1 passed"), &output)?;
    check(!output.contains("refused as declared"), &output)
}

fn an_unreachable_store_is_ignored() -> Result<(), Failed> {
    let (passed, output) = suite("unreachable", "reachable,other", &[]);
    check(passed && output.contains("ignored (nobody listens)"), &output)?;
    check(output.contains(&format!("0 passed; 0 failed; {} ignored", cases().len())), &output)
}

fn a_required_store_must_be_there() -> Result<(), Failed> {
    let (passed, output) = suite("unreachable", "other, unreachable", &[]);
    check(!passed && output.contains("ANNALS_REQUIRE names unreachable"), &output)?;
    check(output.contains(&format!("0 passed; {} failed", cases().len())), &output)
}

fn a_seed_is_replayed() -> Result<(), Failed> {
    let (_, output) = suite("unreachable", "unreachable", &["expect"]);
    check(output.contains("replay with ANNALS_SEED=7 "), &output)?;
    check(
        output.contains(" --exact unreachable::expect::exact_holds_only_at_that_version"),
        &output,
    )
}

fn a_case_is_skipped_with_its_reason() -> Result<(), Failed> {
    let run = |skips| {
        let ran = Command::new(std::env::current_exe().unwrap())
            .arg("expect")
            .envs([(ROLE, "reachable"), ("ANNALS_REQUIRE", ""), ("ANNALS_TEST_SKIPS", skips)])
            .output()
            .unwrap();
        (ran.status.success(), String::from_utf8(ran.stdout).unwrap())
    };
    let (passed, output) = run("known");
    check(passed && output.contains("skipped: mended in 0.2"), &output)?;
    let (passed, output) = run("unknown");
    check(!passed && output.contains("the suite has no such case"), &output)
}
