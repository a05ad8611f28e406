//! What stands in the table, and what it means. `docs` of the crate have the layout.

use std::collections::HashMap;

use annals_core::{EventType, Position, Result, StreamId, StreamState, Version};
use aws_sdk_dynamodb::types::AttributeValue;

use crate::error::corrupt;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The partition key, a string.
pub(crate) const PARTITION: &str = "pk";
/// The sort key, a number.
pub(crate) const SORT: &str = "sk";
/// When an item that may expire does so, in seconds since 1970: a snapshot only.
pub(crate) const EXPIRES: &str = "expires";

/// Where an item is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) partition: String,
    pub(crate) sort: i64,
}

impl Key {
    pub(crate) fn new(partition: impl Into<String>, sort: i64) -> Self {
        Self { partition: partition.into(), sort }
    }

    /// What the store is like.
    pub(crate) fn meta() -> Self {
        Self::new("meta", 0)
    }

    /// The last slot that was given out.
    pub(crate) fn counter() -> Self {
        Self::new("counter", 0)
    }

    /// The slot up to which nothing can be written any more.
    pub(crate) fn settled() -> Self {
        Self::new("settled", 0)
    }

    pub(crate) fn checkpoint(subscriber: &str) -> Self {
        Self::new(format!("c:{subscriber}"), 0)
    }

    pub(crate) fn lease(name: &str) -> Self {
        Self::new(format!("h:{name}"), 0)
    }

    pub(crate) fn stream(stream: &StreamId) -> String {
        format!("s:{stream}")
    }

    /// What was removed of a stream.
    pub(crate) fn removed(stream: &StreamId) -> Self {
        Self::new(Self::stream(stream), 0)
    }

    pub(crate) fn snapshot(stream: &StreamId) -> Self {
        Self::new(Self::stream(stream), -1)
    }

    /// The events of a stream from a version on, or the marker that stands there instead.
    pub(crate) fn events(stream: &StreamId, first: u64) -> Self {
        Self::new(Self::stream(stream), sort(first))
    }

    pub(crate) fn slot(slot: u64, stripes: u64) -> Self {
        Self::new(Self::stripe(slot % stripes.max(1)), sort(slot))
    }

    pub(crate) fn stripe(stripe: u64) -> String {
        format!("l:{stripe}")
    }

    pub(crate) fn attributes(&self) -> Item {
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

pub(crate) fn sort(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new(bytes))
}

/// A number, where there is one.
pub(crate) fn get_number(item: &Item, name: &str) -> Result<Option<u64>> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(n)) if n.parse::<u64>().is_ok() => Ok(n.parse().ok()),
        Some(_) => Err(corrupt(format!("`{name}` of an item is no number"))),
    }
}

fn need_number(item: &Item, name: &str) -> Result<u64> {
    get_number(item, name)?.ok_or_else(|| corrupt(format!("an item lacks `{name}`")))
}

pub(crate) fn get_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str)
}

pub(crate) fn get_bytes<'a>(item: &'a Item, name: &str) -> Result<Option<&'a [u8]>> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::B(blob)) => Ok(Some(blob.as_ref())),
        Some(_) => Err(corrupt(format!("`{name}` of an item is not bytes"))),
    }
}

/// What stands in a stream's partition at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamItem {
    Events(Batch),
    Marker(Marker),
}

/// Events of one append: all of them, or a part where they are too large for one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The versions, as they were written.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The last version of the append, which is beyond `last` where there are more parts.
    pub(crate) append_last: u64,
    /// The position of the first event, where there is an order over all streams.
    pub(crate) position: Option<u64>,
    /// Which entry of the slot this is.
    pub(crate) entry: u64,
    /// The version of the stream when it was last deleted.
    pub(crate) deleted_at: u64,
    /// The first version that was not removed.
    pub(crate) kept_from: u64,
    /// What is left of the events.
    pub(crate) body: Option<Vec<u8>>,
}

/// Stands after the last event of a stream that was deleted, until it is appended to again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The version after the last.
    pub(crate) at: u64,
    pub(crate) closed: bool,
    /// The position of the last event.
    pub(crate) position: Option<u64>,
    /// Tells it from that of somebody else.
    pub(crate) nonce: u64,
}

/// The values of `k`, the kind of an item that is not events.
pub(crate) const DELETED: &str = "deleted";
pub(crate) const CLOSED: &str = "closed";
pub(crate) const VOID: &str = "void";

impl Batch {
    pub(crate) fn to_item(&self, stream: &StreamId) -> Item {
        let mut item = Key::events(stream, self.first).attributes();
        let mut set = |name: &str, value: AttributeValue| item.insert(name.to_owned(), value);
        if self.last != self.first {
            set("e", number(self.last));
        }
        if self.append_last != self.last {
            set("a", number(self.append_last));
        }
        if let Some(position) = self.position {
            set("p", number(position));
        }
        if self.entry != 0 {
            set("j", number(self.entry));
        }
        if self.deleted_at != 0 {
            set("d", number(self.deleted_at));
        }
        if self.kept_from != self.first {
            set("f", number(self.kept_from));
        }
        if let Some(body) = &self.body {
            set("b", bytes(body.as_slice()));
        }
        item
    }

    fn of(item: &Item, first: u64) -> Result<Self> {
        let last = get_number(item, "e")?.unwrap_or(first);
        let batch = Self {
            first,
            last,
            append_last: get_number(item, "a")?.unwrap_or(last),
            position: get_number(item, "p")?,
            entry: get_number(item, "j")?.unwrap_or(0),
            deleted_at: get_number(item, "d")?.unwrap_or(0),
            kept_from: get_number(item, "f")?.unwrap_or(first),
            body: get_bytes(item, "b")?.map(<[u8]>::to_vec),
        };
        let is_kept = batch.kept_from <= last;
        if last < first || batch.append_last < last || is_kept != batch.body.is_some() {
            return Err(corrupt(format!("an impossible item at version {first}")));
        }
        Ok(batch)
    }

    /// The position of one of its versions, or of one of its append's.
    pub(crate) fn position_of(&self, version: u64) -> Option<u64> {
        self.position.map(|first| first + version.saturating_sub(self.first))
    }
}

impl Marker {
    pub(crate) fn to_item(&self, stream: &StreamId) -> Item {
        let mut item = Key::events(stream, self.at).attributes();
        let kind = if self.closed { CLOSED } else { DELETED };
        item.insert("k".to_owned(), text(kind));
        item.insert("n".to_owned(), number(self.nonce));
        if let Some(position) = self.position {
            item.insert("p".to_owned(), number(position));
        }
        item
    }
}

impl StreamItem {
    pub(crate) fn of(item: &Item) -> Result<Self> {
        let at = Key::of(item)?.sort;
        let at = u64::try_from(at).map_err(|_| corrupt(format!("an item at version {at}")))?;
        let closed = match get_text(item, "k") {
            None => return Batch::of(item, at).map(Self::Events),
            Some(DELETED) => false,
            Some(CLOSED) => true,
            Some(other) => return Err(corrupt(format!("an item of the unknown kind {other:?}"))),
        };
        let nonce = need_number(item, "n")?;
        Ok(Self::Marker(Marker { at, closed, position: get_number(item, "p")?, nonce }))
    }
}

/// What was removed of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The first version that can still be read.
    pub(crate) kept_from: u64,
    /// Up to where the events before that are gone from the table, too.
    pub(crate) cleaned_to: u64,
}

impl Removed {
    pub(crate) fn of(item: Option<&Item>) -> Result<Self> {
        let get = |name| item.map_or(Ok(None), |item| get_number(item, name));
        Ok(Self { kept_from: get("f")?.unwrap_or(1), cleaned_to: get("c")?.unwrap_or(1) })
    }
}

/// How many positions a slot has. An append has fewer events.
pub(crate) const SLOT: u64 = 1024;

/// The slot of a position.
pub(crate) fn slot_of(position: Position) -> u64 {
    position.get() / SLOT
}

/// The greatest position of a slot.
pub(crate) fn end_of(slot: u64) -> Position {
    Position::new(slot.saturating_mul(SLOT).saturating_add(SLOT - 1))
}

/// What the log says of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nobody has written here, and nobody can.
    Void,
    /// What was written together, in the order of positions.
    Entries(Vec<Entry>),
}

/// One item with events, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stream: StreamId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) events: Events,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    /// As in the item, from this version on.
    Here(u64, Vec<u8>),
    /// In the item only.
    There(Summary),
    Removed,
}

/// What can be known of events without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// About how many bytes they have, unpacked.
    pub(crate) size: u64,
    /// Their types; none where there are too many to be listed.
    pub(crate) types: Vec<EventType>,
}

impl Slot {
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        match self {
            Self::Void => Vec::new(),
            Self::Entries(entries) => entries,
        }
    }

    /// The attributes beside the key.
    pub(crate) fn insert_into(&self, item: &mut Item) {
        let (name, value) = match self {
            Self::Void => ("k", text(VOID)),
            Self::Entries(entries) => {
                let entries = entries.iter().map(Entry::to_value).collect();
                ("a", AttributeValue::L(entries))
            }
        };
        item.insert(name.to_owned(), value);
    }

    pub(crate) fn of(item: &Item) -> Result<Self> {
        match (get_text(item, "k"), item.get("a")) {
            (Some(VOID), None) => Ok(Self::Void),
            (None, Some(AttributeValue::L(entries))) => {
                entries.iter().map(Entry::of).collect::<Result<_>>().map(Self::Entries)
            }
            _ => Err(corrupt(format!("an unknown slot at {:?}", item.get(SORT)))),
        }
    }
}

impl Entry {
    pub(crate) fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    fn to_value(&self) -> AttributeValue {
        let mut map = HashMap::from([
            ("s".to_owned(), text(self.stream.as_str())),
            ("v".to_owned(), number(self.first)),
            ("e".to_owned(), number(self.last)),
        ]);
        match &self.events {
            Events::Here(from, body) => {
                if *from != self.first {
                    map.insert("f".to_owned(), number(*from));
                }
                map.insert("b".to_owned(), bytes(body.as_slice()));
            }
            Events::There(Summary { size, types }) => {
                map.insert("z".to_owned(), number(*size));
                let types = types.iter().map(|t| text(t.as_str())).collect();
                map.insert("y".to_owned(), AttributeValue::L(types));
            }
            Events::Removed => {}
        }
        AttributeValue::M(map)
    }

    fn of(value: &AttributeValue) -> Result<Self> {
        let bad = |what: &str| corrupt(format!("{what} in the log"));
        let AttributeValue::M(map) = value else { return Err(bad("no entry")) };
        let stream = get_text(map, "s").and_then(|stream| StreamId::new(stream).ok());
        let stream = stream.ok_or_else(|| bad("an illegal stream"))?;
        let (first, last) = (need_number(map, "v")?, need_number(map, "e")?);
        if last < first {
            return Err(bad("impossible versions"));
        }
        let events = match (get_bytes(map, "b")?, map.get("y")) {
            (Some(body), None) => {
                Events::Here(get_number(map, "f")?.unwrap_or(first), body.to_vec())
            }
            (None, Some(AttributeValue::L(types))) => {
                let event_type = |value: &AttributeValue| {
                    value.as_s().ok().and_then(|text| EventType::new(text).ok())
                };
                let types: Option<_> = types.iter().map(event_type).collect();
                let types = types.ok_or_else(|| bad("an illegal type"))?;
                Events::There(Summary { size: need_number(map, "z")?, types })
            }
            (None, None) => Events::Removed,
            _ => return Err(bad("an impossible entry")),
        };
        Ok(Self { stream, first, last, events })
    }
}

/// The state of a stream by what stands at its end.
pub(crate) fn state(item: Option<&StreamItem>) -> (StreamState, Version) {
    match item {
        None => (StreamState::Missing, Version::NONE),
        Some(StreamItem::Events(batch)) => (StreamState::Live, Version::new(batch.append_last)),
        Some(StreamItem::Marker(marker)) => {
            let state = if marker.closed { StreamState::Tombstoned } else { StreamState::Deleted };
            (state, Version::new(marker.at).minus(1))
        }
    }
}
