//! Opens a new store of every kind, and runs a test on each: in memory, on SQLite, on PostgreSQL,
//! on tables of Marten if asked for, and on DynamoDB if a server is available, on the gateway of EventStoreDB, and at the URLs in
//! `ANNALS_STORE_URLS`, separated by commas. In these URLs, `{}` is replaced by a name that no
//! other test has.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "only tests use this crate"
)]

mod hooked;

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use annals::Store;
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_test_servers::{dynamodb, postgres};
use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

pub use crate::hooked::{Hook, Hooked};

/// A kind of store to run tests on.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A store at a URL. In the URL, `{file}` is replaced by a path and `{}` by a name that no
    /// other test has.
    At(String),
    /// A store in PostgreSQL: the server, or why no server is available.
    Postgres(Result<postgres::Source, String>),
    /// Tables of Marten in PostgreSQL: the server, or why no server is available.
    Marten(Result<postgres::Source, String>),
    /// A store in DynamoDB: the server, or why no server is available.
    DynamoDb(Result<dynamodb::Source, String>),
    /// A store behind the gateway of EventStoreDB, which runs in this process.
    EventStoreDb,
}

/// Every kind of store.
pub fn kinds() -> Vec<Kind> {
    let more = std::env::var("ANNALS_STORE_URLS").unwrap_or_default();
    let urls = ["memory:", "sqlite://{file}"].into_iter().chain(more.split(',').map(str::trim));
    let at = urls.filter(|url| !url.is_empty()).map(|url| Kind::At(url.to_owned()));
    let postgres = Kind::Postgres(postgres::Source::find());
    let dynamodb = Kind::DynamoDb(dynamodb::Source::find());
    at.chain([postgres, dynamodb, Kind::EventStoreDb]).collect()
}

impl Kind {
    /// Tables of Marten. They are not among [`kinds`]: most of such a store is that in PostgreSQL.
    pub fn marten() -> Self {
        Self::Marten(postgres::Source::find())
    }

    /// The name of this kind, as in `ANNALS_REQUIRE`.
    pub fn name(&self) -> &str {
        match self {
            Self::At(url) => url.split(':').next().unwrap(),
            Self::Postgres(_) => "postgres",
            Self::Marten(_) => "marten",
            Self::DynamoDb(_) => "dynamodb",
            Self::EventStoreDb => "eventstoredb",
        }
    }

    /// Whether other processes can open a store of this kind.
    pub fn is_shared(&self) -> bool {
        self.name() != "memory"
    }

    /// Says why no server is available, if so.
    fn unavailable(&self) -> Option<String> {
        match self {
            Self::At(_) | Self::EventStoreDb => None,
            Self::Postgres(source) | Self::Marten(source) => source.clone().err(),
            Self::DynamoDb(source) => source.clone().err(),
        }
    }

    fn is_required(&self) -> bool {
        let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
        required.split(',').any(|name| name.trim() == self.name())
    }

    async fn url(&self) -> String {
        match self {
            Self::At(url) => url.clone(),
            Self::Postgres(_) => {
                let url = postgres::shared().await.unwrap().url();
                format!("{url}{}schema={{}}", if url.contains('?') { '&' } else { '?' })
            }
            Self::Marten(_) => {
                let url = postgres::shared().await.unwrap().url().replacen("postgres", "marten", 1);
                let joint = if url.contains('?') { '&' } else { '?' };
                format!("{url}{joint}create=string&schema={{}}")
            }
            Self::DynamoDb(_) => dynamodb::shared().await.unwrap().url("{}"),
            Self::EventStoreDb => {
                static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(gateway);
                at_gateway(*ADDRESS)
            }
        }
    }

    /// The URL of a server to which no other test writes, where others would be noticed.
    async fn url_alone(&self) -> String {
        match self {
            Self::EventStoreDb => at_gateway(gateway()),
            kind => kind.url().await,
        }
    }
}

fn at_gateway(address: SocketAddr) -> String {
    format!("esdb://{address}?tls=false&namespace={{}}")
}

/// The address of a new gateway, which serves tests of this process, each in a namespace of its own.
/// The gateway has its own threads: a test may block while it waits for a process that uses the
/// gateway.
fn gateway() -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let store = annals::connect("memory:").await.unwrap();
            let gateway = Gateway::new(store, GatewayOptions::default());
            gateway.serve(listener, Security::Insecure, std::future::pending()).await.unwrap();
        });
    });
    address.recv().unwrap()
}

/// A new store that no other test uses.
#[derive(Debug)]
pub struct Fresh {
    /// The URL at which other processes can open the store.
    pub url: String,
    /// The open store. A test in memory has to use this handle: each `connect` to `memory:` makes
    /// another store.
    pub store: Arc<dyn Store>,
    _dir: TempDir,
}

impl Fresh {
    /// Opens a new store of this kind.
    pub async fn open(kind: &Kind) -> Self {
        Self::at(&kind.url().await).await
    }

    /// Opens a new store of this kind that learns of no other test's events. The server of an
    /// EventStoreDB tells of events in all namespaces.
    pub async fn alone(kind: &Kind) -> Self {
        Self::at(&kind.url_alone().await).await
    }

    async fn at(url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let file = dir.path().join("events.db");
        let url = url.replace("{file}", file.to_str().unwrap()).replace("{}", &name);
        let store = annals::connect(&url).await.expect(&url);
        Self { url, store, _dir: dir }
    }

    /// Opens a new store in memory.
    pub async fn memory() -> Self {
        Self::open(&Kind::At("memory:".to_owned())).await
    }
}

/// Makes a trial of a test on one kind of store. If no server is available the trial is ignored, or
/// fails if `ANNALS_REQUIRE` names the kind.
pub fn trial<F>(kind: &Kind, runtime: &Arc<Runtime>, name: &str, test: fn(Kind) -> F) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    let (kind, runtime) = (kind.clone(), runtime.clone());
    Trial::ignorable_test(format!("{}::{name}", kind.name()), move || match kind.unavailable() {
        Some(reason) if kind.is_required() => Err(Failed::from(reason)),
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => {
            runtime.block_on(runtime.spawn(test(kind)))?;
            Ok(Completion::Completed)
        }
    })
}
