//! Inspects a DynamoDB table.

use std::time::Duration;

use annals::{
    Backend, EventStore,
    dynamodb::{
        DynamoDbConfig, DynamoDbStore, Inspection, aws_sdk_dynamodb::types::TableDescription,
    },
};

use crate::{check::CheckReport, failure::Failure};

/// How long requests are tried again. A service that can be reached recovers sooner from throttling.
const RETRY_FOR: Duration = Duration::from_secs(3);

pub(super) async fn inspect(url: &str) -> Result<CheckReport, Failure> {
    let mut config = DynamoDbConfig::from_url(url)?;
    config.options.retry_for = config.options.retry_for.min(RETRY_FOR);
    let mut report = CheckReport::new(Backend::DynamoDb);
    if let Err(error) = examine(config, &mut report).await {
        report.error(error);
    }
    Ok(report)
}

async fn examine(mut config: DynamoDbConfig, report: &mut CheckReport) -> annals::Result<()> {
    if let Some(region) = &config.region {
        report.facts.push(("region", region.clone()));
    }
    let Inspection { table, layout, counter_behind, .. } =
        DynamoDbStore::inspect(config.clone()).await?;
    let place = match &table {
        Some(table) => {
            describe(table, report);
            format!("the layout of the table {}", config.table)
        }
        None => format!("the table {}", config.table),
    };
    if counter_behind > 0 {
        let what = "slots behind the log, as after a restore; opening the store mends it";
        report.facts.push(("counter", format!("{counter_behind} {what}")));
    }
    let version = |layout: u64| i64::try_from(layout).unwrap_or(i64::MAX);
    if !report.schema(layout.map(version), version(DynamoDbStore::LAYOUT), &place) {
        return Ok(());
    }
    config.options.create = false;
    let store = DynamoDbStore::open(config).await?;
    report.capabilities = Some(store.capabilities().clone());
    Ok(())
}

fn describe(table: &TableDescription, report: &mut CheckReport) {
    if let Some(arn) = table.table_arn() {
        report.facts.push(("table", arn.to_owned()));
    }
    if let Some(status) = table.table_status() {
        report.facts.push(("status", status.as_str().to_lowercase()));
    }
    let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    if let Some(mode) = billing {
        report.facts.push(("billing", mode.as_str().to_lowercase().replace('_', " ")));
    }
    if let (Some(items), Some(bytes)) = (table.item_count(), table.table_size_bytes()) {
        // DynamoDB updates these about every six hours.
        report.facts.push(("size", format!("about {items} items, {bytes} bytes")));
    }
    if let Some(on) = table.deletion_protection_enabled() {
        report.facts.push(("deletion protection", if on { "on" } else { "off" }.to_owned()));
    }
}
