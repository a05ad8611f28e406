//! The conformance suite on EventStoreDB: on a real server if there is one, and on the gateway over
//! the other stores, with a gateway of its own for each case.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use std::{collections::HashMap, process::ExitCode, sync::Arc};

use annals_conformance::{Arguments, BoxError, Fault, Harness, run};
use annals_core::Store;
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, ConnectOptions, query},
};
use annals_sqlite::{SqliteConfig, SqliteStore};
use annals_test_servers::{
    Proxy,
    eventstoredb::{self, EventStoreDb, Source},
    postgres,
};
use common::{GatewayServer, LikeServer, Lossy};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// The store behind the gateway.
enum Backing {
    Memory,
    Sqlite(TempDir),
    Postgres(Result<postgres::Source, String>),
}

impl Backing {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        Ok(match self {
            Self::Memory => Arc::new(annals_memory::MemoryStore::new()),
            Self::Sqlite(directory) => {
                let path = directory.path().join(format!("{namespace}.db"));
                Arc::new(SqliteStore::open(SqliteConfig::new(path)).await?)
            }
            Self::Postgres(_) => {
                let mut config = PostgresConfig::from_url(&postgres::shared().await?.url())?;
                namespace.clone_into(&mut config.options.schema);
                Arc::new(PostgresStore::open(config.with_connections(4)).await?)
            }
        })
    }

    async fn remove(&self, namespace: &str) -> Result<(), BoxError> {
        if let Self::Postgres(_) = self {
            let config = PostgresConfig::from_url(&postgres::shared().await?.url())?;
            let drop = format!("DROP SCHEMA IF EXISTS {namespace} CASCADE");
            query(AssertSqlSafe(drop)).execute(&mut config.connect.connect().await?).await?;
        }
        Ok(())
    }
}

/// The gateway of one namespace, and its store.
struct GatewayPlace {
    server: GatewayServer,
    store: Arc<Lossy>,
}

/// A removal asks for the version, announces that it removes the snapshot, and then removes the events
/// on the condition that the version is still the same: a deletion in between does not change it.
const REMOVES_IN_STEPS: &str = "a removal takes several requests of EventStoreDB";

struct OnGateway {
    name: &'static str,
    backing: Backing,
    places: Mutex<HashMap<String, GatewayPlace>>,
}

impl OnGateway {
    fn new(name: &'static str, backing: Backing) -> Self {
        Self { name, backing, places: Mutex::default() }
    }
}

#[async_trait::async_trait]
impl Harness for OnGateway {
    fn name(&self) -> &str {
        self.name
    }

    fn random_programs(&self) -> u32 {
        32
    }

    fn histories(&self) -> u32 {
        100
    }

    fn removes_in_steps(&self) -> Option<String> {
        Some(REMOVES_IN_STEPS.to_owned())
    }

    async fn unavailable(&self) -> Option<String> {
        match &self.backing {
            Backing::Postgres(source) => source.clone().err(),
            _ => None,
        }
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let url = {
            let mut places = self.places.lock().await;
            if !places.contains_key(namespace) {
                let store = Lossy::new(self.backing.open(namespace).await?);
                let server = GatewayServer::start(store.clone()).await?;
                places.insert(namespace.to_owned(), GatewayPlace { server, store });
            }
            places.get(namespace).ok_or("just inserted")?.server.url()
        };
        let config = EventStoreDbConfig::from_url(&url)?;
        Ok(Arc::new(EventStoreDbStore::open(config).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        let place = self.places.lock().await.remove(namespace);
        if let Some(mut place) = place {
            place.server.kill().await;
        }
        self.backing.remove(namespace).await
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        match fault {
            Fault::CutConnections | Fault::RestartServer | Fault::LoseNextAnswer => None,
            Fault::CorruptEvent => Some("only the server can reach its events".to_owned()),
            Fault::NewerSchema => Some("the server has no schema of annals".to_owned()),
            _ => Some("the harness has no such fault".to_owned()),
        }
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let mut places = self.places.lock().await;
        let place = places.get_mut(namespace).ok_or("the case has opened no store")?;
        match fault {
            Fault::CutConnections => place.server.proxy().cut().await,
            Fault::RestartServer => {
                place.server.kill().await;
                place.server.revive(place.store.clone()).await?;
            }
            Fault::LoseNextAnswer => place.store.lose_next_answer(place.server.proxy()),
            fault => return Err(format!("{fault:?} cannot be injected").into()),
        }
        Ok(())
    }
}

/// A server that behaves as EventStoreDB 23.10, also where the gateway differs from it on purpose. Each
/// case has one of its own.
#[derive(Default)]
struct Like2310 {
    places: Mutex<HashMap<String, LikeServer>>,
}

#[async_trait::async_trait]
impl Harness for Like2310 {
    fn name(&self) -> &str {
        "eventstoredb-like-23.10"
    }

    fn random_programs(&self) -> u32 {
        32
    }

    fn histories(&self) -> u32 {
        100
    }

    fn removes_in_steps(&self) -> Option<String> {
        Some(REMOVES_IN_STEPS.to_owned())
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let url = {
            let mut places = self.places.lock().await;
            if !places.contains_key(namespace) {
                places.insert(namespace.to_owned(), LikeServer::start().await?);
            }
            places.get(namespace).ok_or("just inserted")?.url()
        };
        let config = EventStoreDbConfig::from_url(&url)?;
        Ok(Arc::new(EventStoreDbStore::open(config).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.places.lock().await.remove(namespace);
        Ok(())
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        match fault {
            Fault::CutConnections | Fault::RestartServer | Fault::LoseNextAnswer => None,
            Fault::CorruptEvent => Some("only the server can reach its events".to_owned()),
            Fault::NewerSchema => Some("the server has no schema of annals".to_owned()),
            _ => Some("the harness has no such fault".to_owned()),
        }
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let mut places = self.places.lock().await;
        let place = places.get_mut(namespace).ok_or("the case has opened no store")?;
        match fault {
            Fault::CutConnections => place.proxy().cut().await,
            Fault::RestartServer => place.restart().await?,
            Fault::LoseNextAnswer => place.lose_next_answer(),
            fault => return Err(format!("{fault:?} cannot be injected").into()),
        }
        Ok(())
    }
}

/// A real server. Each namespace of the suite is a namespace of the store.
struct OnServer {
    source: Result<Source, String>,
    places: Mutex<HashMap<String, ServerPlace>>,
}

struct ServerPlace {
    server: Arc<EventStoreDb>,
    proxy: Proxy,
}

#[async_trait::async_trait]
impl Harness for OnServer {
    fn name(&self) -> &str {
        "eventstoredb"
    }

    fn random_programs(&self) -> u32 {
        32
    }

    fn histories(&self) -> u32 {
        100
    }

    fn removes_in_steps(&self) -> Option<String> {
        Some(REMOVES_IN_STEPS.to_owned())
    }

    async fn unavailable(&self) -> Option<String> {
        self.source.clone().err()
    }

    async fn prepare(&self, namespace: &str, faults: &[Fault]) -> Result<(), BoxError> {
        if faults.is_empty() {
            return Ok(());
        }
        let server = if faults.contains(&Fault::RestartServer) {
            Arc::new(self.source.clone()?.start().await?)
        } else {
            eventstoredb::shared().await?
        };
        let proxy = Proxy::start(server.addr()).await?;
        self.places.lock().await.insert(namespace.to_owned(), ServerPlace { server, proxy });
        Ok(())
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let url = match self.places.lock().await.get(namespace) {
            Some(place) => place.server.url_at(place.proxy.addr()),
            None => eventstoredb::shared().await?.url(),
        };
        let options = EventStoreDbOptions::default().with_namespace(namespace);
        let config = EventStoreDbConfig::from_url(&url)?.with_options(options);
        Ok(Arc::new(EventStoreDbStore::open(config).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        // The events stay on the server: no other case uses their namespace.
        let place = self.places.lock().await.remove(namespace);
        Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        let source = self.source.as_ref().ok()?;
        match fault {
            Fault::CutConnections => None,
            Fault::RestartServer if source.is_ours() => None,
            Fault::RestartServer => Some(format!("the tests did not start {source}")),
            Fault::LoseNextAnswer => Some("all calls share one connection".to_owned()),
            Fault::NewerSchema => Some("the server has no schema of annals".to_owned()),
            _ => Some("only the server can reach its events".to_owned()),
        }
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let places = self.places.lock().await;
        let place = places.get(namespace).ok_or("the case did not declare its faults")?;
        match fault {
            Fault::CutConnections => place.proxy.cut().await,
            Fault::RestartServer => {
                place.server.kill_and_restart().await?;
                place.proxy.cut().await;
            }
            fault => return Err(format!("{fault:?} cannot be injected").into()),
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let sqlite = Backing::Sqlite(tempfile::tempdir().unwrap());
    let harnesses: Vec<Arc<dyn Harness>> = vec![
        Arc::new(OnGateway::new("eventstoredb-memory", Backing::Memory)),
        Arc::new(OnGateway::new("eventstoredb-sqlite", sqlite)),
        Arc::new(OnGateway::new(
            "eventstoredb-postgres",
            Backing::Postgres(postgres::Source::find()),
        )),
        Arc::new(Like2310::default()),
        Arc::new(OnServer { source: Source::find(), places: Mutex::default() }),
    ];
    run(&Arguments::from_args(), harnesses)
}
