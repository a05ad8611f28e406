//! The values of attributes.

use std::collections::HashMap;

use annals_core::Result;
use aws_sdk_dynamodb::types::AttributeValue;

use super::attribute::COUNT;
use crate::error::corrupt;

/// The attributes of an item, or of a map in an item.
pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new(bytes))
}

/// The number in an attribute; `None` if the item does not have the attribute.
pub(crate) fn get_number(item: &Item, name: &str) -> Result<Option<u64>> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(n)) if n.parse::<u64>().is_ok() => Ok(n.parse().ok()),
        Some(_) => Err(corrupt(format!("the attribute `{name}` of an item is not a number"))),
    }
}

/// The number in an attribute that every item of this kind has.
pub(super) fn need_number(item: &Item, name: &str) -> Result<u64> {
    let missing = || corrupt(format!("an item has no attribute `{name}`"));
    get_number(item, name)?.ok_or_else(missing)
}

pub(crate) fn get_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str)
}

/// The bytes in an attribute; `None` if the item does not have the attribute.
pub(crate) fn get_bytes<'a>(item: &'a Item, name: &str) -> Result<Option<&'a [u8]>> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::B(blob)) => Ok(Some(blob.as_ref())),
        Some(_) => Err(corrupt(format!("the attribute `{name}` of an item is not binary"))),
    }
}

/// The number of an item that counts.
pub(crate) fn count(item: &Item) -> Result<u64> {
    need_number(item, COUNT)
}
