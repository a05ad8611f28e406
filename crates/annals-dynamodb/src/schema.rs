//! The table itself: what a store needs of it, how it is created, and how an existing table is
//! checked.

use annals_core::{Error, ErrorKind, Result, adapter::Backoff};
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
    error::{corrupt, failure, internal},
    item::{
        Item, Key,
        attribute::{self, EXPIRES, PARTITION, SORT, TABLE_ID},
        get_number, get_text, number, text,
    },
    table::{Condition, Table, WriteOutcome},
};

/// The layout that this version writes and reads.
pub(crate) const LAYOUT: u64 = 1;
/// Over how many partitions the log of a new store spreads. A partition takes 500 slots a second
/// that appends do not share, and a table gives out 1,000 a second; or about 1,500 small appends a
/// second that share slots.
const STRIPES: u64 = 8;
/// How long a new table may take to become active.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// The first and the longest pause before asking again whether the table is active.
const READY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The keys of the table. `schema/` has the same for CloudFormation and Terraform.
pub(crate) const KEYS: [(&str, KeyType, ScalarAttributeType); 2] = [
    (PARTITION, KeyType::Hash, ScalarAttributeType::S),
    (SORT, KeyType::Range, ScalarAttributeType::N),
];

/// Creates the table if it is missing and the options allow it, checks it, and returns the number
/// of stripes of its log: 0 if the store has no order over all streams.
pub(crate) async fn open(table: &Table, options: &DynamoDbOptions) -> Result<u64> {
    let created = match table.describe().await? {
        Some(_) => false,
        None if options.create => {
            table.create(options).await?;
            true
        }
        None => {
            return incompatible(format!(
                "the table {:?} does not exist; create it (annals-dynamodb has the definition for \
                 CloudFormation and Terraform), or open the store with `create=true`",
                table.name
            ));
        }
    };
    let description = table.ready().await?;
    check_table(&table.name, &description)?;
    if created {
        table.configure(options).await?;
    } else if options.snapshot_ttl.is_some() {
        table.check_time_to_live().await?;
    }
    let meta = match table.get(&Key::meta()).await? {
        Some(meta) => meta,
        None => table.initialise(options).await?,
    };
    let stripes = check_meta(&meta, options)?;
    if let Some(id) = new_id(&description, &meta)? {
        let values = [(":id", text(id))];
        let update = format!("SET {TABLE_ID} = :id");
        table.update(&Key::meta(), &update, &Condition::values_only(values)).await?;
    }
    Ok(stripes)
}

/// The id of the table, if the item `meta` has to be told: of a new store, or after a restore. Refuses a
/// table that got the items of a store in another way.
pub(crate) fn new_id<'a>(found: &'a TableDescription, meta: &Item) -> Result<Option<&'a str>> {
    let Some(id) = found.table_id() else { return Ok(None) };
    match get_text(meta, TABLE_ID) {
        Some(known) if known == id => Ok(None),
        Some(_) if found.restore_summary().is_none() => {
            let name = found.table_name().unwrap_or_default();
            incompatible(format!(
                "the items of the table {name:?} were imported or copied from the table of another store: \
                 they are not of one moment, so that events can be missing; restore a backup instead, \
                 or move the events with `annals copy`"
            ))
        }
        _ => Ok(Some(id)),
    }
}

fn incompatible<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Incompatible, message))
}

/// Refuses a table that cannot keep the promises of a store.
pub(crate) fn check_table(name: &str, found: &TableDescription) -> Result<()> {
    check_keys(name, found)?;
    if !found.local_secondary_indexes().is_empty() {
        return incompatible(format!(
            "the table {name:?} has a local secondary index: DynamoDB then takes at most 10 GB for each \
             partition key, and the log of a store outgrows that; copy the events into a table \
             without one"
        ));
    }
    if !found.replicas().is_empty() {
        return incompatible(format!(
            "the table {name:?} is a global table: two regions could write the same version of a stream, \
             or DynamoDB refuses the transactions that keep the order; use a table in one region"
        ));
    }
    Ok(())
}

/// Refuses a table that has other keys than [`KEYS`].
fn check_keys(name: &str, found: &TableDescription) -> Result<()> {
    let schema = found.key_schema();
    let attributes = found.attribute_definitions();
    let has = |(attribute, key_type, scalar): &(&str, KeyType, ScalarAttributeType)| {
        schema.iter().any(|k| k.attribute_name() == *attribute && k.key_type() == key_type)
            && attributes
                .iter()
                .any(|a| a.attribute_name() == *attribute && a.attribute_type() == scalar)
    };
    if schema.len() == KEYS.len() && KEYS.iter().all(has) {
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
        "the table {name:?} has the keys {}; a store needs the keys `{PARTITION}` (HASH, S) and \
         `{SORT}` (RANGE, N)",
        found.join(" and ")
    ))
}

/// Checks the layout and the options that cannot change, and returns the number of stripes.
fn check_meta(meta: &Item, options: &DynamoDbOptions) -> Result<u64> {
    let layout = get_number(meta, attribute::LAYOUT)?.unwrap_or(0);
    if layout != LAYOUT {
        return incompatible(format!(
            "the table has layout {layout}, and this version of annals knows layout {LAYOUT} only; \
             a newer version created it: use that one"
        ));
    }
    let stripes = get_number(meta, attribute::STRIPES)?;
    let stripes = stripes.ok_or_else(|| corrupt("the item `meta` has no number of stripes"))?;
    let words = |on: bool| if on { "an order" } else { "no order" };
    if options.order.is_some_and(|order| order != (stripes > 0)) {
        return incompatible(format!(
            "the store in this table has {} over all streams, which cannot be changed; open it \
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
    /// What DynamoDB says of the table; `None` if it does not exist.
    pub(crate) async fn describe(&self) -> Result<Option<TableDescription>> {
        let request = || self.client.describe_table().table_name(&self.name).send();
        match self.call(request, failure).await {
            Ok(answer) => Ok(answer.table),
            Err(failed) if failed.error.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Waits until the table can be used.
    async fn ready(&self) -> Result<TableDescription> {
        let began = Instant::now();
        let mut backoff = Backoff::new(READY_PAUSE.0, READY_PAUSE.1);
        loop {
            let found = self.describe().await?;
            if let Some(found) = found
                && matches!(found.table_status(), Some(TableStatus::Active | TableStatus::Updating))
            {
                return Ok(found);
            }
            if began.elapsed() >= READY_WITHIN {
                let message =
                    format!("the table {:?} did not become active in time; try again", self.name);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            sleep(backoff.next_pause()).await;
        }
    }

    async fn create(&self, options: &DynamoDbOptions) -> Result<()> {
        tracing::info!(table = self.name, "creating the table");
        let incomplete = |e| internal("an incomplete definition of the table").with_source(e);
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
        match self.call(|| create.clone().send(), failure).await {
            Ok(_) => Ok(()),
            // Another process is creating the table.
            Err(failed) if failed.error.code() == Some("ResourceInUseException") => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Sets what DynamoDB accepts only for a table that exists.
    async fn configure(&self, options: &DynamoDbOptions) -> Result<()> {
        if options.snapshot_ttl.is_some() {
            let expires =
                TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build();
            let expires = expires
                .map_err(|e| internal("an incomplete definition of the table").with_source(e))?;
            let update = self.client.update_time_to_live().table_name(&self.name);
            let update = update.time_to_live_specification(expires);
            match self.call(|| update.clone().send(), failure).await {
                Ok(_) => {}
                // Another process has already turned time to live on.
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
                .map_err(|e| internal("an incomplete definition of the table").with_source(e))?;
            let update = self.client.update_continuous_backups().table_name(&self.name);
            let update = update.point_in_time_recovery_specification(recovery);
            self.call(|| update.clone().send(), failure).await?;
        }
        Ok(())
    }

    async fn check_time_to_live(&self) -> Result<()> {
        let request = || self.client.describe_time_to_live().table_name(&self.name).send();
        let found = self.call(request, failure).await?;
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
            "`snapshot_ttl` needs DynamoDB's time to live to be on for the attribute `{EXPIRES}`; \
             the table {:?} has it {}",
            self.name,
            found.map_or("off".to_owned(), |attribute| format!("for {attribute:?}"))
        ))
    }

    /// Makes an empty table a store, and returns its item `meta`.
    async fn initialise(&self, options: &DynamoDbOptions) -> Result<Item> {
        let scan = || self.client.scan().table_name(&self.name).limit(1).send();
        let found = self.call(scan, failure).await?;
        let is_empty = found.items.is_none_or(|items| items.is_empty());
        if !is_empty && let Some(meta) = self.get(&Key::meta()).await? {
            // Another process has made it a store meanwhile.
            return Ok(meta);
        }
        if !is_empty {
            return incompatible(format!(
                "the table {:?} has items that are not of annals; use a table of the store's own",
                self.name
            ));
        }
        let stripes = match options.order {
            Some(false) => 0,
            _ => options.stripes.unwrap_or(STRIPES),
        };
        let mut meta = Key::meta().to_item();
        meta.insert(attribute::LAYOUT.to_owned(), number(LAYOUT));
        meta.insert(attribute::STRIPES.to_owned(), number(stripes));
        match self.put(&meta, &Condition::absent()).await? {
            WriteOutcome::Written => Ok(meta),
            WriteOutcome::Refused(found) => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{
        primitives::DateTime,
        types::{ReplicaDescription, RestoreSummary},
    };

    use super::*;

    #[test]
    fn a_global_table_is_refused() {
        let keys = KEYS.map(|(name, kind, _)| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
        });
        let attributes = KEYS.map(|(name, _, kind)| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(kind).build().unwrap()
        });
        let table = TableDescription::builder()
            .set_key_schema(Some(keys.to_vec()))
            .set_attribute_definitions(Some(attributes.to_vec()));
        check_table("events", &table.clone().build()).unwrap();
        let replica = ReplicaDescription::builder().region_name("eu-central-1").build();
        let error = check_table("events", &table.replicas(replica).build()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("global table"), "{error}");
    }
    #[test]
    fn a_restored_table_gets_its_new_id_and_an_imported_one_is_refused() {
        let id = |meta: &Item, table: &TableDescription| {
            new_id(table, meta).map(|id| id.map(str::to_owned)).map_err(|error| error.to_string())
        };
        let mut meta = Key::meta().to_item();
        let table = TableDescription::builder().table_name("events").table_id("new");
        let imported = table.clone().build();
        assert_eq!(id(&meta, &imported), Ok(Some("new".to_owned())));
        meta.insert(TABLE_ID.to_owned(), text("old"));
        let refused = id(&meta, &imported).unwrap_err();
        assert!(refused.contains("annals copy"), "{refused}");
        let restore = RestoreSummary::builder().restore_in_progress(false);
        let restore = restore.restore_date_time(DateTime::from_secs(1)).build().unwrap();
        let restored = table.restore_summary(restore).build();
        assert_eq!(id(&meta, &restored), Ok(Some("new".to_owned())));
        meta.insert(TABLE_ID.to_owned(), text("new"));
        assert_eq!(id(&meta, &imported), Ok(None));
    }
}
