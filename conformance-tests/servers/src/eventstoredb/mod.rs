//! EventStoreDB or KurrentDB: the server that `ANNALS_EVENTSTOREDB_URL` names, or one in Docker.

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
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running server. Dropping this stops the server if the tests started it.
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

    /// The [`url`](Self::url) with another address, such as that of a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn url_at(&self, addr: SocketAddr) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("esdb", &self.url));
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let at = if user.is_empty() { "" } else { "@" };
        format!("{scheme}://{user}{at}{addr}?{query}")
    }

    /// The address that the server listens at.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Kills the server and starts it again.
    ///
    /// # Errors
    /// If the tests did not start the server, or if it does not come up.
    pub async fn kill_and_restart(&self) -> Result<(), BoxError> {
        let docker = self.docker.as_ref().ok_or("the tests did not start the server")?;
        docker.kill().await?;
        docker.start_again().await?;
        wait_for_answer(self.addr).await
    }
}

impl Source {
    /// Starts a server, or finds the address of the one that is running.
    ///
    /// # Errors
    /// If the server does not come up.
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
        wait_for_answer(addr).await?;
        Ok(EventStoreDb { url, addr, docker })
    }
}

/// Waits until the server answers in HTTP/2. That it accepts a connection is not enough: Docker's
/// proxy does so before the server is up.
async fn wait_for_answer(addr: SocketAddr) -> Result<(), BoxError> {
    let answers = || async move {
        let Ok(mut connection) = TcpStream::connect(addr).await else { return false };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let written = connection.write_all(preface).await;
        let mut first = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(2), connection.read_exact(&mut first));
        // The fourth byte is the type of the first frame, which is SETTINGS (4). A server with TLS
        // closes the connection instead.
        written.is_ok() && read.await.is_ok_and(|read| read.is_err() || first.get(3) == Some(&4))
    };
    until(&format!("a server that answers at {addr}"), START_DEADLINE, answers).await
}

/// The server that all tests of this process share, except those that kill it.
///
/// # Errors
/// If there is no [`Source`], or if the server does not come up. The next call tries again.
pub async fn shared() -> Result<Arc<EventStoreDb>, BoxError> {
    static SHARED: OnceCell<Arc<EventStoreDb>> = OnceCell::const_new();
    let start = || async { Source::find()?.start().await.map(Arc::new) };
    SHARED.get_or_try_init(start).await.cloned()
}
