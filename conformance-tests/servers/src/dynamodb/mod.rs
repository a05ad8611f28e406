//! DynamoDB servers for tests, and HTTP clients for the SDK that measure, disturb and stop its
//! requests.
//!
//! ```no_run
//! # async fn example() -> Result<(), annals_test_servers::BoxError> {
//! use annals_test_servers::dynamodb::{self, Meter};
//! use aws_sdk_dynamodb::Client;
//!
//! let server = dynamodb::shared().await?;
//! let meter = Meter::new();
//! let config = server.config().to_builder().http_client(meter.http_client()).build();
//! let client = Client::from_conf(config);
//! // … requests …
//! println!("{} units written", meter.take().write_units);
//! # Ok(()) }
//! ```
//!
//! These stand between a client and a server:
//!
//! * [`Meter`] adds up the capacity units of requests.
//! * [`Faults`] refuses and loses requests as the real service and the network do at times, and
//!   servers for tests do not.
//! * [`Dying`] answers no more requests after some, as if the process of the client had died.
//! * [`Writes`] makes a [`Proxy`](crate::Proxy) lose the answers of writes.

mod docker;
mod dying;
mod faults;
mod layer;
mod local;
mod meter;
mod moto;
mod source;
mod url;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::{
    Client, Config,
    config::{self, Credentials},
};
use tokio::{net::TcpStream, sync::OnceCell};

use crate::{BoxError, ports, until};
use docker::Docker;
use local::Local;
use moto::Moto;
use url::StoreUrl;

pub use dying::Dying;
pub use faults::{Fault, Faults, Rates};
pub use layer::plain_http;
pub use meter::{Meter, Usage};
pub use source::Source;
pub use wire::Writes;

/// How long a server may take until it answers: in a container, Java takes seconds to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// A running server. If it was started here, it is stopped when this value is dropped, which may
/// take a moment, or when the process ends.
pub struct DynamoDb {
    server: Server,
    addr: Option<SocketAddr>,
    url: StoreUrl,
    /// The SDK's configuration from the environment, for a server that checks credentials.
    account: Option<SdkConfig>,
}

enum Server {
    Given,
    Local(Local),
    Docker { _container: Box<Docker> },
    Moto { _process: Moto },
}

impl Source {
    /// Starts a server, and waits until it answers. A given server ([`Source::Given`]) is running:
    /// this only checks that its port can be reached, if its endpoint is plain HTTP.
    ///
    /// # Errors
    /// If the server does not start or answer, or a given one cannot be reached.
    pub async fn start(&self) -> Result<DynamoDb, BoxError> {
        let (server, addr) = match self {
            Self::Given(url) => return DynamoDb::given(StoreUrl::parse(url)?).await,
            Self::InProcess => {
                let (local, addr) = Local::start()?;
                (Server::Local(local), addr)
            }
            Self::Docker => {
                let (docker, addr) = Docker::start().await?;
                (Server::Docker { _container: Box::new(docker) }, addr)
            }
            Self::Moto => {
                let (moto, addr) = Moto::start().await?;
                (Server::Moto { _process: moto }, addr)
            }
        };
        let url = StoreUrl::ours(addr);
        let started = DynamoDb { server, addr: Some(addr), url, account: None };
        started.wait_until_ready().await?;
        Ok(started)
    }
}

impl DynamoDb {
    async fn given(url: StoreUrl) -> Result<Self, BoxError> {
        let addr = match url.authority() {
            Some(authority) => ports::resolve(&authority).await,
            None => None,
        };
        if let Some(addr) = addr {
            let connected = tokio::time::timeout(ANSWER_PATIENCE, TcpStream::connect(addr)).await;
            connected.map_err(|_| format!("no server answers at {addr}"))??;
        }
        let account = match url.is_loopback() {
            true => None,
            false => {
                let loader = aws_config::defaults(BehaviorVersion::latest());
                Some(loader.http_client(layer::https()).load().await)
            }
        };
        Ok(Self { server: Server::Given, addr, url, account })
    }

    /// The URL of a store in a table. On a given server the names of tables get its prefix.
    pub fn url(&self, table: &str) -> String {
        self.url.of(table, self.url.endpoint.as_deref())
    }

    /// Like [`url`](Self::url), with the address of something in between, such as a
    /// [`Proxy`](crate::Proxy).
    pub fn url_at(&self, addr: SocketAddr, table: &str) -> String {
        self.url.of(table, Some(&format!("http://{addr}")))
    }

    /// The name in requests of the table that has this name in a call of [`url`](Self::url).
    pub fn table(&self, name: &str) -> String {
        self.url.table(name)
    }

    /// The address where the server listens, if it speaks plain HTTP.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// The URL that requests go to, such as `http://127.0.0.1:8000`; `None` for the real service.
    pub fn endpoint(&self) -> Option<String> {
        self.url.endpoint.clone()
    }

    /// Whether the server was started here. Other programs may use a server that was not.
    pub fn is_ours(&self) -> bool {
        !matches!(self.server, Server::Given)
    }

    /// A client with the SDK's own retries and timeouts.
    pub fn client(&self) -> Client {
        Client::from_conf(self.config())
    }

    /// The configuration of [`client`](Self::client), for clients that differ from it, for example
    /// by another HTTP client. A server on this machine gets made-up credentials, any other those
    /// of the environment. Each configuration has an HTTP client of its own, because connections
    /// end with the runtime on which they were made.
    pub fn config(&self) -> Config {
        let builder = match &self.account {
            Some(account) => config::Builder::from(account),
            None => Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(Credentials::new("annals", "annals", None, None, "tests"))
                .region(Region::from_static(url::REGION))
                .http_client(plain_http()),
        };
        let region = self.url.region.clone().map(Region::new);
        let builder = region.into_iter().fold(builder, config::Builder::region);
        let endpoint = self.url.endpoint.iter();
        endpoint.fold(builder, config::Builder::endpoint_url).build()
    }

    /// Makes a server in this process stop listening, close its connections without warning, and
    /// listen again on the same port, over the same data.
    ///
    /// # Errors
    /// If the server is not in this process, or another program has taken its port.
    pub async fn restart(&self) -> Result<(), BoxError> {
        match &self.server {
            Server::Local(local) => local.restart().await,
            Server::Given => {
                Err(format!("{} is a server that tests leave alone", source::URL).into())
            }
            Server::Docker { .. } => Err("a restart of the container would lose its data".into()),
            Server::Moto { .. } => Err("a restart of moto would lose its data".into()),
        }
    }

    async fn wait_until_ready(&self) -> Result<(), BoxError> {
        let what = format!("DynamoDB at {} answers", self.endpoint().unwrap_or_default());
        let client = self.client();
        until(&what, PATIENCE, || async {
            let answer = client.list_tables().limit(1).send();
            tokio::time::timeout(ANSWER_PATIENCE, answer).await.is_ok_and(|answer| answer.is_ok())
        })
        .await
    }
}

/// The server that tests of this process share if they need none of their own. The first call
/// starts it, and it ends with the process.
///
/// # Errors
/// If there is no [`Source`], or the server does not start; the next call then tries again.
pub async fn shared() -> Result<Arc<DynamoDb>, BoxError> {
    static SHARED: OnceCell<Arc<DynamoDb>> = OnceCell::const_new();
    let start = || async { Source::find()?.start().await.map(Arc::new) };
    SHARED.get_or_try_init(start).await.cloned()
}
