//! A look at a DynamoDB table.

use std::time::Duration;

use annals::{
    EventStore,
    dynamodb::{
        DynamoDbConfig, DynamoDbStore, Inspection, aws_sdk_dynamodb::types::TableDescription,
    },
};

use crate::{check::Findings, failure::Failure};

/// Longer than a service that is there takes to become free again.
const RETRY_FOR: Duration = Duration::from_secs(3);

pub(super) async fn look(url: &str) -> Result<Findings, Failure> {
    let mut config = DynamoDbConfig::from_url(url)?;
    config.options.retry_for = config.options.retry_for.min(RETRY_FOR);
    let mut findings = Findings::new("dynamodb");
    if let Err(error) = examine(config, &mut findings).await {
        findings.error(error);
    }
    Ok(findings)
}

async fn examine(mut config: DynamoDbConfig, findings: &mut Findings) -> annals::Result<()> {
    if let Some(region) = &config.region {
        findings.facts.push(("region", region.clone()));
    }
    let Inspection { table, layout, .. } = DynamoDbStore::inspect(config.clone()).await?;
    let place = match &table {
        Some(table) => {
            describe(table, findings);
            format!("the layout of the table {}", config.table)
        }
        None => format!("the table {}", config.table),
    };
    let version = |layout: u64| i64::try_from(layout).unwrap_or(i64::MAX);
    if !findings.schema(layout.map(version), version(DynamoDbStore::LAYOUT), &place) {
        return Ok(());
    }
    config.options.create = false;
    let store = DynamoDbStore::open(config).await?;
    findings.capabilities = Some(store.capabilities().clone());
    Ok(())
}

fn describe(table: &TableDescription, findings: &mut Findings) {
    if let Some(arn) = table.table_arn() {
        findings.facts.push(("table", arn.to_owned()));
    }
    if let Some(status) = table.table_status() {
        findings.facts.push(("status", status.as_str().to_lowercase()));
    }
    let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    if let Some(mode) = billing {
        findings.facts.push(("billing", mode.as_str().to_lowercase().replace('_', " ")));
    }
    if let (Some(items), Some(bytes)) = (table.item_count(), table.table_size_bytes()) {
        // As of up to six hours ago.
        findings.facts.push(("size", format!("about {items} items, {bytes} bytes")));
    }
    if let Some(on) = table.deletion_protection_enabled() {
        findings.facts.push(("deletion protection", if on { "on" } else { "off" }.to_owned()));
    }
}
