//! One interface to event stores: the [`EventStore`] trait, the event types, and the errors.
//!
//! Applications depend on the crate `annals`, which re-exports everything here and connects to a
//! store by its URL. Adapters depend on this crate alone. It does no I/O of its own.
//!
//! ```
//! use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//!
//! async fn place_order(store: &dyn EventStore) -> Result<()> {
//!     let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
//!     store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//!
//!     let events = store.load_stream(&StreamId::new("order-42")?).await?;
//!     assert_eq!(events[0].event_type.as_str(), "OrderPlaced");
//!     Ok(())
//! }
//! ```
//!
//! # Words
//!
//! * A **stream** is an ordered list of events under one [`StreamId`]: usually one aggregate.
//! * A **category** is the part of a stream id before its first `-`: `order` of `order-42`.
//! * A [`Version`] is an event's place in its stream, counted from 1 without gaps.
//! * A [`Position`] is an event's place in the whole store: strictly increasing, with gaps.
//! * An **append** is one atomic write of events to one stream or several: [`Append`] is what the
//!   caller asks for, [`Appended`] is the store's answer.
//! * An [`ExpectedVersion`] is what the writer believes about a stream. The store checks it when it
//!   writes.
//!
//! # What every store promises
//!
//! *Append.* The store writes all events of an append, next to each other, or none of them. If
//! several concurrent appends expect the same version, exactly one succeeds and every other gets
//! [`ErrorKind::Conflict`]. [`ExpectedVersion::Any`] never conflicts. Retrying an append with the
//! same events and the same expectation returns the first answer and writes nothing. If the answer
//! to an append was lost, the error says so: [`Error::outcome_unknown`]. If the caller drops the
//! future of an append, the append happens completely or not at all.
//!
//! *Read.* A read returns what was appended, byte for byte. If append A had returned before append
//! B was called, A's positions are below B's; within a stream, position order is version order.
//! Reads are streamed, block no append, and never end early without an error.
//!
//! *Subscribe.* A [`Subscription`] delivers every matching event after its start exactly once and
//! in order: first the events that the store already has, then new ones as they are appended. It
//! never skips an event, in whatever order transactions commit or roll back. It survives lost
//! connections, and `next` is cancel-safe. A place that the store has never given, such as the
//! checkpoint of another store, is refused: [`ErrorKind::BeyondEnd`].
//!
//! *Manage.* Streams can be truncated, deleted and tombstoned. A [`SnapshotStore`] keeps the latest
//! snapshot of a stream, as long as its events are not deleted, a [`CheckpointStore`] the last position of a subscriber, and a
//! [`LeaseStore`] which one of several processes may do a piece of work.
//!
//! *Move.* A [`TransferStore`] lists its streams, and imports events that another store recorded,
//! at the same versions. An import can be repeated.
//!
//! If a store cannot do something, it declares that in its [`Capabilities`] and refuses the call
//! with [`ErrorKind::Unsupported`]. The [`contract`] says all of this rule by rule, and why; where the
//! documentation names a rule by its number, it is there. The crate `annals-conformance` tests it.
//!
//! # Writing an adapter
//!
//! Implement [`adapter::Adapter`] for your store. The store then has [`EventStore`] and all other
//! traits, with the checks and the error contexts that are the same for every store. Then run the
//! conformance suite.

pub mod adapter;
mod append;
mod capabilities;
pub mod contract;
mod error;
mod event;
mod expected;
mod info;
mod lease;
mod metadata;
mod name;
mod number;
mod payload;
mod read;
mod since;
mod sink;
mod store;
mod strict;
mod subscribe;
mod transfer;

pub use append::{Append, Appended};
pub use capabilities::{Capabilities, Recognition, Removal};
pub use error::{Conflict, Error, ErrorKind, Result};
pub use event::{NewEvent, RecordedEvent};
pub use expected::ExpectedVersion;
/// The methods with which an [`EventStream`] is read: `try_next`, `try_collect` and others.
pub use futures::TryStreamExt;
pub use info::{StreamInfo, StreamState};
pub use lease::{Candidate, LeaseRecord, LeaseStore};
pub use name::{
    Category, EventType, LeaseName, MAX_NAME_BYTES, StreamId, StreamPrefix, SubscriberId,
};
pub use number::{Position, Version};
pub use payload::{ContentKind, Payload};
pub use read::{Direction, EventStream, Filter, ReadAll, ReadStream};
pub use sink::Sink;
pub use store::{CheckpointStore, EventStore, EventStoreExt, Snapshot, SnapshotStore, Store};
pub use subscribe::{Message, Source, Start, Subscribe, Subscription};
pub use transfer::{PLACEHOLDER, TransferStore};
