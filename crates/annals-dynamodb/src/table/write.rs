//! Writing items: alone, or several in a transaction.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use annals_core::Result;
use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::SdkError,
    operation::{
        put_item::PutItemError, transact_write_items::TransactWriteItemsError,
        update_item::UpdateItemError,
    },
    types::{
        AttributeValue, CancellationReason, ConditionCheck, Delete, Put, ReturnValue,
        ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
    },
};

use super::request::{RequestError, Table};
use crate::{
    error::{Failure, failure, internal},
    item::{
        Item, Key,
        attribute::{COUNT, PARTITION},
        number,
    },
};

/// A refusal shows the item for which the condition does not hold.
const ALL_OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

/// What has to hold for the item at a key before it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    expression: Option<Cow<'static, str>>,
    /// The values of the expression, and of the update that it belongs to.
    values: Vec<(&'static str, AttributeValue)>,
}

impl Condition {
    /// The write always happens.
    pub(crate) const ALWAYS: Self = Self { expression: None, values: Vec::new() };

    /// There is no item at the key.
    pub(crate) fn absent() -> Self {
        Self::when(format!("attribute_not_exists({PARTITION})"), [])
    }

    /// An expression, its values, and those of the update.
    pub(crate) fn when(
        expression: impl Into<Cow<'static, str>>,
        values: impl Into<Vec<(&'static str, AttributeValue)>>,
    ) -> Self {
        Self { expression: Some(expression.into()), values: values.into() }
    }

    /// The attribute is absent or less than a number, which the update can use as `:value`.
    pub(crate) fn less(attribute: &str, value: u64) -> Self {
        let expression = format!("attribute_not_exists({attribute}) OR {attribute} < :value");
        Self::when(expression, [(":value", number(value))])
    }

    /// No condition, but the values of an update.
    pub(crate) fn values_only(values: impl Into<Vec<(&'static str, AttributeValue)>>) -> Self {
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

/// One write of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Item, Condition),
    /// An update expression, and the condition with the values of both.
    Update(Key, String, Condition),
    Delete(Key),
    /// Writes nothing: only the condition has to hold.
    Check(Key, Condition),
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum WriteOutcome {
    Written,
    /// The condition did not hold for this item, which is empty if there is none. This try has
    /// written nothing, but an earlier try of the same call may have, if its answer was lost.
    Refused(Item),
}

impl Table {
    /// Writes one item.
    pub(crate) async fn put(&self, item: &Item, condition: &Condition) -> Result<WriteOutcome> {
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
        match self.call(request, failure).await {
            Ok(_) => Ok(WriteOutcome::Written),
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
    ) -> Result<WriteOutcome> {
        let request = || {
            self.client
                .update_item()
                .table_name(&self.name)
                .set_key(Some(key.to_item()))
                .update_expression(update)
                .set_condition_expression(condition.expression())
                .set_expression_attribute_values(condition.values())
                .return_values_on_condition_check_failure(ALL_OLD)
                .send()
        };
        match self.call(request, failure).await {
            Ok(_) => Ok(WriteOutcome::Written),
            Err(failed) => match failed.error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                    self.refused(refused.item(), key).await
                }
                _ => Err(failed.of_write()),
            },
        }
    }

    /// Sets an attribute to a number if that raises it, and says whether it did.
    pub(crate) async fn raise(&self, key: &Key, attribute: &str, value: u64) -> Result<bool> {
        let update = format!("SET {attribute} = :value");
        let outcome = self.update(key, &update, &Condition::less(attribute, value)).await?;
        Ok(matches!(outcome, WriteOutcome::Written))
    }

    /// Adds 1 to the count of an item, and returns the item as it is then.
    pub(crate) async fn increment(&self, key: &Key) -> Result<Item> {
        let update = format!("ADD {COUNT} :one");
        let request = || {
            self.client
                .update_item()
                .table_name(&self.name)
                .set_key(Some(key.to_item()))
                .update_expression(&update)
                .expression_attribute_values(":one", number(1))
                .return_values(ReturnValue::UpdatedNew)
                .send()
        };
        Ok(self.call(request, failure).await?.attributes.unwrap_or_default())
    }

    pub(crate) async fn delete(&self, key: &Key) -> Result<()> {
        let request = || {
            let delete = self.client.delete_item().table_name(&self.name);
            delete.set_key(Some(key.to_item())).send()
        };
        self.call(request, failure).await.map_err(RequestError::of_write)?;
        Ok(())
    }

    /// The item that stood in the way of a write. A server that does not show it is asked for it.
    async fn refused(&self, old: Option<&Item>, key: &Key) -> Result<WriteOutcome> {
        let old = match old.filter(|old| !old.is_empty()) {
            Some(old) => Some(old.clone()),
            None => self.get(key).await?,
        };
        Ok(WriteOutcome::Refused(old.unwrap_or_default()))
    }

    /// Writes all the changes, or none. The outcomes are in the order of the changes; if one of
    /// them is [`WriteOutcome::Refused`], this try has written nothing.
    pub(crate) async fn transact(&self, changes: &[Change]) -> Result<Vec<WriteOutcome>> {
        let outcomes = self.transact_unless_throttled(changes, usize::MAX).await?;
        outcomes.ok_or_else(|| internal("a transaction was given up"))
    }

    /// Does the same as [`transact`](Self::transact). But if the partition of the last change was throttled
    /// so many times, and nothing is written, gives up and returns `None`.
    pub(crate) async fn transact_unless_throttled(
        &self,
        changes: &[Change],
        times: usize,
    ) -> Result<Option<Vec<WriteOutcome>>> {
        let items =
            changes.iter().map(|change| self.transact_item(change)).collect::<Result<Vec<_>>>()?;
        // Reuse the token for every try: DynamoDB executes requests that carry the same token only
        // once within ten minutes.
        let token = uuid::Uuid::from_u128(fastrand::u128(..)).to_string();
        let request = || {
            let transaction = self.client.transact_write_items().client_request_token(&token);
            transaction.set_transact_items(Some(items.clone())).send()
        };
        // The first try may have been executed if its answer was lost: then it has to be found out.
        let (throttled, is_unknown) = (AtomicUsize::new(0), AtomicBool::new(false));
        let judge = |error: &SdkError<_, _>| {
            let failure = transaction_failure(error);
            let is_unknown = is_unknown.fetch_or(failure == Failure::Unknown, Relaxed);
            let is_throttled = reasons(error).last().is_some_and(is_throttled) && !is_unknown;
            let before = throttled.fetch_add(usize::from(is_throttled), Relaxed);
            if is_throttled && before + 1 >= times { Failure::Permanent } else { failure }
        };
        let failed = match self.call(request, judge).await {
            Ok(_) => return Ok(Some(changes.iter().map(|_| WriteOutcome::Written).collect())),
            Err(failed) => failed,
        };
        if throttled.into_inner() >= times {
            return Ok(None);
        }
        let reasons = reasons(&failed.error);
        if !reasons.iter().any(is_refused) || reasons.len() != changes.len() {
            return Err(failed.of_write());
        }
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, reason) in changes.iter().zip(reasons) {
            outcomes.push(if is_refused(reason) {
                self.refused(reason.item(), &change.key()?).await?
            } else {
                WriteOutcome::Written
            });
        }
        Ok(Some(outcomes))
    }

    fn transact_item(&self, change: &Change) -> Result<TransactWriteItem> {
        let incomplete = |e| internal("an incomplete write of a transaction").with_source(e);
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
                    .set_key(Some(key.to_item()))
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
                    .set_key(Some(key.to_item()))
                    .build()
                    .map_err(incomplete)?,
            ),
            Change::Check(key, condition) => write.condition_check(
                ConditionCheck::builder()
                    .table_name(&self.name)
                    .set_key(Some(key.to_item()))
                    .set_condition_expression(condition.expression())
                    .set_expression_attribute_values(condition.values())
                    .return_values_on_condition_check_failure(ALL_OLD)
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
            Self::Update(key, ..) | Self::Delete(key) | Self::Check(key, _) => Ok(key.clone()),
        }
    }
}

/// Why a transaction was cancelled: one reason for each of its writes.
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

fn is_throttled(reason: &CancellationReason) -> bool {
    matches!(reason.code(), Some("ThrottlingError" | "ProvisionedThroughputExceeded"))
}

/// A transaction that was cancelled only by other writes of the same items, or by throttling, may
/// succeed later.
fn transaction_failure(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> Failure {
    let reasons = reasons(error);
    let is_transient = |reason: &CancellationReason| {
        matches!(reason.code().unwrap_or("None"), "None" | "TransactionConflict")
            || is_throttled(reason)
    };
    if !reasons.is_empty() && reasons.iter().all(is_transient) {
        Failure::Transient
    } else {
        failure(error)
    }
}
