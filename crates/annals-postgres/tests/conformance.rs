//! The conformance suite on PostgreSQL. Cases share a server, each with a schema of its own. A case
//! that cuts connections goes through a proxy, and a case that restarts the server has its own one.
//! All cases run twice: directly, and behind PgBouncer that pools transactions.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard},
};

use annals_conformance::{BoxError, CORRUPT_EVENT, Fault, Harness};
use annals_core::Store;
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, query},
};
use annals_test_servers::{
    Proxy,
    postgres::{self, Marked, Options, PgBouncer, Postgres, Source},
};
use libtest_mimic::Arguments;
use tokio::sync::OnceCell;

/// The URL of the PgBouncer that the suite has started, for a process that runs one of its cases.
const POOLER: &str = "ANNALS_POSTGRES_POOLER";
/// Fewer sessions than the stores of all cases that run at the same time have connections.
const SESSIONS: usize = 16;

struct Server {
    source: Result<Source, String>,
    /// Whether stores go through PgBouncer, and the one in front of the server that cases share.
    pooler: Option<OnceCell<PgBouncer>>,
    places: Mutex<HashMap<String, Place>>,
}

/// The server and the proxy of a case that does harm.
#[derive(Clone)]
struct Place {
    server: Arc<Postgres>,
    /// Behind the proxy.
    _bouncer: Option<Arc<PgBouncer>>,
    proxy: Arc<Proxy>,
}

impl Server {
    fn harness(is_pooled: bool) -> Arc<dyn Harness> {
        let pooler = is_pooled.then(OnceCell::new);
        Arc::new(Self { source: Source::find(), pooler, places: Mutex::default() })
    }

    /// The URL of the server that cases share, or of PgBouncer in front of it.
    async fn shared_url(&self) -> Result<String, BoxError> {
        let server = postgres::shared().await?;
        let Some(pooler) = &self.pooler else { return Ok(server.url()) };
        if let Ok(url) = std::env::var(POOLER) {
            return Ok(url);
        }
        let start = || PgBouncer::start(&server, "transaction", SESSIONS);
        Ok(server.url_at(pooler.get_or_try_init(start).await?.addr()))
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap()
    }

    fn place(&self, namespace: &str) -> Option<Place> {
        self.places().get(namespace).cloned()
    }

    /// Connects without the proxy, and without the store.
    async fn connect(&self, namespace: &str) -> Result<PgConnection, BoxError> {
        let server = match self.place(namespace) {
            Some(place) => place.server,
            None => postgres::shared().await?,
        };
        Ok(PostgresConfig::from_url(&server.url())?.connect.connect().await?)
    }
}

#[async_trait::async_trait]
impl Harness for Server {
    fn name(&self) -> &str {
        if self.pooler.is_some() { "postgres-pgbouncer" } else { "postgres" }
    }

    async fn unavailable(&self) -> Option<String> {
        match &self.source {
            Err(reason) => Some(reason.clone()),
            Ok(_) if self.pooler.is_none() || std::env::var_os(POOLER).is_some() => None,
            Ok(Source::Local(_)) if PgBouncer::program().is_some() => None,
            Ok(Source::Local(_)) => Some("there is no PgBouncer on this machine".to_owned()),
            Ok(source) => Some(format!("not possible with {source}")),
        }
    }

    async fn prepare(&self, namespace: &str, faults: &[Fault]) -> Result<(), BoxError> {
        let server = if faults.contains(&Fault::RestartServer) {
            Arc::new(self.source.clone()?.start(Options::default()).await?)
        } else if faults.is_empty() {
            return Ok(());
        } else {
            postgres::shared().await?
        };
        let marked = Marked::new(".append").or(".import").or(".leases AS kept");
        let bouncer = match &self.pooler {
            Some(_) => Some(Arc::new(PgBouncer::start(&server, "transaction", SESSIONS).await?)),
            None => None,
        };
        let to = bouncer.as_ref().map_or(server.addr(), |bouncer| bouncer.addr());
        let proxy = Arc::new(Proxy::between(to, marked).await?);
        self.places().insert(namespace.to_owned(), Place { server, _bouncer: bouncer, proxy });
        Ok(())
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let url = match self.place(namespace) {
            Some(place) => place.server.url_at(place.proxy.addr()),
            None => self.shared_url().await?,
        };
        let mut config = PostgresConfig::from_url(&url)?;
        namespace.clone_into(&mut config.options.schema);
        Ok(Arc::new(PostgresStore::open(config).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        let mut connection = self.connect(namespace).await?;
        let drop = format!("DROP SCHEMA IF EXISTS {namespace} CASCADE");
        query(AssertSqlSafe(drop)).execute(&mut connection).await?;
        let place = self.places().remove(namespace);
        // Dropping the server blocks until it has ended.
        Ok(tokio::task::spawn_blocking(move || std::mem::drop(place)).await?)
    }

    fn random_programs(&self) -> u32 {
        32
    }

    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        let mut urls =
            vec![("ANNALS_POSTGRES_URL".to_owned(), postgres::shared().await.ok()?.url())];
        if self.pooler.is_some() {
            urls.push((POOLER.to_owned(), self.shared_url().await.ok()?));
        }
        Some(urls)
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        let source = self.source.as_ref().ok()?;
        let restart = fault == Fault::RestartServer && !source.is_ours();
        restart.then(|| format!("{source} is not ours to restart"))
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let (stream, version) = CORRUPT_EVENT;
        let sql = match (fault, self.place(namespace)) {
            (Fault::CutConnections, Some(place)) => {
                place.proxy.cut().await;
                return Ok(());
            }
            (Fault::LoseNextAnswer, Some(place)) => {
                place.proxy.lose_next_answer();
                return Ok(());
            }
            (Fault::RestartServer, Some(place)) => return place.server.kill_and_restart().await,
            (Fault::CorruptEvent, _) => format!(
                "UPDATE {namespace}.events SET flags = 99 WHERE version = {version} AND stream = \
                 (SELECT id FROM {namespace}.streams WHERE name = '{stream}')"
            ),
            (Fault::NewerSchema, _) => {
                format!("INSERT INTO {namespace}.migrations (version) VALUES (1000)")
            }
            (fault, _) => return Err(format!("{fault:?} was not prepared").into()),
        };
        let mut connection = self.connect(namespace).await?;
        match query(AssertSqlSafe(sql)).execute(&mut connection).await?.rows_affected() {
            1 => Ok(()),
            rows => Err(format!("{fault:?} harmed {rows} rows").into()),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    annals_conformance::run(&arguments, [false, true].map(Server::harness).into())
}
