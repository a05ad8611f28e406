//! One table: requests to it, tried again for as long as that may help.

mod read;
mod request;
mod write;

pub(crate) use read::KeyRange;
pub(crate) use request::Table;
pub(crate) use write::{Change, Condition, WriteOutcome};

/// The most items of a transaction, and the most keys of a `BatchGetItem` (quotas of DynamoDB).
pub(crate) use request::MOST_ITEMS;
