//! Inspects EventStoreDB or KurrentDB, in which annals has no schema.

use annals::{
    Backend, EventStore,
    eventstoredb::{EventStoreDbConfig, EventStoreDbStore},
};

use crate::{check::CheckReport, failure::Failure};

pub(super) async fn inspect(url: &str) -> Result<CheckReport, Failure> {
    let config = EventStoreDbConfig::from_url(url)?;
    let mut report = CheckReport::new(Backend::EventStoreDb);
    if let Err(error) = examine(config, &mut report).await {
        report.error(error);
    }
    Ok(report)
}

async fn examine(config: EventStoreDbConfig, report: &mut CheckReport) -> annals::Result<()> {
    let namespace = config.options.namespace.clone();
    let namespace = namespace
        .unwrap_or_else(|| "none: this store sees the streams of all namespaces".to_owned());
    report.facts.push(("namespace", namespace));
    // Opening a store creates nothing: it only checks that the server answers.
    let store = EventStoreDbStore::open(config).await?;
    report.server = store.server_version().await?.map(|version| format!("version {version}"));
    report.capabilities = Some(store.capabilities().clone());
    Ok(())
}
