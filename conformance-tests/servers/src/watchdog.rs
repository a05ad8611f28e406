//! A shell outside this process, which cleans up when the pipe to it is closed: that happens
//! however a process ends.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::BoxError;

/// A script that takes commands, a line each, and answers each with a line that starts with `ok`
/// or `failed`. At the end of its input it cleans up. Nothing here belongs to a runtime, so that a
/// server can outlive the one it was started on.
pub(crate) struct Watchdog {
    child: Child,
    /// None only while this is being dropped.
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
        // What stops a test by its process group, as Ctrl-C does, is not to stop this.
        command.process_group(0);
        // A place that every user can be in.
        command.current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for (name, _) in std::env::vars_os() {
            // Such as PGDATA, which mean another server.
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

    /// One that removes a container when this process has ended, however it did. Without Docker's
    /// command line there is nobody to do it, and a process that is killed leaves its container.
    pub(crate) fn of_container(id: &str) -> Option<Self> {
        const SCRIPT: &str = "cat >/dev/null; docker rm -f -v \"$1\" >/dev/null 2>&1";
        Self::start(SCRIPT, [id.as_ref()], None).ok()
    }

    /// Gives a command, and waits for its answer.
    ///
    /// # Errors
    /// What the script says after `failed`.
    pub(crate) fn ask(&mut self, command: &str) -> Result<(), BoxError> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{command}")?;
        }
        self.answer().map(drop)
    }

    /// Waits for an answer, and returns what it says after `ok`.
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
        // An error means that it has ended already.
        let _ = self.child.wait();
    }
}
