//! One interface to event stores: the [`EventStore`] trait, the event types, and the errors.
//!
//! Applications depend on the crate `annals`, which re-exports all of this and connects to a
//! backend by its URL; adapters depend on this crate alone. It does no I/O and needs no runtime.
//!
//! # Words
//!
//! * A **stream** is an ordered list of events under one [`StreamId`]: usually one aggregate.
//! * A **category** is the part of a stream id before its first `-`: `order` of `order-42`.
//! * A [`Version`] is an event's place in its stream, from 1, without gaps.
//! * A [`Position`] is an event's place in the whole store: strictly increasing, not dense.
//! * An **append** is one atomic write of events to one stream or several.
//! * An [`ExpectedVersion`] is what the writer believes, checked when it writes.
//!
//! # What every store promises
//!
//! *Append.* All events of an append are written, next to each other, or none is. Of concurrent
//! appends that expect the same version just one succeeds; every other gets
//! [`ErrorKind::Conflict`]. [`ExpectedVersion::Any`] never conflicts. Retrying an append with the
//! same events and expectation returns the first answer and writes nothing. An append whose answer
//! was lost says so: [`Error::outcome_unknown`]. Dropping the future of an append leaves it done
//! whole or not at all.
//!
//! *Read.* What was appended is what is read, byte for byte. If append A had returned before append
//! B was called, A's positions are below B's; within a stream, position order is version order.
//! Reads are streamed, block no append, and never end early without an error.
//!
//! *Subscribe.* A [`Subscription`] gives every matching event after its start exactly once, in
//! order, first those there, then live ones. None is ever skipped, whatever commits out of order or
//! is rolled back. It survives lost connections, and `next` is cancel-safe.
//!
//! *Manage.* Streams can be truncated, deleted and tombstoned; a [`SnapshotStore`] keeps the latest
//! snapshot of a stream, a [`CheckpointStore`] the last position of a subscriber, a [`LeaseStore`]
//! who of several processes has something to itself.
//!
//! *Move.* What one store recorded another takes as it is, at the same versions: a [`TransferStore`]
//! lists the streams that there are, and imports events, again as often as one likes.
//!
//! What a store cannot do, it declares in its [`Capabilities`] and refuses with
//! [`ErrorKind::Unsupported`]. The crate `annals-conformance` checks all of it.
//!
//! # Writing an adapter
//!
//! Implement [`adapter::Adapter`] for your store: it then has [`EventStore`] and the other traits, with
//! all checks and errors that are the same for every store. Then run the conformance suite.

pub mod adapter;
mod append;
mod capabilities;
mod error;
mod event;
mod lease;
mod metadata;
mod name;
mod number;
mod payload;
mod read;
mod store;
mod subscribe;
mod transfer;

pub use append::{Append, Appended, ExpectedVersion};
pub use capabilities::{Capabilities, Recognition, Removal};
pub use error::{Conflict, Error, ErrorKind, Result};
pub use event::{NewEvent, RecordedEvent};
/// What reads an [`EventStream`]: `try_next`, `try_collect` and the like.
pub use futures::TryStreamExt;
pub use lease::{Candidate, LeaseRecord, LeaseStore};
pub use name::{
    Category, EventType, LeaseName, MAX_NAME_BYTES, StreamId, StreamPrefix, SubscriberId,
};
pub use number::{Position, Version};
pub use payload::{ContentKind, Payload};
pub use read::{Direction, EventStream, Filter, ReadAll, ReadStream};
pub use store::{
    CheckpointStore, EventStore, EventStoreExt, Snapshot, SnapshotStore, Store, StreamInfo,
    StreamState,
};
pub use subscribe::{Message, Source, Start, Subscribe, Subscription};
pub use transfer::{PLACEHOLDER, TransferStore};
