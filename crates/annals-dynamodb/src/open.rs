//! The table: what it has to be like, how it is created, and how one that is there is checked.

use annals_core::{Error, ErrorKind, Result};
use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType,
        PointInTimeRecoverySpecification, ScalarAttributeType, TableDescription, TableStatus,
        TimeToLiveSpecification, TimeToLiveStatus,
    },
};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    config::DynamoDbOptions,
    error::{corrupt, fault, internal},
    item::{EXPIRES, Item, Key, PARTITION, SORT, get_number, number},
    table::{Condition, Table, Written},
};

/// The layout that this version writes and reads.
pub(crate) const LAYOUT: u64 = 1;
/// Over how many partitions the log of a new store spreads: as much as 500 slots a second each that
/// are not shared, of which the counter gives out 1,000; or what 1,500 small appends fill that are.
const STRIPES: u64 = 8;
/// How long a new table may take until it can be used, and how often it is looked.
const READY: Duration = Duration::from_secs(300);
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The keys of the table: `schema/` says the same for CloudFormation and Terraform.
pub(crate) const KEYS: [(&str, KeyType, ScalarAttributeType); 2] = [
    (PARTITION, KeyType::Hash, ScalarAttributeType::S),
    (SORT, KeyType::Range, ScalarAttributeType::N),
];

/// Creates the table where that is due, checks it, and returns over how many partitions its log
/// spreads: 0 where there is none.
pub(crate) async fn open(table: &Table, options: &DynamoDbOptions) -> Result<u64> {
    let created = match table.describe().await? {
        Some(_) => false,
        None if options.create => {
            table.create(options).await?;
            true
        }
        None => {
            return incompatible(format!(
                "there is no table {:?} here; create it (annals-dynamodb has the definition for \
                 CloudFormation and Terraform), or open it with `create=true`",
                table.name
            ));
        }
    };
    check_keys(table, &table.ready().await?)?;
    if created {
        table.configure(options).await?;
    } else if options.snapshot_ttl.is_some() {
        table.check_time_to_live().await?;
    }
    let meta = match table.get(&Key::meta()).await? {
        Some(meta) => meta,
        None => table.initialise(options).await?,
    };
    check_meta(&meta, options)
}

fn incompatible<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Incompatible, message))
}

pub(crate) fn check_keys(table: &Table, found: &TableDescription) -> Result<()> {
    let schema = found.key_schema();
    let attributes = found.attribute_definitions();
    let is_there = |(name, key_type, scalar): &(&str, KeyType, ScalarAttributeType)| {
        schema.iter().any(|k| k.attribute_name() == *name && k.key_type() == key_type)
            && attributes
                .iter()
                .any(|a| a.attribute_name() == *name && a.attribute_type() == scalar)
    };
    if schema.len() == KEYS.len() && KEYS.iter().all(is_there) {
        return Ok(());
    }
    let found: Vec<_> = schema
        .iter()
        .map(|key| {
            let name = key.attribute_name();
            let scalar = attributes.iter().find(|a| a.attribute_name() == name);
            let scalar = scalar.map_or("?", |a| a.attribute_type().as_str());
            format!("`{name}` ({}, {scalar})", key.key_type().as_str())
        })
        .collect();
    incompatible(format!(
        "the table {:?} has the keys {}; a store needs `{PARTITION}` (HASH, S) and `{SORT}` \
         (RANGE, N)",
        table.name,
        found.join(" and ")
    ))
}

fn check_meta(meta: &Item, options: &DynamoDbOptions) -> Result<u64> {
    let layout = get_number(meta, "layout")?.unwrap_or(0);
    if layout != LAYOUT {
        return incompatible(format!(
            "the table has layout {layout}, and this version knows layout {LAYOUT} only: a newer \
             annals has created it"
        ));
    }
    let stripes = get_number(meta, "stripes")?.ok_or_else(|| corrupt("a store without stripes"))?;
    let words = |on: bool| if on { "an order" } else { "no order" };
    if options.order.is_some_and(|order| order != (stripes > 0)) {
        return incompatible(format!(
            "the store in this table keeps {} over all streams, which cannot be changed; open it \
             without `order`",
            words(stripes > 0)
        ));
    }
    if options.stripes.is_some_and(|wanted| wanted != stripes) {
        return incompatible(format!(
            "the log in this table has {stripes} stripes, which cannot be changed; open it without \
             `stripes`"
        ));
    }
    Ok(stripes)
}

impl Table {
    pub(crate) async fn describe(&self) -> Result<Option<TableDescription>> {
        let request = || self.client.describe_table().table_name(&self.name).send();
        match self.call(request, fault).await {
            Ok(answer) => Ok(answer.table),
            Err(failed) if failed.error.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Waits until the table can be used.
    async fn ready(&self) -> Result<TableDescription> {
        let began = Instant::now();
        let mut pause = LOOK.0;
        loop {
            let found = self.describe().await?;
            if let Some(found) = found
                && matches!(found.table_status(), Some(TableStatus::Active | TableStatus::Updating))
            {
                return Ok(found);
            }
            if began.elapsed() >= READY {
                let message = format!("the table {:?} does not become active", self.name);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }

    async fn create(&self, options: &DynamoDbOptions) -> Result<()> {
        tracing::info!(table = self.name, "the table is created");
        let incomplete = |e| internal("an incomplete definition").with_source(e);
        let mut create = self
            .client
            .create_table()
            .table_name(&self.name)
            .billing_mode(BillingMode::PayPerRequest)
            .deletion_protection_enabled(options.deletion_protection);
        for (name, key_type, scalar) in KEYS {
            let key = KeySchemaElement::builder().attribute_name(name).key_type(key_type);
            let attribute =
                AttributeDefinition::builder().attribute_name(name).attribute_type(scalar);
            create = create
                .key_schema(key.build().map_err(incomplete)?)
                .attribute_definitions(attribute.build().map_err(incomplete)?);
        }
        match self.call(|| create.clone().send(), fault).await {
            Ok(_) => Ok(()),
            // Somebody else creates it.
            Err(failed) if failed.error.code() == Some("ResourceInUseException") => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }

    /// What can be asked of a table only when it is there.
    async fn configure(&self, options: &DynamoDbOptions) -> Result<()> {
        if options.snapshot_ttl.is_some() {
            let expires =
                TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build();
            let expires =
                expires.map_err(|e| internal("an incomplete definition").with_source(e))?;
            let update = self.client.update_time_to_live().table_name(&self.name);
            let update = update.time_to_live_specification(expires);
            match self.call(|| update.clone().send(), fault).await {
                Ok(_) => {}
                // Somebody else has asked for it.
                Err(failed) if failed.error.code() == Some("ValidationException") => {
                    self.check_time_to_live().await?;
                }
                Err(failed) => return Err(failed.into()),
            }
        }
        if options.point_in_time_recovery {
            let recovery = PointInTimeRecoverySpecification::builder()
                .point_in_time_recovery_enabled(true)
                .build()
                .map_err(|e| internal("an incomplete definition").with_source(e))?;
            let update = self.client.update_continuous_backups().table_name(&self.name);
            let update = update.point_in_time_recovery_specification(recovery);
            self.call(|| update.clone().send(), fault).await?;
        }
        Ok(())
    }

    async fn check_time_to_live(&self) -> Result<()> {
        let request = || self.client.describe_time_to_live().table_name(&self.name).send();
        let found = self.call(request, fault).await?;
        let found = found.time_to_live_description;
        let on = |status: &TimeToLiveStatus| {
            matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
        };
        if let Some(found) = &found
            && found.time_to_live_status().is_some_and(on)
            && found.attribute_name() == Some(EXPIRES)
        {
            return Ok(());
        }
        let found = found.and_then(|found| found.attribute_name);
        incompatible(format!(
            "`snapshot_ttl` needs time to live on the attribute `{EXPIRES}`; the table {:?} has it \
             on {found:?}",
            self.name
        ))
    }

    /// Makes an empty table a store, and returns what it says of it.
    async fn initialise(&self, options: &DynamoDbOptions) -> Result<Item> {
        let scan = || self.client.scan().table_name(&self.name).limit(1).send();
        let found = self.call(scan, fault).await?;
        let is_empty = found.items.is_none_or(|items| items.is_empty());
        if !is_empty && let Some(meta) = self.get(&Key::meta()).await? {
            // Somebody else has done it meanwhile.
            return Ok(meta);
        }
        if !is_empty {
            return incompatible(format!(
                "the table {:?} has items that are not of annals; use a table of its own",
                self.name
            ));
        }
        let stripes = match options.order {
            Some(false) => 0,
            _ => options.stripes.unwrap_or(STRIPES),
        };
        let mut meta = Key::meta().attributes();
        meta.insert("layout".to_owned(), number(LAYOUT));
        meta.insert("stripes".to_owned(), number(stripes));
        match self.put(&meta, &Condition::ABSENT).await? {
            Written::Done => Ok(meta),
            Written::Refused(found) => Ok(found),
        }
    }
}
