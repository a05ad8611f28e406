//! The layout of each kind of item, and the names of its attributes.
//!
//! Most names are one letter, because DynamoDB charges for the bytes of a name in every item, and
//! in every entry of a slot. Names and meanings are stored data: to change one is to change the
//! layout of the table (`LAYOUT` in `schema.rs`).
//!
//! # Items of a stream, `pk` = `s:<stream>`
//!
//! * `sk` = the version of the first event: the events of one append, or a part of them if they are
//!   too large for one item.
//!
//!   | attribute | meaning | if absent |
//!   |---|---|---|
//!   | [`LAST_VERSION`] | the version of the last event | one event |
//!   | [`APPEND_LAST_VERSION`] | the last version of the whole append | that of this item |
//!   | [`POSITION`] | the position of the first event | no order over all streams |
//!   | [`ENTRY_INDEX`] | the index of this item's entry in its slot | 0 |
//!   | [`DELETED_AT`] | the version of the stream at its last deletion | never deleted |
//!   | [`KEPT_FROM`] | the first version in this item that was not removed | nothing was removed |
//!   | [`BODY`] | the events from there on, packed | all were removed |
//!
//! * `sk` = the version after the last event: the marker of a deletion or a tombstone, with
//!   [`KIND`] ([`DELETED`] or [`CLOSED`]), [`NONCE`] and the [`POSITION`] of the last event. An
//!   append to a deleted stream replaces the marker by its events.
//! * `sk` = 0: how far events were removed. [`KEPT_FROM`] is the first version that can be read,
//!   [`CLEANED_TO`] the version before which no item has events any more, [`DELETED_AT`] the
//!   version up to which no snapshot is kept: that of the last deletion, or the greatest number
//!   after a tombstone.
//! * `sk` = -1: the snapshot, with [`VERSION`], [`BODY`] and, if it expires, [`EXPIRES`].
//!
//! # Slots of the log, `pk` = `l:<stripe>`, `sk` = the number of the slot
//!
//! Either [`KIND`] is [`VOID`], or [`ENTRIES`] is a list with one map for each item with events
//! that was written in the same transaction: [`STREAM`], [`FIRST_VERSION`], [`LAST_VERSION`], and
//!
//! * a small body: [`BODY`], and [`KEPT_FROM`] if some of its events were removed;
//! * a large body, which only the item has: its [`SIZE`] and the [`EVENT_TYPES`] in it;
//! * after a removal: neither.
//!
//! # Removals that are under way, `pk` = `unfinished`, `sk` = a random number
//!
//! [`STREAM`]: the stream whose events are removed. Whoever opens the store next finishes a removal
//! whose process has died.
//!
//! # Other items, `sk` = 0
//!
//! | `pk` | attributes |
//! |---|---|
//! | `c:<subscriber>` | a checkpoint: [`POSITION`] |
//! | `h:<name>` | a lease: [`HOLDER`], [`REVISION`], [`TOKEN`], [`TIME_TO_LIVE`], [`NONCE`] |
//! | `counter` | [`COUNT`]: the last slot number that was allocated |
//! | `settled` | [`COUNT`]: no slot up to this one can be written any more |
//! | `meta` | [`LAYOUT`], and [`STRIPES`] (0 without an order over all streams) |

/// The partition key, a string.
pub(crate) const PARTITION: &str = "pk";
/// The sort key, a number.
pub(crate) const SORT: &str = "sk";

/// What an item is that has no events: [`DELETED`], [`CLOSED`] or [`VOID`].
pub(crate) const KIND: &str = "k";
/// The [`KIND`] of the marker of a deletion.
pub(crate) const DELETED: &str = "deleted";
/// The [`KIND`] of the marker of a tombstone.
pub(crate) const CLOSED: &str = "closed";
/// The [`KIND`] of a slot that was closed before anything was written to it.
pub(crate) const VOID: &str = "void";

/// The first version of an entry of a slot.
pub(crate) const FIRST_VERSION: &str = "v";
/// The last version of an item with events, or of an entry of a slot.
pub(crate) const LAST_VERSION: &str = "e";
/// The last version of the append that an item with events belongs to.
pub(crate) const APPEND_LAST_VERSION: &str = "a";
/// The position of the first event of an item, of the last event before a marker, or of a
/// checkpoint.
pub(crate) const POSITION: &str = "p";
/// Which entry of its slot an item with events is.
pub(crate) const ENTRY_INDEX: &str = "j";
/// The version of the stream when it was last deleted.
pub(crate) const DELETED_AT: &str = "d";
/// The first version that was not removed.
pub(crate) const KEPT_FROM: &str = "f";
/// The version before which all events are gone from the items of a stream.
pub(crate) const CLEANED_TO: &str = "c";
/// Events, or a snapshot, packed by the codec.
pub(crate) const BODY: &str = "b";

/// The entries of a slot.
pub(crate) const ENTRIES: &str = "a";
/// The stream of an entry, or of a removal.
pub(crate) const STREAM: &str = "s";
/// About how many bytes the events of an entry have, unpacked.
pub(crate) const SIZE: &str = "z";
/// The event types of an entry; an empty list if they are too many.
pub(crate) const EVENT_TYPES: &str = "y";

/// The version of a snapshot.
pub(crate) const VERSION: &str = "v";
/// When an item may be deleted by DynamoDB's time to live, in seconds since 1970: only snapshots.
pub(crate) const EXPIRES: &str = "expires";

/// The holder of a lease.
pub(crate) const HOLDER: &str = "h";
/// The revision of a lease.
pub(crate) const REVISION: &str = "r";
/// The fencing token of a lease.
pub(crate) const TOKEN: &str = "t";
/// The time to live of a lease, in milliseconds.
pub(crate) const TIME_TO_LIVE: &str = "l";

/// A random number by which a writer recognises its own item.
pub(crate) const NONCE: &str = "n";
/// The number that a counter keeps.
pub(crate) const COUNT: &str = "n";
/// The layout of the table.
pub(crate) const LAYOUT: &str = "layout";
/// The id that DynamoDB has given to the table of the store.
pub(crate) const TABLE_ID: &str = "table_id";
/// Over how many partitions the log spreads; 0 if there is no log.
pub(crate) const STRIPES: &str = "stripes";
