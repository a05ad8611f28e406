//! Opening a store, and looking at a table without opening it.

use std::sync::Arc;

use annals_core::{Result, adapter::context};
use aws_config::SdkConfig;
use aws_sdk_dynamodb::{Client, types::TableDescription};

use crate::{
    config::{DynamoDbConfig, DynamoDbOptions, http_client},
    error::BACKEND,
    item::{Key, attribute, get_number},
    log::Log,
    schema::{LAYOUT, check_table, new_id},
    shared::Shared,
    store::DynamoDbStore,
    table::Table,
};

/// What [`DynamoDbStore::inspect`] finds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// What DynamoDB says of the table; `None` if no table has this name.
    pub table: Option<TableDescription>,
    /// The layout of the store in the table; `None` if the table is not a store yet. It is more
    /// than [`DynamoDbStore::LAYOUT`] if a newer version of annals created the store.
    pub layout: Option<u64>,
    /// How many slots the counter of the log is behind the log, as after a restore of the table.
    /// Opening the store raises it.
    pub counter_behind: u64,
}

impl DynamoDbStore {
    /// The layout of tables that this version reads and writes.
    pub const LAYOUT: u64 = LAYOUT;

    /// Opens a store. Creates the table if it is missing, unless [`DynamoDbOptions::create`] is
    /// off; several processes may do so at once. The SDK's default chain finds the credentials, and
    /// the region unless the configuration has one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for invalid options;
    /// [`ErrorKind::Incompatible`](annals_core::ErrorKind::Incompatible) for a table that is
    /// missing and not to be created, has other keys, has items that are not of annals, has another
    /// order or number of stripes than asked for, or was created by a newer version of annals;
    /// [`ErrorKind::Denied`](annals_core::ErrorKind::Denied),
    /// [`ErrorKind::Busy`](annals_core::ErrorKind::Busy) and
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) if DynamoDB refuses the
    /// requests or cannot be reached.
    pub async fn open(config: DynamoDbConfig) -> Result<Self> {
        let client = config.client().await;
        Self::with_client(&client, config.table, config.options).await
    }

    /// Opens a store with an SDK configuration of the application.
    ///
    /// # Errors
    /// As for [`DynamoDbStore::open`].
    pub async fn with_sdk_config(
        sdk: &SdkConfig,
        table: impl Into<String>,
        options: DynamoDbOptions,
    ) -> Result<Self> {
        let client = match sdk.http_client() {
            Some(_) => Client::new(sdk),
            None => Client::new(&sdk.to_builder().http_client(http_client()).build()),
        };
        Self::with_client(&client, table, options).await
    }

    /// Opens a store with a client of the application. The store does not use the client's retries:
    /// it sends requests again itself, for [`DynamoDbOptions::retry_for`].
    ///
    /// # Errors
    /// As for [`DynamoDbStore::open`].
    pub async fn with_client(
        client: &Client,
        table: impl Into<String>,
        options: DynamoDbOptions,
    ) -> Result<Self> {
        let shared = Shared::open(client, table.into(), options).await;
        Ok(Self { shared: Arc::new(shared.map_err(context(BACKEND, "open"))?) })
    }

    /// Reads what a table is, without creating it or making it a store, whatever
    /// [`DynamoDbOptions::create`](crate::DynamoDbOptions::create) says.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for invalid options;
    /// [`ErrorKind::Incompatible`](annals_core::ErrorKind::Incompatible) for a table with other
    /// keys; [`ErrorKind::Denied`](annals_core::ErrorKind::Denied),
    /// [`ErrorKind::Busy`](annals_core::ErrorKind::Busy) and
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) if DynamoDB refuses the
    /// requests or cannot be reached.
    pub async fn inspect(config: DynamoDbConfig) -> Result<Inspection> {
        inspect(config).await.map_err(context(BACKEND, "inspect"))
    }
}

async fn inspect(config: DynamoDbConfig) -> Result<Inspection> {
    config.options.check(&config.table)?;
    let client = config.client().await;
    let table = Table::new(&client, config.table, &config.options);
    let Some(description) = table.describe().await? else {
        return Ok(Inspection { table: None, layout: None, counter_behind: 0 });
    };
    check_table(&table.name, &description)?;
    let meta = table.get(&Key::meta()).await?;
    if let Some(meta) = &meta {
        new_id(&description, meta)?;
    }
    let number = |name| match &meta {
        Some(meta) => get_number(meta, name),
        None => Ok(None),
    };
    let layout = meta.is_some().then_some(number(attribute::LAYOUT)?.unwrap_or_default());
    let counter_behind = match number(attribute::STRIPES)? {
        Some(stripes) if layout == Some(LAYOUT) && stripes > 0 => {
            Log::new(table, stripes, config.options.close_after).slots_beyond_counter().await?
        }
        _ => 0,
    };
    Ok(Inspection { table: Some(description), layout, counter_behind })
}
