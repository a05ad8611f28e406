//! The items of the table: their keys, their attributes, and what they mean.

pub(crate) mod attribute;
mod key;
mod slot;
mod stream;
mod value;

pub(crate) use key::{Key, sort};
pub(crate) use slot::{
    Entry, EntryEvents, EventsSummary, MOST_INLINE_BYTES, POSITIONS_PER_SLOT, Slot,
    last_position_of, slot_of,
};
pub(crate) use stream::{EventsItem, Marker, RemovalProgress, StreamItem, end_state};
pub(crate) use value::{Item, bytes, count, get_bytes, get_number, get_text, number, text};
