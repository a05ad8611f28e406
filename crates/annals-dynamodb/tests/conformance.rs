//! The conformance suite on DynamoDB, each case in a table of its own: with an order over all
//! streams, without an order, and with every kind of fault in its requests.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use annals_conformance::{BoxError, CORRUPT_EVENT, Fault, Harness, run};
use annals_core::Store;
use annals_dynamodb::{
    DynamoDbConfig, DynamoDbOptions, DynamoDbStore,
    aws_sdk_dynamodb::{
        Client,
        primitives::Blob,
        types::AttributeValue::{self, B, N, S},
    },
};
use annals_test_servers::{
    Proxy,
    dynamodb::{DynamoDb, Faults, Rates, Source, Writes, shared},
};
use libtest_mimic::Arguments;

/// moto is a hundred times slower than the others.
const MOTO_PATIENCE: Duration = Duration::from_secs(150);

struct Server {
    name: &'static str,
    source: Result<Source, String>,
    options: DynamoDbOptions,
    /// The faults of requests.
    faults: Option<Faults>,
    places: Mutex<HashMap<String, Place>>,
}

/// The server of a case that injects faults, and the proxy before it.
#[derive(Clone)]
struct Place {
    server: Arc<DynamoDb>,
    proxy: Arc<Proxy>,
}

impl Server {
    fn new(name: &'static str, options: DynamoDbOptions) -> Self {
        let (source, places) = (Source::find(), Mutex::default());
        let options = match source {
            // So slow that an append beside others can lose for longer than the default.
            Ok(Source::Moto) => options.with_retry_for(MOTO_PATIENCE),
            _ => options,
        };
        Self { name, source, options, faults: None, places }
    }

    fn with_faults(mut self, faults: &Faults) -> Self {
        self.faults = Some(faults.clone());
        self
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap()
    }

    fn place(&self, namespace: &str) -> Option<Place> {
        self.places().get(namespace).cloned()
    }

    fn table(&self, namespace: &str) -> String {
        format!("{namespace}.{}", self.name)
    }

    /// A client that goes past the proxy and past the store, and the name of the table.
    async fn client(&self, namespace: &str) -> Result<(Client, String), BoxError> {
        let server = match self.place(namespace) {
            Some(place) => place.server,
            None => shared().await?,
        };
        Ok((server.client(), server.table(&self.table(namespace))))
    }

    /// Changes an attribute that exists.
    async fn set(
        &self,
        namespace: &str,
        key: (&str, u64),
        path: &str,
        value: AttributeValue,
    ) -> Result<(), BoxError> {
        let (client, table) = self.client(namespace).await?;
        let update = client
            .update_item()
            .table_name(table)
            .key("pk", S(key.0.to_owned()))
            .key("sk", N(key.1.to_string()))
            .update_expression(format!("SET {path} = :value"))
            .condition_expression(format!("attribute_exists({path})"))
            .expression_attribute_values(":value", value);
        update.send().await?;
        Ok(())
    }

    /// Makes the item with an event unreadable, and its entry in the log if that has the event,
    /// too.
    async fn corrupt(&self, namespace: &str) -> Result<(), BoxError> {
        let (stream, version) = CORRUPT_EVENT;
        let (client, table) = self.client(namespace).await?;
        let partition = format!("s:{stream}");
        let found = client
            .query()
            .table_name(table)
            .key_condition_expression("pk = :pk AND sk <= :sk")
            .expression_attribute_values(":pk", S(partition.clone()))
            .expression_attribute_values(":sk", N(version.to_string()))
            .scan_index_forward(false)
            .limit(1)
            .send()
            .await?;
        let item = found.items().first().ok_or("the event does not exist")?;
        let number = |name: &str| match item.get(name) {
            Some(N(n)) => n.parse::<u64>().ok(),
            _ => None,
        };
        let garbage = || B(Blob::new([99]));
        let first = number("sk").ok_or("no version")?;
        self.set(namespace, (&partition, first), "b", garbage()).await?;
        if let Some(position) = number("p") {
            let (slot, entry) = (position / 1024, number("j").unwrap_or(0));
            let stripe = format!("l:{}", slot % 8);
            self.set(namespace, (&stripe, slot), &format!("a[{entry}].b"), garbage()).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Harness for Server {
    fn name(&self) -> &str {
        self.name
    }

    async fn unavailable(&self) -> Option<String> {
        self.source.clone().err()
    }

    async fn prepare(&self, namespace: &str, faults: &[Fault]) -> Result<(), BoxError> {
        let server = if faults.contains(&Fault::RestartServer) {
            Arc::new(self.source.clone()?.start().await?)
        } else if faults.is_empty() {
            return Ok(());
        } else {
            shared().await?
        };
        let addr = server.addr().ok_or("this server has no address for a proxy")?;
        let proxy = Arc::new(Proxy::between(addr, Writes::new("")).await?);
        self.places().insert(namespace.to_owned(), Place { server, proxy });
        Ok(())
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let table = self.table(namespace);
        let url = match self.place(namespace) {
            Some(place) => place.server.url_at(place.proxy.addr(), &table),
            None => shared().await?.url(&table),
        };
        let config = DynamoDbConfig::from_url(&url)?;
        let Some(faults) = &self.faults else {
            let config = config.with_options(self.options.clone());
            return Ok(Arc::new(DynamoDbStore::open(config).await?));
        };
        let server = shared().await?.config().to_builder();
        let server = server.http_client(faults.http_client());
        let server = match config.endpoint {
            Some(endpoint) => server.endpoint_url(endpoint),
            None => server,
        };
        let client = Client::from_conf(server.build());
        let options = self.options.clone();
        Ok(Arc::new(DynamoDbStore::with_client(&client, config.table, options).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        let (client, table) = self.client(namespace).await?;
        if let Err(error) = client.delete_table().table_name(table).send().await {
            // A case that only tests refusals never opens the store.
            let error = error.into_service_error();
            if !error.is_resource_not_found_exception() {
                return Err(error.into());
            }
        }
        let place = self.places().remove(namespace);
        // Dropping a server waits for its end.
        Ok(tokio::task::spawn_blocking(move || std::mem::drop(place)).await?)
    }

    fn random_programs(&self) -> u32 {
        32
    }

    fn histories(&self) -> u32 {
        match (&self.source, &self.faults) {
            (Ok(Source::Moto), _) => 20,
            // Each fault is followed by a pause.
            (_, Some(_)) => 40,
            _ => 100,
        }
    }

    fn patience(&self) -> Duration {
        match self.source {
            Ok(Source::Moto) => MOTO_PATIENCE,
            _ => Duration::from_secs(60),
        }
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        let source = self.source.as_ref().ok()?;
        let restart = fault == Fault::RestartServer && !matches!(source, Source::InProcess);
        restart.then(|| format!("tests may not restart {source}"))
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        match (fault, self.place(namespace)) {
            (Fault::CutConnections, Some(place)) => place.proxy.cut().await,
            (Fault::LoseNextAnswer, Some(place)) => place.proxy.lose_next_answer(),
            (Fault::RestartServer, Some(place)) => place.server.restart().await?,
            (Fault::CorruptEvent, _) => self.corrupt(namespace).await?,
            (Fault::NewerSchema, _) => {
                self.set(namespace, ("meta", 0), "layout", N("1000".to_owned())).await?;
            }
            (fault, _) => return Err(format!("{fault:?} was not prepared").into()),
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    // Short times make the cases fast. In production such frequent polls would be expensive.
    let options = DynamoDbOptions::default()
        .with_poll_interval(Duration::from_millis(50))
        .with_close_after(Duration::from_millis(100));
    let ordered = Server::new("dynamodb", options.clone());
    let unordered = Server::new("dynamodb-unordered", options.clone().with_order(false));
    // Not to the standard output, where a test runner reads the list of cases.
    eprintln!("dynamodb-faults: the faults are those of ANNALS_SEED={seed}");
    let faults = Faults::new(seed, Rates::all(0.02));
    let faulty = Server::new("dynamodb-faults", options).with_faults(&faults);
    let harnesses: Vec<Arc<dyn Harness>> =
        vec![Arc::new(ordered), Arc::new(unordered), Arc::new(faulty)];
    let outcome = run(&Arguments::from_args(), harnesses);
    eprintln!("dynamodb-faults: {:?}", faults.counts());
    outcome
}
