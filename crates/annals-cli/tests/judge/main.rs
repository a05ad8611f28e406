//! The commands that judge stores, as they are called: each test on every kind of store that it is
//! about.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod bench;
mod check;
mod complete;
mod conformance;
mod leftovers;

use std::{
    net::TcpListener,
    process::{Command, ExitCode, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use annals_test_servers::until;
use annals_test_stores::{Kind, kinds, trial};
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

/// A run of the command that has ended.
struct Ran {
    /// By which the namespaces are recognised that it made.
    pid: u32,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(pid: u32, output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Self { pid, code: output.status.code(), stdout, stderr }
    }

    #[track_caller]
    fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// The command, apart from what the environment of the tests would make of it.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.args(arguments);
    for name in ["ANNALS_URL", "ANNALS_FROM", "ANNALS_TO", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn annals(arguments: &[&str]) -> Ran {
    let child = command(arguments).spawn().unwrap();
    let pid = child.id();
    Ran::new(pid, child.wait_with_output().unwrap())
}

/// Presses Ctrl-C once there is a namespace.
async fn interrupt(arguments: &[&str], kind: &Kind, url: &str) -> Ran {
    let child = command(arguments).spawn().unwrap();
    let pid = child.id();
    let has_begun = || async move { !leftovers::of(kind, url, pid).await.is_empty() };
    until("a namespace", Duration::from_secs(60), has_begun).await.unwrap();
    let sent = Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap();
    assert!(sent.success());
    Ran::new(pid, child.wait_with_output().unwrap())
}

/// Nobody listens to it, most likely.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether the leftovers of a kind are known: another may be given by the environment.
fn is_known(kind: &Kind) -> bool {
    ["memory", "sqlite", "postgres", "dynamodb", "eventstoredb"].contains(&kind.name())
}

fn main() -> ExitCode {
    let runtime = Arc::new(Runtime::new().unwrap());
    let mut trials = Vec::new();
    for kind in kinds().iter().filter(|kind| is_known(kind)) {
        trials.push(trial(kind, &runtime, "conformance", conformance::on));
        trials.push(trial(kind, &runtime, "conformance_interrupted", conformance::interrupted_on));
        trials.push(trial(kind, &runtime, "bench", bench::on));
        trials.push(trial(kind, &runtime, "bench_interrupted", bench::interrupted_on));
        trials.push(trial(kind, &runtime, "check_good", check::good));
        trials.push(trial(kind, &runtime, "check_missing", check::missing));
        trials.push(trial(kind, &runtime, "check_newer", check::newer));
        trials.push(trial(kind, &runtime, "check_log", check::the_log_counts));
        trials.push(trial(kind, &runtime, "conformance_failure", conformance::a_failure_on));
        if kind.name() == "postgres" {
            trials.push(trial(kind, &runtime, "check_privileges", check::privileges));
            trials.push(trial(kind, &runtime, "check_credentials", check::credentials));
        }
    }
    macro_rules! plain {
        ($($module:ident::$name:ident),+ $(,)?) => {
            [$(Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
                $module::$name();
                Ok(())
            })),+]
        };
    }
    trials.extend(plain![
        bench::two_stores_are_compared,
        bench::what_cannot_be_measured_is_refused,
        check::files_that_cannot_be_stores,
        check::nobody_there,
        complete::every_shell_has_completions,
        complete::manual_pages_are_written,
        conformance::names_are_listed_and_chosen,
        conformance::a_store_that_cannot_be_made_fails_once,
    ]);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
