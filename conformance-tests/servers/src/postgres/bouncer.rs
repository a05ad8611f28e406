//! PgBouncer, a connection pooler, in front of a server.

use std::{
    env,
    fs::File,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::TcpStream;

use super::Postgres;
use crate::{BoxError, ports, until};

/// How long to wait until it lets clients in.
const PATIENCE: Duration = Duration::from_secs(30);

/// A PgBouncer between clients and a server. It ends when this is dropped, or with this process.
pub struct PgBouncer {
    addr: SocketAddr,
    shell: Child,
}

/// Runs PgBouncer until the input ends, which happens however this process ends. SIGKILL, because
/// PgBouncer 1.23 and newer take their time for any other signal.
const SHELL: &str = "program=$1 directory=$2; shift 2
    \"$program\" -q \"$@\" \"$directory/pgbouncer.ini\" </dev/null >/dev/null 2>&1 &
    cat
    kill -KILL $!; wait $!; rm -rf \"$directory\"";

impl PgBouncer {
    /// The path of PgBouncer on this machine.
    pub fn program() -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places = env::split_paths(&path).chain(["/usr/sbin".into()]);
        places.map(|place| place.join("pgbouncer")).find(|program| program.is_file())
    }

    /// Starts one in front of a server that needs no password. `mode` is what it pools: `session` or
    /// `transaction`. It makes at most this many sessions for each database.
    ///
    /// # Errors
    /// If there is no PgBouncer, or it does not come up.
    pub async fn start(server: &Postgres, mode: &str, sessions: usize) -> Result<Self, BoxError> {
        let program = Self::program().ok_or("there is no PgBouncer on this machine")?;
        let port = ports::free()?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let directory =
            env::temp_dir().join(format!("annals-pgbouncer-{}-{port}", std::process::id()));
        std::fs::create_dir(&directory)?;
        let to = server.addr();
        let mut ini = File::create(directory.join("pgbouncer.ini"))?;
        let (host, server_port) = (to.ip(), to.port());
        let user = server.user().ok_or("the server's URL names no user")?;
        writeln!(ini, "[databases]\n* = host={host} port={server_port} user={user}")?;
        writeln!(ini, "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}")?;
        writeln!(ini, "unix_socket_dir =\nauth_type = any\npool_mode = {mode}")?;
        writeln!(ini, "default_pool_size = {sessions}\nmax_client_conn = 1000")?;
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "annals-pgbouncer"]).arg(program).arg(directory);
        // PgBouncer refuses to run as root.
        if Command::new("id").arg("-u").output()?.stdout == b"0\n" {
            command.args(["-u", "nobody"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = command.spawn()?;
        let bouncer = Self { addr, shell };
        until("PgBouncer lets clients in", PATIENCE, || async {
            TcpStream::connect(addr).await.is_ok()
        })
        .await?;
        Ok(bouncer)
    }

    /// The address at which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
