//! Tests that need another process start this program again, as a child that does one thing and
//! ends.

use std::{
    io::{Read, stdin},
    process::{ExitCode, ExitStatus, Stdio},
    thread,
};

use annals_test_servers::BoxError;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{self, ChildStdin, ChildStdout, Command},
    runtime,
    time::timeout,
};

use crate::{
    common::{PATIENCE, Tested},
    tls,
};

/// The environment variable that makes this program a child, and names its task.
const TASK: &str = "ANNALS_TEST_CHILD";

/// Does the task of this process, if it is a child.
pub(crate) fn run() -> Option<ExitCode> {
    let task = std::env::var(TASK).ok()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    thread::spawn(|| {
        // The parent writes nothing: the read returns when the parent has ended, and ends the
        // child.
        let _ = stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        match task.as_str() {
            tls::CHILD => tls::child(&arguments).await,
            task => Err(format!("a child cannot do {task:?}").into()),
        }
    });
    Some(done.map_or_else(
        |error| {
            eprintln!("{task}: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    ))
}

/// A child process, which ends at the latest with this process.
pub(crate) struct Child {
    process: process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    _alive: ChildStdin,
}

impl Child {
    pub(crate) fn start(
        task: &str,
        arguments: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Self, BoxError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .env(TASK, task)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let alive = process.stdin.take().ok_or("a child without input")?;
        let output = process.stdout.take().ok_or("a child without output")?;
        Ok(Self { process, lines: BufReader::new(output).lines(), _alive: alive })
    }

    /// Waits for the next line of its output; `None` if it has ended.
    pub(crate) async fn line(&mut self) -> Result<Option<String>, BoxError> {
        Ok(timeout(PATIENCE, self.lines.next_line()).await.map_err(|_| "the child hangs")??)
    }

    /// Waits until the process has done its task.
    pub(crate) async fn finish(mut self) -> Tested {
        while self.line().await?.is_some() {}
        let ended: ExitStatus = timeout(PATIENCE, self.process.wait()).await??;
        if ended.success() { Ok(()) } else { Err(format!("the child failed: {ended}").into()) }
    }
}
