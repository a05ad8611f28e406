//! Temporary stores beside a store, for the conformance suite and for benchmarks. The store that the
//! user names is neither read nor written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use annals::{Backend, Store, StoreUrl};
use annals_conformance::BoxError;

use crate::failure::Failure;

/// The prefix of every namespace, so that the user recognises, and can remove, what a run left behind
/// that was killed: the file `shop-annals_tmp_….db`, the schema `annals_tmp_…`, the table
/// `shop.annals_tmp_…`, the streams `annals_tmp_….…`.
const PREFIX: &str = "annals_tmp_";

/// Makes temporary stores beside the one that a URL names.
#[derive(Debug)]
pub(crate) struct Namespaces {
    url: StoreUrl,
    /// The open stores, if they are in memory: there each `connect` makes another store.
    in_memory: Mutex<HashMap<String, Arc<dyn Store>>>,
}

impl Namespaces {
    /// Namespaces beside the store at a URL, which need not exist.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        let url = StoreUrl::parse(url)?;
        url.check()?;
        Ok(Self { url, in_memory: Mutex::default() })
    }

    /// Makes a namespace and removes it, to find out whether that works.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        let name = unique("probe");
        let opened = self.open(&name).await.map(drop);
        let removed = self.remove(&name).await;
        opened?;
        removed.map_err(|error| Failure::new("a namespace cannot be removed").because(&*error))
    }

    /// The store that the user named.
    pub(crate) fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// The name of the backend, as in `sqlite`.
    pub(crate) fn backend(&self) -> &'static str {
        self.url.backend().name()
    }

    /// A warning about what stays in the store after all namespaces were removed.
    pub(crate) fn leftovers(&self) -> Option<&'static str> {
        (self.url.backend() == Backend::EventStoreDb).then_some(
            "the server keeps the streams that were written: their names begin with `annals_tmp_`, \
             and $all has their events",
        )
    }

    /// Opens a namespace, and creates it if it is missing. In memory each call returns the same
    /// handle, elsewhere a new one.
    pub(crate) async fn open(&self, name: &str) -> annals::Result<Arc<dyn Store>> {
        if !self.url.is_in_memory() {
            return annals::connect(self.sibling(name)?.as_str()).await;
        }
        let stores = || self.in_memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores().get(name) {
            return Ok(store.clone());
        }
        let store = annals::connect(self.url.as_str()).await?;
        Ok(stores().entry(name.to_owned()).or_insert(store).clone())
    }

    /// Removes a namespace, if it exists. The caller has dropped all handles to it.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), BoxError> {
        if self.url.is_in_memory() {
            self.in_memory.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            return Ok(());
        }
        let url = self.sibling(name)?;
        match url.backend() {
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => remove_file(url.as_str()).await,
            #[cfg(feature = "postgres")]
            Backend::Postgres => drop_schema(url.as_str()).await,
            #[cfg(feature = "marten")]
            Backend::Marten => drop_schemas_of_marten(url.as_str()).await,
            #[cfg(feature = "dynamodb")]
            Backend::DynamoDb => delete_table(url.as_str()).await,
            Backend::Registered(registered) => Ok(registered.opener().remove(url.as_str()).await?),
            // EventStoreDB has no way to remove streams without a trace.
            _ => Ok(()),
        }
    }

    fn sibling(&self, name: &str) -> annals::Result<StoreUrl> {
        self.url.sibling(&format!("{PREFIX}{name}"))
    }
}

/// A name that no other run has.
pub(crate) fn unique(purpose: &str) -> String {
    format!("{purpose}_{}_{}", std::process::id(), fastrand::u32(..))
}

#[cfg(feature = "sqlite")]
async fn remove_file(url: &str) -> Result<(), BoxError> {
    use annals::sqlite::{Location, SqliteConfig};
    let Location::File(path) = SqliteConfig::from_url(url)?.location else { return Ok(()) };
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.clone().into_os_string();
        file.push(suffix);
        match tokio::fs::remove_file(file).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(feature = "postgres")]
async fn drop_schema(url: &str) -> Result<(), BoxError> {
    use annals::postgres::{
        PostgresConfig,
        sqlx::{AssertSqlSafe, ConnectOptions, query},
    };
    let config = PostgresConfig::from_url(url)?;
    let mut connection = config.connect.connect().await?;
    // `from_url` lets only small letters, digits and `_` pass as a schema.
    let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", config.options.schema);
    query(AssertSqlSafe(drop)).execute(&mut connection).await?;
    Ok(())
}

#[cfg(feature = "marten")]
async fn drop_schemas_of_marten(url: &str) -> Result<(), BoxError> {
    use annals::marten::{
        MartenConfig,
        sqlx::{AssertSqlSafe, ConnectOptions, query},
    };
    let config = MartenConfig::from_url(url)?;
    let mut connection = config.connect.connect().await?;
    // `from_url` lets only small letters, digits and `_` pass as a schema.
    for schema in [config.options.own_schema.unwrap_or_default(), config.options.schema] {
        let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
        query(AssertSqlSafe(drop)).execute(&mut connection).await?;
    }
    Ok(())
}

#[cfg(feature = "dynamodb")]
async fn delete_table(url: &str) -> Result<(), BoxError> {
    let config = annals::dynamodb::DynamoDbConfig::from_url(url)?;
    let delete = config.client().await.delete_table().table_name(config.table);
    match delete.send().await.map_err(|error| error.into_service_error()) {
        Err(error) if !error.is_resource_not_found_exception() => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_says_why() {
        for (url, says) in [
            ("shop.db", "did you mean sqlite://shop.db?"),
            ("mysql://u:hunter2@h/d", "annals knows no URLs"),
            ("sqlite://e.db?create=perhaps", "`true` or `false`"),
        ] {
            let failure = format!("{:?}", Namespaces::at(url).unwrap_err());
            assert!(failure.contains(says), "{failure}");
            assert!(!failure.contains("hunter2"), "{failure}");
        }
    }
}
