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
//! What stands between a client and a server:
//!
//! * [`Meter`]: adds up the capacity units of requests.
//! * [`Faults`]: what the real service and the network do at times, and servers for tests do not.
//! * [`Dying`]: after some requests the process seems to have ended.
//! * [`Writes`]: makes a [`Proxy`](crate::Proxy) lose the answers of writes.

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

/// How long a server may take until it answers; a container's Java takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// A server that answers. One that was started here ends when this is dropped, which may take a
/// moment, or with the process.
pub struct DynamoDb {
    server: Server,
    addr: Option<SocketAddr>,
    url: StoreUrl,
    /// The credentials, and what else the environment says, for a server that needs real ones.
    account: Option<SdkConfig>,
}

enum Server {
    Given,
    Local(Local),
    Docker { _container: Box<Docker> },
    Moto { _process: Moto },
}

impl Source {
    /// Starts a server, and waits until it answers. One that was given ([`Source::is_ours`]) is
    /// only looked for, at a plain HTTP endpoint.
    ///
    /// # Errors
    /// When it does not come up, or a given one cannot be reached.
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
            connected.map_err(|_| format!("nobody answers at {addr}"))??;
        }
        let account = match url.is_loopback() {
            true => None,
            false => Some(aws_config::load_defaults(BehaviorVersion::latest()).await),
        };
        Ok(Self { server: Server::Given, addr, url, account })
    }

    /// The URL of a store in a table. A given server's tables have its prefix.
    pub fn url(&self, table: &str) -> String {
        self.url.of(table, self.url.endpoint.as_deref())
    }

    /// [`url`](Self::url), by another address, such as that of a [`Proxy`](crate::Proxy).
    pub fn url_at(&self, addr: SocketAddr, table: &str) -> String {
        self.url.of(table, Some(&format!("http://{addr}")))
    }

    /// What the table is called in requests, if it is called so in [`url`](Self::url).
    pub fn table(&self, name: &str) -> String {
        self.url.table(name)
    }

    /// Where the server listens, if it speaks plain HTTP.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Where requests go, such as `http://127.0.0.1:8000`. None is the real service's own.
    pub fn endpoint(&self) -> Option<String> {
        self.url.endpoint.clone()
    }

    /// Whether it was started here. Others may use one that was not.
    pub fn is_ours(&self) -> bool {
        !matches!(self.server, Server::Given)
    }

    /// A client with the SDK's own retries and timeouts.
    pub fn client(&self) -> Client {
        Client::from_conf(self.config())
    }

    /// The configuration of [`client`](Self::client), to be changed, by another HTTP client for
    /// one. A server on this machine is given credentials that mean nothing; for others they are
    /// those of the environment. Each configuration has an HTTP client of its own: connections end
    /// with the runtime on which they were made.
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
    /// When it is another server, or somebody else has taken its port.
    pub async fn restart(&self) -> Result<(), BoxError> {
        match &self.server {
            Server::Local(local) => local.restart().await,
            Server::Given => Err(format!("{} names this server: not ours", source::URL).into()),
            Server::Docker { .. } => Err("a container's data would be lost".into()),
            Server::Moto { .. } => Err("moto's data would be lost".into()),
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

/// One server for the tests of this process that need none for themselves, started when first
/// asked for. It ends with the process.
///
/// # Errors
/// When there is no [`Source`], or it does not come up; the next call then tries again.
pub async fn shared() -> Result<Arc<DynamoDb>, BoxError> {
    static SHARED: OnceCell<Arc<DynamoDb>> = OnceCell::const_new();
    let start = || async { Source::find()?.start().await.map(Arc::new) };
    SHARED.get_or_try_init(start).await.cloned()
}
