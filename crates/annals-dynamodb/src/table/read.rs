//! Reading items.

use std::collections::HashMap;

use annals_core::{Error, ErrorKind, Result};
use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::SdkError,
    operation::transact_get_items::TransactGetItemsError,
    types::{AttributeValue, Get, KeysAndAttributes, TransactGetItem},
};
use tokio::time::{Instant, sleep};

use super::request::{MOST_ITEMS, Table, pauses};
use crate::{
    error::{Failure, failure, internal},
    item::{
        Item, Key,
        attribute::{PARTITION, SORT},
        text,
    },
};

/// The items of a partition between two sort keys, both included.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    partition: String,
    from: i64,
    to: i64,
    backwards: bool,
    consistent: bool,
    /// The most items of a page.
    limit: Option<u64>,
}

impl KeyRange {
    pub(crate) fn new(partition: String, from: i64, to: i64) -> Self {
        Self { partition, from, to, backwards: false, consistent: true, limit: None }
    }

    pub(crate) fn backwards(mut self) -> Self {
        self.backwards = true;
        self
    }

    /// The answer may be a moment old, and costs half as much.
    pub(crate) fn eventually(mut self) -> Self {
        self.consistent = false;
        self
    }

    pub(crate) fn with_limit(mut self, limit: impl Into<Option<u64>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// The rest of the range after a page; `None` if the page was the last.
    pub(crate) fn after(mut self, page: &ItemPage) -> Option<Self> {
        let last = page.more_after?;
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
pub(crate) struct ItemPage {
    pub(crate) items: Vec<Item>,
    /// The sort key of the last item that was read, if there may be more items after it.
    pub(crate) more_after: Option<i64>,
}

impl Table {
    /// Reads one item.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.get_item(key, true).await
    }

    /// Reads one item with an eventually consistent read: the answer may be a moment old, and costs
    /// half as much.
    pub(crate) async fn get_eventually(&self, key: &Key) -> Result<Option<Item>> {
        self.get_item(key, false).await
    }

    async fn get_item(&self, key: &Key, consistent: bool) -> Result<Option<Item>> {
        let request = || {
            let get = self.client.get_item().table_name(&self.name).consistent_read(consistent);
            get.set_key(Some(key.to_item())).send()
        };
        Ok(self.call(request, failure).await?.item)
    }

    /// Reads any number of items by their keys. The answer has no entry for a missing item.
    pub(crate) async fn get_all(&self, keys: &[Key]) -> Result<HashMap<Key, Item>> {
        let mut found = HashMap::with_capacity(keys.len());
        let began = Instant::now();
        for keys in keys.chunks(MOST_ITEMS) {
            let mut wanted: Vec<Item> = keys.iter().map(Key::to_item).collect();
            let mut backoff = pauses();
            while !wanted.is_empty() {
                let request = KeysAndAttributes::builder()
                    .set_keys(Some(std::mem::take(&mut wanted)))
                    .consistent_read(true)
                    .build()
                    .map_err(|e| internal("a BatchGetItem without keys").with_source(e))?;
                let batch =
                    || self.client.batch_get_item().request_items(&self.name, request.clone());
                let answer = self.call(|| batch().send(), failure).await?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    found.insert(Key::of(&item)?, item);
                }
                // DynamoDB leaves out what does not fit into the answer or is throttled.
                let left = answer.unprocessed_keys.unwrap_or_default();
                wanted.extend(left.into_values().flat_map(|left| left.keys));
                if !wanted.is_empty() {
                    if began.elapsed() >= self.retry_for {
                        let message = "DynamoDB kept leaving items out of its answers; try again \
                                       later, or raise the limits of the table";
                        return Err(Error::new(ErrorKind::Busy, message));
                    }
                    sleep(backoff.next_pause()).await;
                }
            }
        }
        Ok(found)
    }

    /// Fails with [`ErrorKind::Unavailable`] while a transaction is writing one of these items: only a
    /// transactional read tells (developer guide of DynamoDB, "Transaction conflict handling").
    pub(crate) async fn check_not_in_progress(&self, keys: &[Key]) -> Result<()> {
        let gets = keys.iter().take(MOST_ITEMS).map(|key| {
            let get = Get::builder().table_name(&self.name).set_key(Some(key.to_item())).build();
            let get = get.map_err(|e| internal("a read without a key").with_source(e))?;
            Ok(TransactGetItem::builder().get(get).build())
        });
        let gets = gets.collect::<Result<Vec<_>>>()?;
        let request = || self.client.transact_get_items().set_transact_items(Some(gets.clone()));
        let judge = |error: &_| {
            if is_conflict(error) { Failure::Permanent } else { failure(error) }
        };
        match self.call(|| request().send(), judge).await {
            Ok(_) => Ok(()),
            Err(failed) if is_conflict(&failed.error) => {
                let message = "DynamoDB is still writing an append, of which other parts are visible \
                               already; try again";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Err(failed) => Err(failed.into()),
        }
    }

    /// Reads a page of a range: at most 1 MB, a limit of DynamoDB.
    pub(crate) async fn query(&self, range: &KeyRange) -> Result<ItemPage> {
        if range.from > range.to {
            return Ok(ItemPage::default());
        }
        let condition = format!("{PARTITION} = :pk AND {SORT} BETWEEN :from AND :to");
        let request = || {
            self.client
                .query()
                .table_name(&self.name)
                .consistent_read(range.consistent)
                .key_condition_expression(&condition)
                .expression_attribute_values(":pk", text(&range.partition))
                .expression_attribute_values(":from", AttributeValue::N(range.from.to_string()))
                .expression_attribute_values(":to", AttributeValue::N(range.to.to_string()))
                .scan_index_forward(!range.backwards)
                .set_limit(range.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
                .send()
        };
        let answer = self.call(request, failure).await?;
        let last = answer.last_evaluated_key.as_ref().filter(|key| !key.is_empty());
        let more_after = last.map(Key::of).transpose()?.map(|key| key.sort);
        Ok(ItemPage { items: answer.items.unwrap_or_default(), more_after })
    }

    /// Reads the first item of a range.
    pub(crate) async fn first(&self, range: KeyRange) -> Result<Option<Item>> {
        Ok(self.query(&range.with_limit(1)).await?.items.into_iter().next())
    }

    /// Reads a whole range.
    pub(crate) async fn query_all(&self, range: KeyRange) -> Result<Vec<Item>> {
        let mut all = Vec::new();
        let mut next = Some(range);
        while let Some(range) = next {
            let page = self.query(&range).await?;
            next = range.after(&page);
            all.extend(page.items);
        }
        Ok(all)
    }
}

/// Whether a transactional read was cancelled because a transaction writes one of its items.
fn is_conflict(error: &SdkError<TransactGetItemsError, HttpResponse>) -> bool {
    match error.as_service_error() {
        Some(TransactGetItemsError::TransactionCanceledException(cancelled)) => {
            let mut reasons = cancelled.cancellation_reasons().iter();
            reasons.any(|reason| reason.code() == Some("TransactionConflict"))
        }
        _ => false,
    }
}
