//! The conformance suite on tables of Marten, with both types of stream ids. Cases share a server, each
//! with schemas of its own. A case that cuts connections goes through a proxy, and a case that restarts
//! the server has its own one.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard},
};

use annals_conformance::{BoxError, CORRUPT_EVENT, Fault, Harness};
use annals_core::Store;
use annals_marten::{
    MartenConfig, MartenStore,
    sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, query},
};
use annals_test_servers::{
    Proxy,
    postgres::{self, Marked, Options, Postgres, Source},
};
use libtest_mimic::Arguments;

/// Runs all themes on Guids.
const BOTH: &str = "ANNALS_MARTEN_BOTH";
/// The themes that run on Guids without that: those in which the type of ids matters, and which do not take
/// long. Guids differ from strings in what is a stream's name, and nowhere else.
const GUID_THEMES: [&str; 8] =
    ["append", "expect", "ids", "lifecycle", "manage", "multi-stream", "retry", "transfer"];

struct Server {
    source: Result<Source, String>,
    is_guid: bool,
    skips: Vec<(&'static str, &'static str)>,
    places: Mutex<HashMap<String, Place>>,
}

/// The server and the proxy of a case that does harm.
#[derive(Clone)]
struct Place {
    server: Arc<Postgres>,
    proxy: Arc<Proxy>,
}

impl Server {
    fn harness(is_guid: bool) -> Arc<dyn Harness> {
        let skips = if is_guid && std::env::var_os(BOTH).is_none() { skips() } else { Vec::new() };
        Arc::new(Self { source: Source::find(), is_guid, skips, places: Mutex::default() })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap()
    }

    fn place(&self, namespace: &str) -> Option<Place> {
        self.places().get(namespace).cloned()
    }

    /// The configuration of a namespace at the URL of a server.
    fn config(&self, url: &str, namespace: &str) -> Result<MartenConfig, BoxError> {
        let address = url.split_once("://").ok_or("no URL")?.1;
        let joint = if address.contains('?') { '&' } else { '?' };
        let ids = if self.is_guid { "create=guid&ids=named" } else { "create=string" };
        Ok(MartenConfig::from_url(&format!("marten://{address}{joint}schema={namespace}&{ids}"))?)
    }

    /// Connects without the proxy, and without the store.
    async fn connect(&self, namespace: &str) -> Result<PgConnection, BoxError> {
        let server = match self.place(namespace) {
            Some(place) => place.server,
            None => postgres::shared().await?,
        };
        Ok(self.config(&server.url(), namespace)?.connect.connect().await?)
    }
}

#[async_trait::async_trait]
impl Harness for Server {
    fn name(&self) -> &str {
        if self.is_guid { "marten-guid" } else { "marten-string" }
    }

    async fn unavailable(&self) -> Option<String> {
        self.source.as_ref().err().cloned()
    }

    async fn prepare(&self, namespace: &str, faults: &[Fault]) -> Result<(), BoxError> {
        let server = if faults.contains(&Fault::RestartServer) {
            Arc::new(self.source.clone()?.start(Options::default()).await?)
        } else if faults.is_empty() {
            return Ok(());
        } else {
            postgres::shared().await?
        };
        let marked = Marked::new(".append").or(".leases AS kept");
        let proxy = Arc::new(Proxy::between(server.addr(), marked).await?);
        self.places().insert(namespace.to_owned(), Place { server, proxy });
        Ok(())
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let url = match self.place(namespace) {
            Some(place) => place.server.url_at(place.proxy.addr()),
            None => postgres::shared().await?.url(),
        };
        Ok(Arc::new(MartenStore::open(self.config(&url, namespace)?).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        let mut connection = self.connect(namespace).await?;
        for schema in [format!("annals_{namespace}"), namespace.to_owned()] {
            let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
            query(AssertSqlSafe(drop)).execute(&mut connection).await?;
        }
        let place = self.places().remove(namespace);
        // Dropping the server blocks until it has ended.
        Ok(tokio::task::spawn_blocking(move || std::mem::drop(place)).await?)
    }

    fn skips(&self) -> &[(&str, &str)] {
        &self.skips
    }

    fn random_programs(&self) -> u32 {
        8
    }

    fn histories(&self) -> u32 {
        50
    }

    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        let server = postgres::shared().await.ok()?;
        Some(vec![("ANNALS_POSTGRES_URL".to_owned(), server.url())])
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        let source = self.source.as_ref().ok()?;
        let restart = fault == Fault::RestartServer && !source.is_ours();
        restart.then(|| format!("{source} is not ours to restart"))
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let (stream, version) = CORRUPT_EVENT;
        let own = format!("annals_{namespace}");
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
                "UPDATE {own}.payloads SET flags = 99 WHERE seq_id = \
                 (SELECT position FROM {own}.events WHERE stream = '{stream}' \
                     AND version = {version})"
            ),
            (Fault::NewerSchema, _) => {
                format!("INSERT INTO {own}.migrations (version) VALUES (1000)")
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

/// The cases of the themes that are left out on Guids.
fn skips() -> Vec<(&'static str, &'static str)> {
    let cases = annals_conformance::cases().into_iter();
    let names = cases.map(|case| case.full_name());
    let is_left_out = |name: &String| {
        let theme = name.split("::").next().unwrap();
        !GUID_THEMES.contains(&theme)
    };
    let leak = |name: String| &*Box::leak(name.into_boxed_str());
    let reason = "this theme runs on string ids; ANNALS_MARTEN_BOTH=1 runs it on Guids, too";
    names.filter(is_left_out).map(|name| (leak(name), reason)).collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    annals_conformance::run(&arguments, [false, true].map(Server::harness).into())
}
