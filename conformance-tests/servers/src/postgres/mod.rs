//! PostgreSQL servers for tests.

mod bouncer;
mod docker;
mod local;
mod options;
mod source;
mod wire;

use std::{fmt, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::OnceCell;

use crate::{BoxError, ports, until};
use docker::Docker;
use local::Local;

pub use bouncer::PgBouncer;
pub use options::Options;
pub use source::Source;
pub use wire::Marked;

/// How long to wait until a server lets clients in. Slow disks and busy machines take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that lets clients in. A server that was started here ends when this is dropped, which
/// takes a moment, or with the process.
pub struct Postgres {
    server: Server,
    addr: SocketAddr,
    url: Url,
}

enum Server {
    Given,
    Local(Arc<Local>),
    Docker(Box<Docker>),
}

impl Source {
    /// Starts a server, and waits until it lets clients in. A server that runs already
    /// ([`Source::Given`]) is only waited for.
    ///
    /// # Errors
    /// If the server does not come up, with the end of its log; if a given server cannot be
    /// reached, or `options` are not the default for it.
    pub async fn start(&self, options: Options) -> Result<Postgres, BoxError> {
        options.check()?;
        match self {
            Self::Given(url) => {
                options.refuse_any()?;
                let url = Url::parse(url)?;
                let found = ports::resolve(&url.authority).await;
                let addr = found.ok_or_else(|| format!("{} is no address", url.authority))?;
                Postgres { server: Server::Given, addr, url }.ready().await
            }
            Self::Local(programs) => {
                let (local, port) = Local::start(programs.clone(), options).await?;
                let addr = SocketAddr::from(([127, 0, 0, 1], port));
                let url = Url::new("postgres@", addr, "/postgres");
                Postgres { server: Server::Local(Arc::new(local)), addr, url }.ready().await
            }
            Self::Docker => {
                let (docker, addr) = Docker::start(options).await?;
                let url = Url::new(&format!("postgres:{}@", docker::PASSWORD), addr, "/postgres");
                Postgres { server: Server::Docker(Box::new(docker)), addr, url }.ready().await
            }
        }
    }
}

impl Postgres {
    /// The URL of a database, with a user who may do everything there.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// [`url`](Self::url) with another address, such as that of a [`Proxy`](crate::Proxy).
    pub fn url_at(&self, addr: SocketAddr) -> String {
        Url { authority: addr.to_string(), ..self.url.clone() }.to_string()
    }

    /// The user in [`url`](Self::url).
    fn user(&self) -> Option<&str> {
        let (_, user) = self.url.user.split_once("://")?;
        user.split([':', '@']).next().filter(|name| !name.is_empty())
    }

    /// The address at which the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the server was started here. Otherwise it must not be stopped, and others may use
    /// it.
    pub fn is_ours(&self) -> bool {
        !matches!(self.server, Server::Given)
    }

    /// The data directory, if it is on this machine.
    pub fn data_directory(&self) -> Option<&Path> {
        match &self.server {
            Server::Local(local) => Some(local.data()),
            Server::Given | Server::Docker(_) => None,
        }
    }

    /// [`kill`](Self::kill) and [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// As these two.
    pub async fn kill_and_restart(&self) -> Result<(), BoxError> {
        self.kill().await?;
        self.start_again().await
    }

    /// Stops the server without warning, and returns when it has ended. It closes its connections,
    /// finishes nothing, and recovers from its write-ahead log at the next start.
    ///
    /// # Errors
    /// If the server was not started here, or is not running.
    pub async fn kill(&self) -> Result<(), BoxError> {
        match &self.server {
            Server::Given => {
                Err(format!("{} names this server, which was not started here", source::URL).into())
            }
            Server::Local(local) => local.clone().kill().await,
            Server::Docker(docker) => docker.kill().await,
        }
    }

    /// Starts the server after [`kill`](Self::kill) on the same data and the same port, and waits
    /// until it lets clients in.
    ///
    /// # Errors
    /// If the server was not started here, or does not come up, with the end of its log.
    pub async fn start_again(&self) -> Result<(), BoxError> {
        match &self.server {
            Server::Given => {
                Err(format!("{} names this server, which was not started here", source::URL).into())
            }
            Server::Local(local) => local.clone().start_again().await,
            Server::Docker(docker) => docker.start_again().await,
        }?;
        self.wait_until_ready().await
    }

    async fn ready(self) -> Result<Self, BoxError> {
        self.wait_until_ready().await?;
        Ok(self)
    }

    async fn wait_until_ready(&self) -> Result<(), BoxError> {
        let what = format!("PostgreSQL at {} lets clients in", self.addr);
        // A given server should be running already.
        let patience = if self.is_ours() { PATIENCE } else { Duration::from_secs(5) };
        until(&what, patience, || async {
            let accepts = wire::accepts(self.addr);
            // Another program may listen there, and never answer.
            tokio::time::timeout(Duration::from_secs(5), accepts).await.unwrap_or(false)
        })
        .await
    }
}

/// A server that the tests of this process share. It is started at the first call, and ends with
/// the process.
///
/// # Errors
/// If there is no [`Source`], or the server does not come up; the next call tries again.
pub async fn shared() -> Result<Arc<Postgres>, BoxError> {
    static SHARED: OnceCell<Arc<Postgres>> = OnceCell::const_new();
    let start = || async { Source::find()?.start(Options::default()).await.map(Arc::new) };
    SHARED.get_or_try_init(start).await.cloned()
}

/// A URL in parts, so that its address can be replaced.
#[derive(Clone)]
struct Url {
    /// The part up to the `@`, if there is one.
    user: String,
    /// The host and port.
    authority: String,
    /// The part from the `/` or `?` on.
    rest: String,
}

impl Url {
    fn new(user: &str, addr: SocketAddr, rest: &str) -> Self {
        let user = format!("postgres://{user}");
        Self { user, authority: addr.to_string(), rest: rest.to_owned() }
    }

    fn parse(url: &str) -> Result<Self, BoxError> {
        let (scheme, tail) = url.split_once("://").unwrap_or_default();
        let (tail, rest) = tail.split_at(tail.find(['/', '?']).unwrap_or(tail.len()));
        let (user, host) = tail.split_at(tail.rfind('@').map_or(0, |at| at + 1));
        if !matches!(scheme, "postgres" | "postgresql") || host.is_empty() || host.contains(',') {
            // The message leaves out the URL, which may hold a password.
            let wanted = "postgres://user:password@host:port/database, with one host";
            return Err(format!("{} is not of the form {wanted}", source::URL).into());
        }
        // An IPv6 address has colons inside of its brackets.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port { "" } else { ":5432" };
        Ok(Self {
            user: format!("{scheme}://{user}"),
            authority: format!("{host}{port}"),
            rest: rest.to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.user, self.authority, self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn another_address_takes_the_place_of_the_first() {
        for (url, authority, moved) in [
            ("postgres://a:p@h:1/d?sslmode=disable", "h:1", "postgres://a:p@x:2/d?sslmode=disable"),
            ("postgresql://h", "h:5432", "postgresql://x:2"),
            ("postgres://u@[::1]/d", "[::1]:5432", "postgres://u@x:2/d"),
            ("postgres://u@[::1]:9?a=b", "[::1]:9", "postgres://u@x:2?a=b"),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(parsed.authority, authority);
            assert_eq!(Url { authority: "x:2".to_owned(), ..parsed }.to_string(), moved);
        }
        for url in ["", "h:5432", "mysql://h", "postgres:///d?host=/run", "postgres://a,b/d"] {
            assert!(Url::parse(url).is_err(), "{url}");
        }
    }
}
