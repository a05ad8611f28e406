//! Fresh stores, and how to run the shop on them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use annals::{ReadAll, RecordedEvent, Store};
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_test_servers::{dynamodb, postgres};
use futures::TryStreamExt;
use shop::{AnyError, Options, Summary, execute::Counters};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A kind of store that the tests run on.
#[derive(Clone)]
pub(crate) enum Kind {
    /// By its URL, in which `{file}` and `{}` stand for what is each test's own.
    At(String),
    /// On a server that the tests start, or that is there: or why there is none.
    Postgres(Result<postgres::Source, String>),
    DynamoDb(Result<dynamodb::Source, String>),
    /// On the gateway, in this process.
    EventStoreDb,
}

/// Every kind of store.
pub(crate) fn kinds() -> Vec<Kind> {
    let more = std::env::var("ANNALS_SHOP_URLS").unwrap_or_default();
    let urls = ["memory:", "sqlite://{file}"].into_iter().chain(more.split(',').map(str::trim));
    let at = urls.filter(|url| !url.is_empty()).map(|url| Kind::At(url.to_owned()));
    let postgres = Kind::Postgres(postgres::Source::find());
    let dynamodb = Kind::DynamoDb(dynamodb::Source::find());
    at.chain([postgres, dynamodb, Kind::EventStoreDb]).collect()
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::At(url) => url.split(':').next().unwrap(),
            Self::Postgres(_) => "postgres",
            Self::DynamoDb(_) => "dynamodb",
            Self::EventStoreDb => "eventstoredb",
        }
    }

    /// Whether other processes can open it.
    pub(crate) fn is_shared(&self) -> bool {
        self.name() != "memory"
    }

    pub(crate) fn unavailable(&self) -> Option<String> {
        match self {
            Self::At(_) | Self::EventStoreDb => None,
            Self::Postgres(source) => source.clone().err(),
            Self::DynamoDb(source) => source.clone().err(),
        }
    }

    pub(crate) fn is_required(&self) -> bool {
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
            Self::DynamoDb(_) => dynamodb::shared().await.unwrap().url("{}"),
            Self::EventStoreDb => format!("esdb://{}?tls=false&namespace={{}}", gateway()),
        }
    }
}

/// Where a gateway serves all tests of this process, which have a namespace each. It has threads of
/// its own: a test may wait for another process that talks to it.
fn gateway() -> SocketAddr {
    static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
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
    });
    *ADDRESS
}

/// A store that no other test has.
pub(crate) struct Fresh {
    pub(crate) url: String,
    /// The same on every call: in memory, every connection is a store of its own.
    pub(crate) store: Arc<dyn Store>,
    _dir: TempDir,
}

impl Fresh {
    pub(crate) async fn open(kind: &Kind) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let name = format!("shop_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let file = dir.path().join("shop.db");
        let url = kind.url().await.replace("{file}", file.to_str().unwrap()).replace("{}", &name);
        let store = annals::connect(&url).await.expect(&url);
        Self { url, store, _dir: dir }
    }

    pub(crate) async fn memory() -> Self {
        Self::open(&Kind::At("memory:".to_owned())).await
    }
}

pub(crate) async fn run(
    store: Arc<dyn Store>,
    commands: &str,
    options: &Options,
) -> Result<Summary, AnyError> {
    shop::run(store, commands.as_bytes(), options, Arc::new(Counters::default())).await
}

pub(crate) async fn events(store: &dyn Store) -> Vec<RecordedEvent> {
    store.read_all(ReadAll::default()).try_collect().await.unwrap()
}

/// The types of the events of each stream, in their order.
pub(crate) async fn histories(store: &dyn Store) -> BTreeMap<String, Vec<String>> {
    let mut histories = BTreeMap::<_, Vec<_>>::new();
    for event in events(store).await {
        let history = histories.entry(event.stream.to_string()).or_default();
        history.push(event.event_type.to_string());
    }
    histories
}
