//! What a table is like, found without changing anything in it.

use annals_core::Result;
use aws_sdk_dynamodb::types::TableDescription;

use crate::{
    DynamoDbStore,
    config::DynamoDbConfig,
    error::context,
    item::{Key, get_number},
    open::{LAYOUT, check_keys},
    table::Table,
};

/// What a table is like: see [`DynamoDbStore::inspect`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// What DynamoDB says of the table; none where there is no table of that name.
    pub table: Option<TableDescription>,
    /// The layout of the store in it; none where it is not yet a store. More than
    /// [`DynamoDbStore::LAYOUT`] where a newer annals has created it.
    pub layout: Option<u64>,
}

impl DynamoDbStore {
    /// The layout that this build reads and writes.
    pub const LAYOUT: u64 = LAYOUT;

    /// Looks what a table is like, and neither creates it nor makes it a store, whatever
    /// [`DynamoDbOptions::create`](crate::DynamoDbOptions::create) says.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for options that cannot
    /// work; [`ErrorKind::Incompatible`](annals_core::ErrorKind::Incompatible) for a table with other
    /// keys; [`ErrorKind::Denied`](annals_core::ErrorKind::Denied),
    /// [`ErrorKind::Busy`](annals_core::ErrorKind::Busy) and
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) as they come.
    pub async fn inspect(config: DynamoDbConfig) -> Result<Inspection> {
        inspect(config).await.map_err(context("inspect"))
    }
}

async fn inspect(config: DynamoDbConfig) -> Result<Inspection> {
    config.options.check(&config.table)?;
    let client = config.client().await;
    let table = Table::new(&client, config.table, &config.options);
    let Some(description) = table.describe().await? else {
        return Ok(Inspection { table: None, layout: None });
    };
    check_keys(&table, &description)?;
    let meta = table.get(&Key::meta()).await?;
    let layout = meta.as_ref().map(|meta| get_number(meta, "layout")).transpose()?;
    Ok(Inspection { table: Some(description), layout: layout.map(Option::unwrap_or_default) })
}
