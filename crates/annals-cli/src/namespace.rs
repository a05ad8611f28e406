//! Namespaces of their own in a store that is there, for the suite and for benchmarks. What the user
//! has in it is neither read nor written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use annals::Store;
use annals_conformance::BoxError;

use crate::failure::Failure;

/// What the name of every namespace begins with, so that those of a run that was killed are
/// recognised, and removed by hand: the file `shop-annals_tmp_….db`, the schema `annals_tmp_…`, the
/// table `shop.annals_tmp_…`, the streams `annals_tmp_….…`.
const PREFIX: &str = "annals_tmp_";

/// Makes stores in the place that a URL names.
#[derive(Debug)]
pub(crate) struct Namespaces {
    backend: &'static str,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In the memory of this process: the URL, and the stores there are.
    Memory(String, Mutex<HashMap<String, Arc<dyn Store>>>),
    #[cfg(feature = "sqlite")]
    Files(annals::sqlite::SqliteConfig, std::path::PathBuf),
    #[cfg(feature = "postgres")]
    Schemas(Box<annals::postgres::PostgresConfig>),
    #[cfg(feature = "dynamodb")]
    Tables(annals::dynamodb::DynamoDbConfig),
    #[cfg(feature = "eventstoredb")]
    Streams(Box<annals::eventstoredb::EventStoreDbConfig>),
}

impl Namespaces {
    /// Those at a URL, which need not be a store yet.
    pub(crate) async fn at(url: &str) -> Result<Self, Failure> {
        let (backend, place) = place(url).await?;
        Ok(Self { backend, place })
    }

    /// Makes one and removes it, to see that it can be done.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        let name = unique("probe");
        let opened = self.open(&name).await.map(drop);
        let removed = self.remove(&name).await;
        opened?;
        removed.map_err(|error| Failure::new("a namespace cannot be removed").because(&*error))
    }

    /// The name of the backend, as in `sqlite`.
    pub(crate) fn backend(&self) -> &'static str {
        self.backend
    }

    /// What stays there after all namespaces were removed.
    pub(crate) fn leftovers(&self) -> Option<&'static str> {
        match &self.place {
            #[cfg(feature = "eventstoredb")]
            Place::Streams(_) => Some(
                "the server keeps the streams that were written: their names begin with \
                 `annals_tmp_`, and $all has their events",
            ),
            _ => None,
        }
    }

    /// Opens a namespace, and creates it where it is missing. In memory each call gives the same
    /// handle, elsewhere another one.
    pub(crate) async fn open(&self, name: &str) -> annals::Result<Arc<dyn Store>> {
        let name = format!("{PREFIX}{name}");
        match &self.place {
            Place::Memory(url, stores) => {
                if let Some(store) = lock(stores).get(&name) {
                    return Ok(store.clone());
                }
                let store = annals::connect(url).await?;
                Ok(lock(stores).entry(name).or_insert(store).clone())
            }
            #[cfg(feature = "sqlite")]
            Place::Files(config, path) => {
                let mut config = config.clone().with_create(true);
                config.location = annals::sqlite::Location::File(beside(path, &name));
                Ok(Arc::new(annals::sqlite::SqliteStore::open(config).await?))
            }
            #[cfg(feature = "postgres")]
            Place::Schemas(config) => {
                let mut config = config.as_ref().clone();
                (config.options.schema, config.options.migrate) = (name, true);
                Ok(Arc::new(annals::postgres::PostgresStore::open(config).await?))
            }
            #[cfg(feature = "dynamodb")]
            Place::Tables(config) => {
                let mut config = config.clone();
                config.table = table(&config.table, &name);
                config.options = config.options.with_create(true).with_deletion_protection(false);
                Ok(Arc::new(annals::dynamodb::DynamoDbStore::open(config).await?))
            }
            #[cfg(feature = "eventstoredb")]
            Place::Streams(config) => {
                let mut config = config.as_ref().clone();
                config.options.namespace = Some(name);
                Ok(Arc::new(annals::eventstoredb::EventStoreDbStore::open(config).await?))
            }
        }
    }

    /// Removes a namespace, if it is there. All handles have been dropped.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), BoxError> {
        let name = format!("{PREFIX}{name}");
        match &self.place {
            Place::Memory(_, stores) => {
                lock(stores).remove(&name);
            }
            #[cfg(feature = "sqlite")]
            Place::Files(_, path) => {
                let file = beside(path, &name);
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = file.clone().into_os_string();
                    file.push(suffix);
                    match tokio::fs::remove_file(file).await {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
            }
            #[cfg(feature = "postgres")]
            Place::Schemas(config) => {
                use annals::postgres::sqlx::{AssertSqlSafe, ConnectOptions, query};
                let mut connection = config.connect.connect().await?;
                // The name is of small letters, digits and `_`.
                let drop = format!("DROP SCHEMA IF EXISTS {name} CASCADE");
                query(AssertSqlSafe(drop)).execute(&mut connection).await?;
            }
            #[cfg(feature = "dynamodb")]
            Place::Tables(config) => {
                let (client, table) = (config.client().await, table(&config.table, &name));
                if let Err(error) = client.delete_table().table_name(table).send().await {
                    let error = error.into_service_error();
                    if !error.is_resource_not_found_exception() {
                        return Err(error.into());
                    }
                }
            }
            // They cannot be removed without a trace.
            #[cfg(feature = "eventstoredb")]
            Place::Streams(_) => {}
        }
        Ok(())
    }
}

/// A name that no other run has.
pub(crate) fn unique(purpose: &str) -> String {
    format!("{purpose}_{}_{}", std::process::id(), fastrand::u32(..))
}

async fn place(url: &str) -> Result<(&'static str, Place), Failure> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let scheme = scheme.to_ascii_lowercase();
    let url = format!("{scheme}:{rest}");
    let memory = |url: String| Place::Memory(url, Mutex::default());
    Ok(match scheme.as_str() {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let config = annals::sqlite::SqliteConfig::from_url(&url)?;
            let place = match config.location.clone() {
                annals::sqlite::Location::File(path) => Place::Files(config, path),
                _ => memory(url),
            };
            ("sqlite", place)
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let config = annals::postgres::PostgresConfig::from_url(&url)?;
            ("postgres", Place::Schemas(Box::new(config)))
        }
        #[cfg(feature = "dynamodb")]
        "dynamodb" => {
            let config = annals::dynamodb::DynamoDbConfig::from_url(&url)?;
            ("dynamodb", Place::Tables(config))
        }
        #[cfg(feature = "eventstoredb")]
        "esdb" | "esdb+discover" | "kurrentdb" | "kurrentdb+discover" => {
            let config = annals::eventstoredb::EventStoreDbConfig::from_url(&url)?;
            ("eventstoredb", Place::Streams(Box::new(config)))
        }
        "memory" => ("memory", memory(url)),
        // The URL, or this build, lacks something, of which this error says what.
        _ => {
            annals::connect(if scheme.is_empty() { rest } else { &url }).await?;
            return Err(Failure::usage("there are no namespaces in stores of this kind"));
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `shop-annals_tmp_1.db`, next to `shop.db`.
#[cfg(feature = "sqlite")]
fn beside(path: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut file = path.file_stem().unwrap_or_default().to_owned();
    file.push(format!("-{name}"));
    if let Some(extension) = path.extension() {
        file.push(".");
        file.push(extension);
    }
    path.with_file_name(file)
}

#[cfg(feature = "dynamodb")]
fn table(given: &str, name: &str) -> String {
    format!("{given}.{name}")
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_beside_has_the_same_extension() {
        for (path, due) in [
            ("shop.db", "shop-x.db"),
            ("/var/lib/shop.v2.db", "/var/lib/shop.v2-x.db"),
            ("shop", "shop-x"),
        ] {
            assert_eq!(beside(path.as_ref(), "x"), std::path::Path::new(due));
        }
    }

    #[tokio::test]
    async fn what_has_no_place_says_why() {
        for (url, says) in [
            ("shop.db", "did you mean sqlite://shop.db?"),
            ("mysql://u:hunter2@h/d", "annals knows no URLs"),
            ("sqlite://e.db?create=perhaps", "`true` or `false`"),
        ] {
            let failure = format!("{:?}", Namespaces::at(url).await.unwrap_err());
            assert!(failure.contains(says), "{failure}");
            assert!(!failure.contains("hunter2"), "{failure}");
        }
    }
}
