//! A look at EventStoreDB or KurrentDB, which have no schema of annals.

use annals::{
    EventStore,
    eventstoredb::{EventStoreDbConfig, EventStoreDbStore},
};

use crate::{check::Findings, failure::Failure};

pub(super) async fn look(url: &str) -> Result<Findings, Failure> {
    let config = EventStoreDbConfig::from_url(url)?;
    let mut findings = Findings::new("eventstoredb");
    if let Err(error) = examine(config, &mut findings).await {
        findings.error(error);
    }
    Ok(findings)
}

async fn examine(config: EventStoreDbConfig, findings: &mut Findings) -> annals::Result<()> {
    let namespace = config.options.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| "none: it sees those of all others".to_owned());
    findings.facts.push(("namespace", namespace));
    // To open it only looks whether the server answers.
    let store = EventStoreDbStore::open(config).await?;
    findings.server = store.server_version().await?.map(|version| format!("version {version}"));
    findings.capabilities = Some(store.capabilities().clone());
    Ok(())
}
