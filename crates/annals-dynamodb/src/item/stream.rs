//! The items in a stream's partition.

use annals_core::{Result, StreamId, StreamState, Version};

use super::{
    attribute::{
        APPEND_LAST_VERSION, BODY, CLEANED_TO, CLOSED, DELETED, DELETED_AT, ENTRY_INDEX, KEPT_FROM,
        KIND, LAST_VERSION, NONCE, POSITION,
    },
    key::Key,
    value::{Item, bytes, get_bytes, get_number, get_text, need_number, number, text},
};
use crate::error::corrupt;

/// An item at a version of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamItem {
    Events(EventsItem),
    Marker(Marker),
}

/// The events of one append, or a part of them if they are too large for one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventsItem {
    /// The versions of the first and the last event that were written, removed since or not.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The last version of the whole append: beyond `last` if more items of it follow.
    pub(crate) append_last: u64,
    /// The position of the first event, if the store has an order over all streams.
    pub(crate) position: Option<u64>,
    /// The index of this item's entry in its slot.
    pub(crate) entry_index: u64,
    /// The version of the stream when it was last deleted.
    pub(crate) deleted_at: u64,
    /// The first version that was not removed.
    pub(crate) kept_from: u64,
    /// The packed events from `kept_from` on; `None` if all were removed.
    pub(crate) body: Option<Vec<u8>>,
}

/// The item after the last event of a stream that was deleted or tombstoned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The version after the last event.
    pub(crate) at: u64,
    /// Whether the stream was tombstoned.
    pub(crate) closed: bool,
    /// The position of the last event.
    pub(crate) position: Option<u64>,
    /// Distinguishes this marker from one that another caller wrote at the same version.
    pub(crate) nonce: u64,
}

impl EventsItem {
    pub(crate) fn to_item(&self, stream: &StreamId) -> Item {
        let mut item = Key::events(stream, self.first).to_item();
        let mut set = |name: &str, value| item.insert(name.to_owned(), value);
        if self.last != self.first {
            set(LAST_VERSION, number(self.last));
        }
        if self.append_last != self.last {
            set(APPEND_LAST_VERSION, number(self.append_last));
        }
        if let Some(position) = self.position {
            set(POSITION, number(position));
        }
        if self.entry_index != 0 {
            set(ENTRY_INDEX, number(self.entry_index));
        }
        if self.deleted_at != 0 {
            set(DELETED_AT, number(self.deleted_at));
        }
        if self.kept_from != self.first {
            set(KEPT_FROM, number(self.kept_from));
        }
        if let Some(body) = &self.body {
            set(BODY, bytes(body.as_slice()));
        }
        item
    }

    fn of(item: &Item, first: u64) -> Result<Self> {
        let last = get_number(item, LAST_VERSION)?.unwrap_or(first);
        let events = Self {
            first,
            last,
            append_last: get_number(item, APPEND_LAST_VERSION)?.unwrap_or(last),
            position: get_number(item, POSITION)?,
            entry_index: get_number(item, ENTRY_INDEX)?.unwrap_or(0),
            deleted_at: get_number(item, DELETED_AT)?.unwrap_or(0),
            kept_from: get_number(item, KEPT_FROM)?.unwrap_or(first),
            body: get_bytes(item, BODY)?.map(<[u8]>::to_vec),
        };
        let has_events = events.kept_from <= last;
        if last < first || events.append_last < last || has_events != events.body.is_some() {
            return Err(corrupt(format!("the attributes of the item at version {first} disagree")));
        }
        Ok(events)
    }

    /// The position of a version of this item, or of a later one of the same append.
    pub(crate) fn position_of(&self, version: u64) -> Option<u64> {
        self.position.map(|first| first + version.saturating_sub(self.first))
    }
}

impl Marker {
    pub(crate) fn to_item(&self, stream: &StreamId) -> Item {
        let mut item = Key::events(stream, self.at).to_item();
        let kind = if self.closed { CLOSED } else { DELETED };
        item.insert(KIND.to_owned(), text(kind));
        item.insert(NONCE.to_owned(), number(self.nonce));
        if let Some(position) = self.position {
            item.insert(POSITION.to_owned(), number(position));
        }
        item
    }
}

impl StreamItem {
    pub(crate) fn of(item: &Item) -> Result<Self> {
        let at = Key::of(item)?.sort;
        let at = u64::try_from(at).map_err(|_| corrupt(format!("an item at version {at}")))?;
        let closed = match get_text(item, KIND) {
            None => return EventsItem::of(item, at).map(Self::Events),
            Some(DELETED) => false,
            Some(CLOSED) => true,
            Some(other) => return Err(corrupt(format!("an item of the unknown kind {other:?}"))),
        };
        let nonce = need_number(item, NONCE)?;
        Ok(Self::Marker(Marker { at, closed, position: get_number(item, POSITION)?, nonce }))
    }
}

/// The state and version of a stream, by the last item in its partition.
pub(crate) fn end_state(last: Option<&StreamItem>) -> (StreamState, Version) {
    match last {
        None => (StreamState::Missing, Version::NONE),
        Some(StreamItem::Events(events)) => (StreamState::Live, Version::new(events.append_last)),
        Some(StreamItem::Marker(marker)) => {
            let state = if marker.closed { StreamState::Tombstoned } else { StreamState::Deleted };
            (state, Version::new(marker.at).minus(1))
        }
    }
}

/// How far the events of a stream were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemovalProgress {
    /// The first version that can still be read.
    pub(crate) kept_from: u64,
    /// Events before this version are gone from the table. Those from here to `kept_from` are only
    /// not read any more.
    pub(crate) cleaned_to: u64,
}

impl RemovalProgress {
    /// Reads the item at [`Key::removal`]; without one, nothing was removed.
    pub(crate) fn of(item: Option<&Item>) -> Result<Self> {
        let get = |name| item.map_or(Ok(None), |item| get_number(item, name));
        let (kept_from, cleaned_to) = (get(KEPT_FROM)?, get(CLEANED_TO)?);
        Ok(Self { kept_from: kept_from.unwrap_or(1), cleaned_to: cleaned_to.unwrap_or(1) })
    }
}
