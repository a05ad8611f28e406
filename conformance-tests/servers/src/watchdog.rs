//! A shell process that cleans up when the pipe to it is closed. The system closes the pipe however
//! this process ends.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::BoxError;

/// A running script that reads commands, one on each line, and answers each with a line that starts
/// with `ok` or `failed`. At the end of its input the script cleans up. The type uses no async
/// runtime, so that a server can outlive the runtime on which it was started.
pub(crate) struct Watchdog {
    child: Child,
    /// `None` only while the watchdog is being dropped.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Watchdog {
    /// Starts `script` with `arguments`, as another user if one is given by uid and gid.
    pub(crate) fn start<'a>(
        script: &str,
        arguments: impl IntoIterator<Item = &'a std::ffi::OsStr>,
        user: Option<(u32, u32)>,
    ) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("annals-watchdog").args(arguments);
        // Ctrl-C stops the whole process group of the test. The watchdog has to survive that.
        command.process_group(0);
        // Every user may enter this directory.
        command.current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for (name, _) in std::env::vars_os() {
            // Variables such as PGDATA would point PostgreSQL to another server.
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C");
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the watchdog has no pipes"));
        };
        Ok(Self { child, input: Some(input), output: BufReader::new(output) })
    }

    /// Starts a watchdog that removes a container when this process ends, however it ends. It needs
    /// the `docker` command: without the command, a killed process leaves its container behind.
    pub(crate) fn of_container(id: &str) -> Option<Self> {
        const SCRIPT: &str = "cat >/dev/null; docker rm -f -v \"$1\" >/dev/null 2>&1";
        Self::start(SCRIPT, [id.as_ref()], None).ok()
    }

    /// Sends a command, and waits for the answer.
    ///
    /// # Errors
    /// If the script answers `failed`: the rest of the line.
    pub(crate) fn ask(&mut self, command: &str) -> Result<(), BoxError> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{command}")?;
        }
        self.answer().map(drop)
    }

    /// Waits for an answer, and returns the rest of the line after `ok`.
    pub(crate) fn answer(&mut self) -> Result<String, BoxError> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let line = line.trim_end();
        let (status, text) = line.split_once(' ').unwrap_or((line, ""));
        match status {
            "ok" => Ok(text.to_owned()),
            "failed" => Err(text.into()),
            _ => Err("the watchdog has ended".into()),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.input.take();
        // An error means that the script has ended already.
        let _ = self.child.wait();
    }
}
