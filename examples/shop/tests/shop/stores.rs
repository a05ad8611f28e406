//! How to run the shop, and what it leaves behind.

use std::{collections::BTreeMap, sync::Arc};

use annals::{ReadAll, RecordedEvent, Store};
pub(crate) use annals_test_stores::{Fresh, Kind, kinds};
use futures::TryStreamExt;
use shop::{AnyError, COMMANDS, Options, Summary, execute::Counters};

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

/// The commands that come with the shop; fewer on the stores that are slow in tests.
pub(crate) fn commands_for(kind: &Kind) -> String {
    let is_slow = matches!(kind.name(), "dynamodb" | "eventstoredb" | "marten");
    let lines = if is_slow { 600 } else { usize::MAX };
    COMMANDS.lines().take(lines).map(|line| format!("{line}\n")).collect()
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
