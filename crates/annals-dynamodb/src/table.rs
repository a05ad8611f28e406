//! Requests to one table, tried again for as long as that may help.

use std::{borrow::Cow, collections::HashMap, error::Error as StdError, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use aws_sdk_dynamodb::{
    Client,
    config::{http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        put_item::PutItemError, transact_write_items::TransactWriteItemsError,
        update_item::UpdateItemError,
    },
    types::{
        AttributeValue, CancellationReason, Delete, KeysAndAttributes, Put, ReturnValue,
        ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
    },
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::DynamoDbOptions,
    error::{Fault, corrupt, driver, fault, internal},
    item::{Item, Key},
};

/// The longest pause before a first and before any later try; in between it doubles each time. How
/// long it is, chance decides (full jitter), so that writers who met do not meet again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The most items of a transaction, and the most keys of a `BatchGetItem` (DynamoDB's quotas).
pub(crate) const MOST_ITEMS: usize = 100;

/// The old item is wanted where a condition does not hold.
const ALL_OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

/// One table, and how patient its users are.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) client: Client,
    pub(crate) name: String,
    request_timeout: Duration,
    retry_for: Duration,
}

/// What has to be true of the item that is there before, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    expression: Option<Cow<'static, str>>,
    values: Vec<(&'static str, AttributeValue)>,
}

impl Condition {
    /// Nothing.
    pub(crate) const NONE: Self = Self { expression: None, values: Vec::new() };
    /// There is none.
    pub(crate) const ABSENT: Self =
        Self { expression: Some(Cow::Borrowed("attribute_not_exists(pk)")), values: Vec::new() };

    /// An expression and its values, and those of the update, if it is for one.
    pub(crate) fn when(
        expression: impl Into<Cow<'static, str>>,
        values: impl Into<Vec<(&'static str, AttributeValue)>>,
    ) -> Self {
        Self { expression: Some(expression.into()), values: values.into() }
    }

    /// No condition, but values of an update.
    pub(crate) fn with(values: impl Into<Vec<(&'static str, AttributeValue)>>) -> Self {
        Self { expression: None, values: values.into() }
    }

    fn expression(&self) -> Option<String> {
        self.expression.as_deref().map(str::to_owned)
    }

    fn values(&self) -> Option<Item> {
        let map = self.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        (!self.values.is_empty()).then(|| map.collect())
    }
}

/// One write of a transaction, or alone.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Item, Condition),
    /// An update expression, and the condition with the values of both.
    Update(Key, String, Condition),
    Delete(Key),
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    Done,
    /// The condition does not hold, and nothing was written; unless an earlier try of this very
    /// write had been, and its answer was lost. The item that is there.
    Refused(Item),
}

/// Why a request failed for good.
pub(crate) struct Failed<E> {
    pub(crate) error: SdkError<E, HttpResponse>,
    /// Whether it may have been done, by one of the tries.
    unclear: bool,
}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> From<Failed<E>> for Error {
    fn from(failed: Failed<E>) -> Self {
        driver(failed.error)
    }
}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> Failed<E> {
    /// Of a write.
    fn of_write(self) -> Error {
        let error = driver(self.error);
        if self.unclear { error.with_outcome_unknown() } else { error }
    }
}

/// A part of a partition, in the order of sort keys.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) partition: String,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) backwards: bool,
    pub(crate) limit: Option<u64>,
}

impl Range {
    pub(crate) fn new(partition: String, from: i64, to: i64) -> Self {
        Self { partition, from, to, backwards: false, limit: None }
    }

    pub(crate) fn backwards(mut self) -> Self {
        self.backwards = true;
        self
    }

    pub(crate) fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// What is left of it after a page, if there may be anything.
    pub(crate) fn after(mut self, found: &Found) -> Option<Self> {
        let last = found.more?;
        if self.backwards {
            self.to = last.saturating_sub(1);
        } else {
            self.from = last.saturating_add(1);
        }
        (self.from <= self.to).then_some(self)
    }
}

/// A page of a range.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) items: Vec<Item>,
    /// The sort key after which to go on, where there may be more.
    pub(crate) more: Option<i64>,
}

impl Table {
    /// The SDK's own retries are turned off, since it is asked again here, for longer, and with
    /// more that is retried.
    pub(crate) fn new(client: &Client, name: String, options: &DynamoDbOptions) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        Self {
            client: Client::from_conf(config),
            name,
            request_timeout: options.request_timeout,
            retry_for: options.retry_for,
        }
    }

    /// Sends a request until it is answered, or refused, or it takes too long.
    pub(crate) async fn call<T, E, F>(
        &self,
        request: impl Fn() -> F,
        judge: impl Fn(&SdkError<E, HttpResponse>) -> Fault,
    ) -> Result<T, Failed<E>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata,
    {
        let began = Instant::now();
        let mut unclear = false;
        let mut most = PAUSE.0;
        loop {
            let error = match timeout(self.request_timeout, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(elapsed) => SdkError::timeout_error(elapsed),
            };
            let fault = judge(&error);
            unclear |= fault == Fault::Unclear;
            if fault == Fault::Refused || began.elapsed() >= self.retry_for {
                return Err(Failed { error, unclear });
            }
            tracing::debug!(code = error.code(), ?fault, "a request is tried again");
            sleep(most.mul_f64(fastrand::f64())).await;
            most = (most * 2).min(PAUSE.1);
        }
    }

    /// Reads one item.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.get_item(key, true).await
    }

    /// Reads one item as it was a moment ago, or is now, for half the price.
    pub(crate) async fn glance(&self, key: &Key) -> Result<Option<Item>> {
        self.get_item(key, false).await
    }

    async fn get_item(&self, key: &Key, consistent: bool) -> Result<Option<Item>> {
        let request = || {
            let get = self.client.get_item().table_name(&self.name).consistent_read(consistent);
            get.set_key(Some(key.attributes())).send()
        };
        Ok(self.call(request, fault).await?.item)
    }

    /// Reads items by their keys, of which there may be any number; what is not there is left out.
    pub(crate) async fn get_all(&self, keys: &[Key]) -> Result<HashMap<Key, Item>> {
        let mut found = HashMap::with_capacity(keys.len());
        let began = Instant::now();
        for keys in keys.chunks(MOST_ITEMS) {
            let mut wanted: Vec<Item> = keys.iter().map(Key::attributes).collect();
            let mut most = PAUSE.0;
            while !wanted.is_empty() {
                let request = KeysAndAttributes::builder()
                    .set_keys(Some(std::mem::take(&mut wanted)))
                    .consistent_read(true)
                    .build()
                    .map_err(|e| internal("a request without keys").with_source(e))?;
                let batch =
                    || self.client.batch_get_item().request_items(&self.name, request.clone());
                let answer = self.call(|| batch().send(), fault).await?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    found.insert(Key::of(&item)?, item);
                }
                // What did not fit in the answer, or was throttled.
                let left = answer.unprocessed_keys.unwrap_or_default();
                wanted.extend(left.into_values().flat_map(|left| left.keys));
                if !wanted.is_empty() {
                    if began.elapsed() >= self.retry_for {
                        let message = "DynamoDB kept leaving out items; try again later";
                        return Err(Error::new(ErrorKind::Busy, message));
                    }
                    sleep(most.mul_f64(fastrand::f64())).await;
                    most = (most * 2).min(PAUSE.1);
                }
            }
        }
        Ok(found)
    }

    /// Reads a page of a range: at most 1 MB, as DynamoDB has it.
    pub(crate) async fn query(&self, range: &Range) -> Result<Found> {
        if range.from > range.to {
            return Ok(Found::default());
        }
        let request = || {
            self.client
                .query()
                .table_name(&self.name)
                .consistent_read(true)
                .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
                .expression_attribute_values(":pk", AttributeValue::S(range.partition.clone()))
                .expression_attribute_values(":from", AttributeValue::N(range.from.to_string()))
                .expression_attribute_values(":to", AttributeValue::N(range.to.to_string()))
                .scan_index_forward(!range.backwards)
                .set_limit(range.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
                .send()
        };
        let answer = self.call(request, fault).await?;
        let more = answer.last_evaluated_key.as_ref().filter(|key| !key.is_empty());
        let more = more.map(Key::of).transpose()?.map(|key| key.sort);
        Ok(Found { items: answer.items.unwrap_or_default(), more })
    }

    /// Reads a whole range.
    pub(crate) async fn query_all(&self, range: Range) -> Result<Vec<Item>> {
        let mut all = Vec::new();
        let mut next = Some(range);
        while let Some(range) = next {
            let found = self.query(&range).await?;
            next = range.after(&found);
            all.extend(found.items);
        }
        Ok(all)
    }

    /// Writes one item.
    pub(crate) async fn put(&self, item: &Item, condition: &Condition) -> Result<Written> {
        let request = || {
            self.client
                .put_item()
                .table_name(&self.name)
                .set_item(Some(item.clone()))
                .set_condition_expression(condition.expression())
                .set_expression_attribute_values(condition.values())
                .return_values_on_condition_check_failure(ALL_OLD)
                .send()
        };
        match self.call(request, fault).await {
            Ok(_) => Ok(Written::Done),
            Err(failed) => match failed.error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(refused)) => {
                    self.refused(refused.item(), &Key::of(item)?).await
                }
                _ => Err(failed.of_write()),
            },
        }
    }

    /// Updates one item.
    pub(crate) async fn update(
        &self,
        key: &Key,
        update: &str,
        condition: &Condition,
    ) -> Result<Written> {
        let request = || {
            self.client
                .update_item()
                .table_name(&self.name)
                .set_key(Some(key.attributes()))
                .update_expression(update)
                .set_condition_expression(condition.expression())
                .set_expression_attribute_values(condition.values())
                .return_values_on_condition_check_failure(ALL_OLD)
                .send()
        };
        match self.call(request, fault).await {
            Ok(_) => Ok(Written::Done),
            Err(failed) => match failed.error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                    self.refused(refused.item(), key).await
                }
                _ => Err(failed.of_write()),
            },
        }
    }

    /// Adds to the `n` of an item, and returns what it is then.
    pub(crate) async fn add(&self, key: &Key, count: u64) -> Result<Item> {
        let request = || {
            self.client
                .update_item()
                .table_name(&self.name)
                .set_key(Some(key.attributes()))
                .update_expression("ADD n :count")
                .expression_attribute_values(":count", AttributeValue::N(count.to_string()))
                .return_values(ReturnValue::UpdatedNew)
                .send()
        };
        Ok(self.call(request, fault).await?.attributes.unwrap_or_default())
    }

    pub(crate) async fn delete(&self, key: &Key) -> Result<()> {
        let request = || {
            let delete = self.client.delete_item().table_name(&self.name);
            delete.set_key(Some(key.attributes())).send()
        };
        self.call(request, fault).await.map_err(Failed::of_write)?;
        Ok(())
    }

    /// What was there, as the refusal says; not every server does.
    async fn refused(&self, old: Option<&Item>, key: &Key) -> Result<Written> {
        let old = match old.filter(|old| !old.is_empty()) {
            Some(old) => Some(old.clone()),
            None => self.get(key).await?,
        };
        Ok(Written::Refused(old.unwrap_or_default()))
    }

    /// Writes all the changes, or none. The answers say which of the conditions do not hold, in the
    /// order of the changes, and nothing is written where one does not; unless an earlier try of
    /// this very transaction had been, and its answer was lost.
    pub(crate) async fn transact(&self, changes: &[Change]) -> Result<Vec<Written>> {
        let items = changes.iter().map(|change| self.write(change)).collect::<Result<Vec<_>>>()?;
        // The same for each try: within ten minutes DynamoDB does it once.
        let token = uuid::Uuid::from_u128(fastrand::u128(..)).to_string();
        let request = || {
            let transaction = self.client.transact_write_items().client_request_token(&token);
            transaction.set_transact_items(Some(items.clone())).send()
        };
        let failed = match self.call(request, fault_of_transaction).await {
            Ok(_) => return Ok(changes.iter().map(|_| Written::Done).collect()),
            Err(failed) => failed,
        };
        let reasons = reasons(&failed.error);
        if !reasons.iter().any(is_refused) || reasons.len() != changes.len() {
            return Err(failed.of_write());
        }
        let mut written = Vec::with_capacity(changes.len());
        for (change, reason) in changes.iter().zip(reasons) {
            written.push(if is_refused(reason) {
                self.refused(reason.item(), &change.key()?).await?
            } else {
                Written::Done
            });
        }
        Ok(written)
    }

    fn write(&self, change: &Change) -> Result<TransactWriteItem> {
        let incomplete = |e| internal("an incomplete write").with_source(e);
        let write = TransactWriteItem::builder();
        let write = match change {
            Change::Put(item, condition) => write.put(
                Put::builder()
                    .table_name(&self.name)
                    .set_item(Some(item.clone()))
                    .set_condition_expression(condition.expression())
                    .set_expression_attribute_values(condition.values())
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()
                    .map_err(incomplete)?,
            ),
            Change::Update(key, update, condition) => write.update(
                Update::builder()
                    .table_name(&self.name)
                    .set_key(Some(key.attributes()))
                    .update_expression(update)
                    .set_condition_expression(condition.expression())
                    .set_expression_attribute_values(condition.values())
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()
                    .map_err(incomplete)?,
            ),
            Change::Delete(key) => write.delete(
                Delete::builder()
                    .table_name(&self.name)
                    .set_key(Some(key.attributes()))
                    .build()
                    .map_err(incomplete)?,
            ),
        };
        Ok(write.build())
    }
}

impl Change {
    fn key(&self) -> Result<Key> {
        match self {
            Self::Put(item, _) => Key::of(item),
            Self::Update(key, ..) | Self::Delete(key) => Ok(key.clone()),
        }
    }
}

/// Why a transaction was cancelled, one for each of its items.
fn reasons(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> &[CancellationReason] {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons()
        }
        _ => &[],
    }
}

fn is_refused(reason: &CancellationReason) -> bool {
    reason.code() == Some("ConditionalCheckFailed")
}

/// A transaction that was cancelled only because others wrote the same items, or too much at all,
/// is tried again.
fn fault_of_transaction(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> Fault {
    let reasons = reasons(error);
    let passes = |reason: &CancellationReason| {
        matches!(
            reason.code().unwrap_or("None"),
            "None" | "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded"
        )
    };
    if !reasons.is_empty() && reasons.iter().all(passes) { Fault::Passing } else { fault(error) }
}

/// The number that `add` and the counters keep.
pub(crate) fn count(item: &Item) -> Result<u64> {
    crate::item::get_number(item, "n")?.ok_or_else(|| corrupt("a counter without a number"))
}
