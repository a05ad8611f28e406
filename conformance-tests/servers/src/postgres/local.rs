//! A server that runs the programs of this machine.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, interval},
};

use super::options::{Options, line};
use crate::{BoxError, ports, watchdog::Watchdog};

/// A server, its directory, and the watchdog process that starts the server and removes both.
pub(super) struct Local {
    watchdog: Mutex<Watchdog>,
    /// Holds the log, the Unix socket, and the directory `data`.
    directory: PathBuf,
    data: PathBuf,
    /// The user and group that run the server, if this process runs as root.
    user: Option<(u32, u32)>,
}

/// How many ports are tried, if another process takes each of them before the server does.
const ATTEMPTS: usize = 10;

/// How long [`Local::start_again`] waits for its port, which another process may use for a moment.
const PORT_PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits between two tries.
const PORT_INTERVAL: Duration = Duration::from_millis(200);

impl Local {
    /// Creates and starts a server, and returns it with its port.
    pub(super) async fn start(
        programs: PathBuf,
        options: Options,
    ) -> Result<(Self, u16), BoxError> {
        spawn_blocking(move || {
            let local = Self::create(&programs, &options)?;
            let port = local.start_on_some_port()?;
            Ok((local, port))
        })
        .await?
    }

    fn create(programs: &Path, options: &Options) -> Result<Self, BoxError> {
        let user = unprivileged()?;
        let temporary = std::env::temp_dir();
        let parent = options.parent.as_deref().unwrap_or(&temporary);
        let arguments = [programs.as_os_str(), parent.as_os_str()];
        let mut watchdog = Watchdog::start(include_str!("local.sh"), arguments, user)?;
        let directory = PathBuf::from(watchdog.answer()?);
        let data = directory.join("data");
        let local = Self { watchdog: Mutex::new(watchdog), directory, data, user };
        match &options.data {
            Some(data) => local.copy(data)?,
            None => local.ask("create")?,
        }
        local.configure(&options.lines())?;
        for (name, content) in &options.files {
            local.place(name, content)?;
        }
        let sockets = local.directory.to_str().ok_or("the directory's name is not UTF-8")?;
        local.configure(&line("unix_socket_directories", sockets))?;
        local.configure(&line("listen_addresses", "127.0.0.1"))?;
        Ok(local)
    }

    /// Makes the data directory a copy of this one, whoever owns that.
    fn copy(&self, data: &Path) -> Result<(), BoxError> {
        run(Command::new("cp").arg("-R").arg(data).arg(&self.data))?;
        // The server refuses a directory that others may read.
        run(Command::new("chmod").args(["-R", "go="]).arg(&self.data))?;
        if let Some((uid, gid)) = self.user {
            run(Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(&self.data))?;
        }
        Ok(())
    }

    /// Adds lines to `postgresql.conf`. Of several lines for one setting the last one applies.
    fn configure(&self, lines: &str) -> Result<(), BoxError> {
        let path = self.data.join("postgresql.conf");
        Ok(fs::OpenOptions::new().append(true).open(path)?.write_all(lines.as_bytes())?)
    }

    /// Places a file into the data directory, with the permissions that the server demands of a
    /// secret.
    fn place(&self, name: &str, content: &[u8]) -> Result<(), BoxError> {
        let path = self.data.join(name);
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?
            .write_all(content)?;
        if let Some((uid, gid)) = self.user {
            chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    fn start_on_some_port(&self) -> Result<u16, BoxError> {
        let mut attempts = 0..ATTEMPTS;
        loop {
            let port = ports::free()?;
            self.configure(&line("port", &port.to_string()))?;
            match self.try_start() {
                Ok(()) => return Ok(port),
                Err(Refusal::PortTaken(_)) if attempts.next().is_some() => {}
                Err(Refusal::PortTaken(e) | Refusal::Other(e)) => return Err(e),
            }
        }
    }

    fn try_start(&self) -> Result<(), Refusal> {
        let before = self.log().len();
        self.ask("start").map_err(|e| {
            // The log is in English, since the server was created with the locale C.
            match self.log().get(before..) {
                Some(log) if log.contains("could not create any TCP/IP sockets") => {
                    Refusal::PortTaken(e)
                }
                _ => Refusal::Other(e),
            }
        })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Stops the server at once, and returns when it has ended.
    pub(super) async fn kill(self: Arc<Self>) -> Result<(), BoxError> {
        spawn_blocking(move || self.ask("stop")).await?
    }

    /// Starts the server again on its data and port.
    pub(super) async fn start_again(self: Arc<Self>) -> Result<(), BoxError> {
        let deadline = Instant::now() + PORT_PATIENCE;
        let mut ticks = interval(PORT_INTERVAL);
        loop {
            ticks.tick().await;
            let local = self.clone();
            match spawn_blocking(move || local.try_start()).await? {
                Ok(()) => return Ok(()),
                Err(Refusal::PortTaken(_)) if Instant::now() < deadline => {}
                Err(Refusal::PortTaken(e) | Refusal::Other(e)) => return Err(e),
            }
        }
    }

    fn ask(&self, order: &str) -> Result<(), BoxError> {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        watchdog.ask(order).map_err(|e| {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(QUOTED).collect();
            let quoted: Vec<&str> = lines.into_iter().rev().collect();
            format!("PostgreSQL: {e}; its log ends:\n{}", quoted.join("\n")).into()
        })
    }

    fn log(&self) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

fn run(command: &mut Command) -> Result<(), BoxError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// How many lines of the log an error quotes.
const QUOTED: usize = 20;

/// The reason why the server did not start.
enum Refusal {
    /// Another process has its port.
    PortTaken(BoxError),
    Other(BoxError),
}

/// The user and group that PostgreSQL has to run as if this process is root: it refuses to run as
/// root.
fn unprivileged() -> Result<Option<(u32, u32)>, BoxError> {
    let own = Command::new("id").arg("-u").output()?;
    if own.stdout != b"0\n" {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |wanted: &str| {
        users.lines().find_map(|user| {
            let mut fields = user.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            (name == wanted).then_some((uid, gid))
        })
    };
    let user = ids("postgres").or_else(|| ids("nobody"));
    user.map(Some)
        .ok_or_else(|| "PostgreSQL does not run as root, and there is no user nobody".into())
}
