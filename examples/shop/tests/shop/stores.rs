//! Fresh stores, and how to run the shop on them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use annals::{ReadAll, RecordedEvent, Store};
use futures::TryStreamExt;
use shop::{AnyError, Options, Summary, execute::Counters};
use tempfile::TempDir;

/// A store that no other test has.
pub(crate) struct Fresh {
    pub(crate) url: String,
    /// The same on every call: in memory, every connection is a store of its own.
    pub(crate) store: Arc<dyn Store>,
    _dir: TempDir,
}

impl Fresh {
    pub(crate) async fn open(kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let name = format!("shop_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let file = dir.path().join("shop.db");
        let url = kind.replace("{file}", file.to_str().unwrap()).replace("{}", &name);
        let store = annals::connect(&url).await.expect(&url);
        Self { url, store, _dir: dir }
    }

    pub(crate) async fn memory() -> Self {
        Self::open("memory:").await
    }
}

/// A URL for each kind of store, for [`Fresh::open`] to complete.
pub(crate) fn kinds() -> Vec<String> {
    let more = std::env::var("ANNALS_SHOP_URLS").unwrap_or_default();
    let kinds = ["memory:", "sqlite://{file}"].into_iter().chain(more.split(',').map(str::trim));
    kinds.filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// One fresh store of each kind.
pub(crate) async fn all() -> Vec<Fresh> {
    let mut stores = Vec::new();
    for kind in kinds() {
        stores.push(Fresh::open(&kind).await);
    }
    stores
}

/// One fresh store of each kind that other processes can open too.
pub(crate) async fn shared() -> Vec<Fresh> {
    all().await.into_iter().filter(|fresh| fresh.store.capabilities().durable).collect()
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
