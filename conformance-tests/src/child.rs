//! A process that appends and dies: the suite's program, which runs itself once more.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use annals_core::{EventStoreExt, NewEvent, StreamId, Version};
use tokio::runtime::Runtime;

use crate::{BoxError, Harness};

/// The environment variable that makes this program a child: the name of the harness, the namespace,
/// the stream, and after how many appends the child dies by itself (0: never).
const CHILD: &str = "ANNALS_CONFORMANCE_CHILD";

/// How a child dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// It aborts as soon as the last append has returned.
    Abort,
    /// Its parent kills it in the middle of its work.
    Kill,
}

/// How many answers of the child the parent waits for.
const APPENDS: u64 = 20;

/// If this process is a child, appends until the process dies. Returns `None` in every other process.
pub(crate) fn run(runtime: &Runtime, harnesses: &[Arc<dyn Harness>]) -> Option<ExitCode> {
    let task = std::env::var(CHILD).ok()?;
    let died = (|| {
        let [harness, namespace, stream, count] = task.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{CHILD} is {task:?}").into());
        };
        let harness = harnesses.iter().find(|known| known.name() == harness);
        let harness = harness.ok_or_else(|| format!("{CHILD} names {task:?}"))?;
        runtime.block_on(append(&**harness, namespace, stream, count.parse()?))
    })();
    match died {
        Ok(()) => std::process::abort(),
        Err(error) => {
            let error: BoxError = error;
            eprintln!("the child of the suite has failed: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

async fn append(
    harness: &dyn Harness,
    namespace: &str,
    stream: &str,
    count: u64,
) -> Result<(), BoxError> {
    let (store, stream) = (harness.open(namespace).await?, StreamId::new(stream)?);
    for version in 1.. {
        let event = NewEvent::json("Numbered", &version)?;
        let appended = store.append_to(&stream, Version::new(version - 1), [event]).await?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "appended {} {}", appended.last_version, appended.position)?;
        out.flush()?;
        if version == count {
            // Not even the destructor of the store may run.
            std::process::abort();
        }
    }
    Ok(())
}

/// Runs a child that appends to a stream until it dies. Returns the versions and positions that it
/// got as answers. Blocks.
pub(crate) fn dies(
    environment: &[(String, String)],
    harness: &str,
    namespace: &str,
    stream: &StreamId,
    death: Death,
) -> Result<Vec<(u64, u64)>, BoxError> {
    let count = if death == Death::Abort { APPENDS } else { 0 };
    let mut child = Command::new(std::env::current_exe()?)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env(CHILD, format!("{harness} {namespace} {stream} {count}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut answers = Vec::new();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            answers.extend(answer(&line));
            if death == Death::Kill && answers.len() as u64 == APPENDS {
                child.kill()?;
            }
        }
    }
    let status = child.wait()?;
    if (answers.len() as u64) < APPENDS || status.success() {
        return Err(format!("the child ended with {status} after {} answers", answers.len()).into());
    }
    Ok(answers)
}

/// The version and the position in a line of the child. Other lines are not its answers.
fn answer(line: &str) -> Option<(u64, u64)> {
    let (version, position) = line.strip_prefix("appended ")?.split_once(' ')?;
    Some((version.parse().ok()?, position.parse().ok()?))
}
