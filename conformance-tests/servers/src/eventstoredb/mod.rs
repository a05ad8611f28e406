//! EventStoreDB, or KurrentDB: from `ANNALS_EVENTSTOREDB_URL`, or from Docker.

mod docker;
mod source;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};

use self::docker::Docker;
pub use self::source::Source;
use crate::{BoxError, ports, wait::until};

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that is running. One that was started here ends with this.
pub struct EventStoreDb {
    url: String,
    addr: SocketAddr,
    docker: Option<Docker>,
}

impl EventStoreDb {
    /// The URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// [`url`](Self::url), by another address, such as that of a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn url_at(&self, addr: SocketAddr) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("esdb", &self.url));
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let at = if user.is_empty() { "" } else { "@" };
        format!("{scheme}://{user}{at}{addr}?{query}")
    }

    /// Where the server listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Kills the server and starts it again.
    ///
    /// # Errors
    /// When it was not started here, or does not come up.
    pub async fn kill_and_restart(&self) -> Result<(), BoxError> {
        let docker = self.docker.as_ref().ok_or("the server was not started here")?;
        docker.kill().await?;
        docker.start_again().await?;
        answers(self.addr).await
    }
}

impl Source {
    /// Starts a server, or finds the one that is running.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(&self) -> Result<EventStoreDb, BoxError> {
        let (url, addr, docker) = match self {
            Self::Given(url) => {
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let authority = rest.split(['?', '/']).next().unwrap_or(rest);
                let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
                let host = hosts.split(',').next().unwrap_or(hosts);
                let host = if host.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok()) {
                    host.to_owned()
                } else {
                    format!("{host}:2113")
                };
                let found = ports::resolve(&host).await;
                (url.clone(), found.ok_or_else(|| format!("{host} has no address"))?, None)
            }
            Self::Docker => {
                let (docker, addr) = Docker::start().await?;
                (format!("esdb://{addr}?tls=false"), addr, Some(docker))
            }
        };
        answers(addr).await?;
        Ok(EventStoreDb { url, addr, docker })
    }
}

/// Waits until the server talks HTTP/2, which it begins by itself. Docker's own proxy takes
/// connections before it does.
async fn answers(addr: SocketAddr) -> Result<(), BoxError> {
    let talks = || async move {
        let Ok(mut connection) = TcpStream::connect(addr).await else { return false };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let written = connection.write_all(preface).await;
        let mut first = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(2), connection.read_exact(&mut first));
        // The fourth byte is the type of the first frame: SETTINGS. A server with TLS closes.
        written.is_ok() && read.await.is_ok_and(|read| read.is_err() || first.get(3) == Some(&4))
    };
    until(&format!("a server that answers at {addr}"), PATIENCE, talks).await
}

/// The server for all tests of this process that do it no harm.
///
/// # Errors
/// When there is no [`Source`], or it does not come up; the next call then tries again.
pub async fn shared() -> Result<Arc<EventStoreDb>, BoxError> {
    static SHARED: OnceCell<Arc<EventStoreDb>> = OnceCell::const_new();
    let start = || async { Source::find()?.start().await.map(Arc::new) };
    SHARED.get_or_try_init(start).await.cloned()
}
