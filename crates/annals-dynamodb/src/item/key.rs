//! The keys of items.

use std::collections::HashMap;

use annals_core::{Result, StreamId};
use aws_sdk_dynamodb::types::AttributeValue;

use super::{
    attribute::{PARTITION, SORT},
    value::{Item, text},
};
use crate::error::corrupt;

/// The primary key of an item. `attribute.rs` says which items there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) partition: String,
    pub(crate) sort: i64,
}

impl Key {
    /// The partition with the removals that are under way.
    pub(crate) const UNFINISHED: &str = "unfinished";

    pub(crate) fn new(partition: impl Into<String>, sort: i64) -> Self {
        Self { partition: partition.into(), sort }
    }

    /// The item with the layout and the options that cannot change.
    pub(crate) fn meta() -> Self {
        Self::new("meta", 0)
    }

    /// The item with the last slot number that was allocated.
    pub(crate) fn counter() -> Self {
        Self::new("counter", 0)
    }

    /// The item with the slot up to which no slot can be written any more.
    pub(crate) fn settled() -> Self {
        Self::new("settled", 0)
    }

    pub(crate) fn checkpoint(subscriber: &str) -> Self {
        Self::new(format!("c:{subscriber}"), 0)
    }

    pub(crate) fn lease(name: &str) -> Self {
        Self::new(format!("h:{name}"), 0)
    }

    /// The item that says how far the events of a stream were removed.
    pub(crate) fn removal(stream: &StreamId) -> Self {
        Self::new(Self::stream_partition(stream), 0)
    }

    /// The note of a removal that is under way, under a random number.
    pub(crate) fn unfinished(number: u64) -> Self {
        Self::new(Self::UNFINISHED, sort(number))
    }

    pub(crate) fn snapshot(stream: &StreamId) -> Self {
        Self::new(Self::stream_partition(stream), -1)
    }

    /// The item with the events of a stream from this version on, or with a marker at this version.
    pub(crate) fn events(stream: &StreamId, first: u64) -> Self {
        Self::new(Self::stream_partition(stream), sort(first))
    }

    /// A slot of a log that spreads over so many stripes.
    pub(crate) fn slot(slot: u64, stripes: u64) -> Self {
        Self::new(Self::stripe_partition(slot % stripes.max(1)), sort(slot))
    }

    pub(crate) fn stream_partition(stream: &StreamId) -> String {
        format!("s:{stream}")
    }

    pub(crate) fn stripe_partition(stripe: u64) -> String {
        format!("l:{stripe}")
    }

    /// An item that has no attributes yet but its key.
    pub(crate) fn to_item(&self) -> Item {
        HashMap::from([
            (PARTITION.to_owned(), text(&self.partition)),
            (SORT.to_owned(), AttributeValue::N(self.sort.to_string())),
        ])
    }

    pub(crate) fn of(item: &Item) -> Result<Self> {
        let sort = match item.get(SORT) {
            Some(AttributeValue::N(n)) => n.parse().ok(),
            _ => None,
        };
        match (item.get(PARTITION), sort) {
            (Some(AttributeValue::S(partition)), Some(sort)) => Ok(Self::new(partition, sort)),
            _ => Err(corrupt("an item without its key")),
        }
    }
}

/// The sort key of a version or slot.
pub(crate) fn sort(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
