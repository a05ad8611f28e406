//! The command line, the environment, and the standard streams.

use std::{
    fs::File,
    process::{Output, Stdio},
};

use annals_test_stores::Fresh;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    command::{all, both, command, fill, piped, run},
    files::sqlite,
};

/// Arguments in the wrong place are repeated by whoever reads the command line.
pub(crate) async fn no_secret_is_repeated() {
    let odd = ["/", "?", "#", ":", "@", "[", "%", "&", "=", " ", "'", "\"", "\\", "ü"];
    for odd in odd {
        let url = format!("postgres://shop:hunter2{odd}hunter2@127.0.0.1:1/shop");
        for arguments in [
            vec![url.as_str()],
            vec!["read", "memory:", &url],
            vec!["read", "memory:", "--limit", &url],
            vec!["read", "memory:", &format!("--limit={url}")],
            vec!["read", "memory:", &format!("-n{url}")],
            vec!["read", &format!("--{url}")],
            vec!["read", &format!("jsonl:{url}")],
            vec!["append", "memory:", "--file", &url],
            vec!["append", "memory:", "--file", &format!("jsonl:{url}")],
            vec!["verify", "memory:", &format!("cloudevents:{url}")],
            vec!["copy", "memory:", &format!("sqlite:{}", &url[9..])],
        ] {
            let output = run(&arguments).await;
            let said = both(&output);
            assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
            assert!(!output.status.success() && !said.is_empty(), "{arguments:?}: {said}");
        }
        let mut copy = command(["copy", "--dry-run"]);
        let output = copy.env("ANNALS_FROM", "memory:").env("ANNALS_TO", &url).output().await;
        let said = both(&output.unwrap());
        assert!(!said.contains("hunter2"), "{odd}: {said}");
    }
}

async fn run_with(arguments: &[&str], stdout: Stdio, stderr: Stdio) -> Output {
    let mut command = command(arguments);
    command.env("RUST_LOG", "warn").stdout(stdout).stderr(stderr);
    command.spawn().unwrap().wait_with_output().await.unwrap()
}

/// Files take no more at some time, and a reader goes away: both is said or nothing, and no panic.
pub(crate) async fn output_that_cannot_be_written_is_an_error() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let fresh = Fresh::open(&sqlite()).await;
    fill(&fresh.store, 0, 30).await;
    let url = fresh.url.as_str();
    for arguments in [
        vec!["read", url],
        vec!["tail", url],
        vec!["streams", url],
        vec!["info", url],
        vec!["verify", url],
        vec!["verify", url, "--json"],
        vec!["check", url],
        vec!["copy", url, "jsonl:-"],
        vec!["copy", "--dry-run", url, "jsonl:-"],
        vec!["append", url, "--stream", "a-1", "--type", "A"],
        vec!["conformance", "--list"],
        vec!["completions", "bash"],
        vec!["man"],
        vec!["--help"],
        vec!["--version"],
    ] {
        let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
        let output = run_with(&arguments, full(), Stdio::piped()).await;
        let said = both(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("No space left on device"), "{arguments:?}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("annals: ")).count(), 1, "{said}");
        // Whoever should have read it has gone.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run_with(&arguments, Stdio::from(writer), Stdio::piped()).await;
        let said = both(&output);
        // An export that nobody reads is not whole. What else is not read has done no harm.
        let is_export = arguments[0] == "copy" && arguments[1] != "--dry-run";
        let due = if is_export { 141 } else { 0 };
        assert_eq!(output.status.code(), Some(due), "{arguments:?}: {output:?}");
        assert!(!said.contains("annals: ") && !said.contains("panicked"), "{arguments:?}: {said}");
        // Nobody is told, and nothing breaks.
        let output = run_with(&arguments, Stdio::piped(), full()).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

pub(crate) async fn a_reader_that_goes_ends_a_tail() {
    let fresh = Fresh::open(&sqlite()).await;
    fill(&fresh.store, 0, 30).await;
    let mut tail = piped(&["tail", "--follow", &fresh.url]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap();
    // Nothing more is appended, and yet it ends.
    drop(lines);
    assert!(tail.wait().await.unwrap().success());
}

pub(crate) async fn urls_are_taken_from_the_environment() {
    let sqlite = &sqlite();
    let (from, to, other) =
        (Fresh::open(sqlite).await, Fresh::open(sqlite).await, Fresh::open(sqlite).await);
    fill(&from.store, 0, 10).await;
    let with = async |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("ANNALS_FROM", &from.url).env("ANNALS_TO", &to.url).output().await.unwrap()
    };
    assert!(with(&["copy"]).await.status.success());
    let verified = with(&["verify"]).await;
    assert!(both(&verified).contains("both hold the same"), "{verified:?}");
    assert_eq!(all(&to.store).await.len(), all(&from.store).await.len());
    // A URL on the command line counts more.
    assert!(with(&["copy", &from.url, &other.url]).await.status.success());
    assert_eq!(all(&other.store).await.len(), all(&from.store).await.len());
    let bench = ["bench", "--duration=20ms", "--warm-up=0s", "--rounds=1", "--writers=1"];
    let measured = with(&bench).await;
    assert!(both(&measured).contains("better"), "{measured:?}");
    for name in ["copy", "verify", "bench"] {
        let mut help = command([name, "--help"]);
        let help = both(&help.env("ANNALS_FROM", "hunter2").output().await.unwrap());
        assert!(help.contains("ANNALS_FROM") && help.contains("ANNALS_TO"), "{help}");
        assert!(!help.contains("hunter2"), "{help}");
    }
}
