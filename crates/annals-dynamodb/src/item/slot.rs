//! The slots of the log.

use annals_core::{EventType, Position, Result, StreamId};
use aws_sdk_dynamodb::types::AttributeValue;

use super::{
    attribute::{
        BODY, ENTRIES, EVENT_TYPES, FIRST_VERSION, KEPT_FROM, KIND, LAST_VERSION, SIZE, SORT,
        STREAM, VOID,
    },
    value::{Item, bytes, get_bytes, get_number, get_text, need_number, number, text},
};
use crate::error::corrupt;

/// How many positions a slot has: more than an append has events.
pub(crate) const POSITIONS_PER_SLOT: u64 = 1024;

/// The slot also has the events of an item whose body is not longer than this, so that a reader of
/// all streams need not fetch the item. A slot of one such item is charged as one kilobyte.
pub(crate) const MOST_INLINE_BYTES: usize = 850;

/// The slot in which a position is.
pub(crate) fn slot_of(position: Position) -> u64 {
    position.get() / POSITIONS_PER_SLOT
}

/// The greatest position in a slot.
pub(crate) fn last_position_of(slot: u64) -> Position {
    let first = slot.saturating_mul(POSITIONS_PER_SLOT);
    Position::new(first.saturating_add(POSITIONS_PER_SLOT - 1))
}

/// A slot of the log. Once written, it stays as it is, except that removed events leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The slot was closed while it was empty: nothing can be written to it any more.
    Void,
    /// The items that were written in one transaction, in the order of their positions.
    Entries(Vec<Entry>),
}

/// One item with events, as its slot describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stream: StreamId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) events: EntryEvents,
}

/// Where the events of an entry are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryEvents {
    /// In the slot itself, from this version on, packed as in the item.
    Inline(u64, Vec<u8>),
    /// Only in the item.
    InItem(EventsSummary),
    Removed,
}

/// What an entry tells of events that only the item has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventsSummary {
    /// About how many bytes the events have, unpacked.
    pub(crate) size: u64,
    /// The types of the events; empty if there are too many types to list.
    pub(crate) types: Vec<EventType>,
}

impl Slot {
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        match self {
            Self::Void => Vec::new(),
            Self::Entries(entries) => entries,
        }
    }

    /// The attribute that a slot has beside its key: its name and value.
    pub(crate) fn to_attribute(&self) -> (&'static str, AttributeValue) {
        match self {
            Self::Void => (KIND, text(VOID)),
            Self::Entries(entries) => {
                (ENTRIES, AttributeValue::L(entries.iter().map(Entry::to_value).collect()))
            }
        }
    }

    pub(crate) fn of(item: &Item) -> Result<Self> {
        match (get_text(item, KIND), item.get(ENTRIES)) {
            (Some(VOID), None) => Ok(Self::Void),
            (None, Some(AttributeValue::L(entries))) => {
                entries.iter().map(Entry::of).collect::<Result<_>>().map(Self::Entries)
            }
            _ => Err(corrupt(format!("a slot of an unknown kind at {:?}", item.get(SORT)))),
        }
    }
}

impl Entry {
    /// How many events the entry has, or had before some were removed.
    pub(crate) fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    fn to_value(&self) -> AttributeValue {
        let mut map = Item::new();
        let mut set = |name: &str, value| map.insert(name.to_owned(), value);
        set(STREAM, text(self.stream.as_str()));
        set(FIRST_VERSION, number(self.first));
        set(LAST_VERSION, number(self.last));
        match &self.events {
            EntryEvents::Inline(from, body) => {
                if *from != self.first {
                    set(KEPT_FROM, number(*from));
                }
                set(BODY, bytes(body.as_slice()));
            }
            EntryEvents::InItem(EventsSummary { size, types }) => {
                set(SIZE, number(*size));
                let types = types.iter().map(|t| text(t.as_str())).collect();
                set(EVENT_TYPES, AttributeValue::L(types));
            }
            EntryEvents::Removed => {}
        }
        AttributeValue::M(map)
    }

    fn of(value: &AttributeValue) -> Result<Self> {
        let bad = |what: &str| corrupt(format!("an entry of the log {what}"));
        let AttributeValue::M(map) = value else { return Err(bad("is not a map")) };
        let stream = get_text(map, STREAM).and_then(|stream| StreamId::new(stream).ok());
        let stream = stream.ok_or_else(|| bad("has no valid stream id"))?;
        let (first, last) = (need_number(map, FIRST_VERSION)?, need_number(map, LAST_VERSION)?);
        if last < first {
            return Err(bad("ends before it begins"));
        }
        let events = match (get_bytes(map, BODY)?, map.get(EVENT_TYPES)) {
            (Some(body), None) => {
                let from = get_number(map, KEPT_FROM)?.unwrap_or(first);
                EntryEvents::Inline(from, body.to_vec())
            }
            (None, Some(AttributeValue::L(types))) => {
                let event_type = |value: &AttributeValue| {
                    value.as_s().ok().and_then(|text| EventType::new(text).ok())
                };
                let types: Option<_> = types.iter().map(event_type).collect();
                let types = types.ok_or_else(|| bad("has an invalid event type"))?;
                EntryEvents::InItem(EventsSummary { size: need_number(map, SIZE)?, types })
            }
            (None, None) => EntryEvents::Removed,
            _ => return Err(bad("has both events and their types")),
        };
        Ok(Self { stream, first, last, events })
    }
}
