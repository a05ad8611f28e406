//! One interface to event stores, whatever database is behind them.
//!
//! [`connect`] opens any backend by its URL. What it returns is a [`Store`]: the
//! [`EventStore`] trait to append, read and subscribe, [`EventStoreExt`] for the conveniences, and
//! [`SnapshotStore`], [`CheckpointStore`] and [`LeaseStore`] beside it. An application that holds an
//! `Arc<dyn Store>` names its database in one place only, and that is a string.
//!
//! ```
//! # #[cfg(feature = "memory")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> annals::Result<()> {
//! use annals::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, StreamId, Subscribe};
//! use serde_json::json;
//!
//! let store = annals::connect("memory:").await?; // or "sqlite://shop.db"
//!
//! let placed = NewEvent::json("OrderPlaced", &json!({ "total": 40 }))?;
//! let appended = store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//!
//! // Only if nobody else has written since: else `ErrorKind::Conflict`, and nothing is written.
//! let paid = NewEvent::json("OrderPaid", &json!({ "cents": 4000 }))?;
//! store.append_to("order-42", appended.last_version, [paid]).await?;
//!
//! let events = store.load_stream(&StreamId::new("order-42")?).await?;
//! assert_eq!(events.len(), 2);
//!
//! // What is there already, then what comes; every event once, in order, for ever.
//! let mut subscription = store.subscribe(Subscribe::default()).await?;
//! assert_eq!(subscription.next_event().await?.event_type.as_str(), "OrderPlaced");
//! # Ok(()) }
//! # #[cfg(not(feature = "memory"))] fn main() {}
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | write events | [`NewEvent`], [`ExpectedVersion`], [`EventStore::append`] |
//! | write to several streams at once | [`EventStore::append_multi`] |
//! | read one stream, or all | [`EventStore::read_stream`], [`EventStore::read_all`], [`Filter`] |
//! | follow what happens | [`EventStore::subscribe`], [`Subscription`], [`Message`] |
//! | keep derived state | [`Snapshot`], [`SnapshotStore`], [`CheckpointStore`] |
//! | let one of several processes work at a time | [`Candidate`], [`LeaseStore`] |
//! | decide, evolve, project: what stands on top of a store | the module `domain` |
//! | know what to do after a failure | [`Error`], [`ErrorKind`] |
//! | know what a store can do | [`Capabilities`] |
//!
//! What every store promises stands in the documentation of `annals-core`, all of which is
//! re-exported here.
//!
//! # Features
//!
//! Each backend is a feature: `memory` and `sqlite`, both on by default, `postgres`, `dynamodb` and
//! `eventstoredb`. `domain`, on by default too, is the typed layer, to which `personal` adds data that
//! can be forgotten, and `opentelemetry` traces. A feature only adds. The typed configuration of a
//! backend, which says all that its URL can say, is in the module of its name.

#[cfg(all(doctest, feature = "domain", feature = "memory", feature = "sqlite"))]
mod book;
mod connect;

pub use annals_core::*;
pub use connect::connect;

/// Deciders, typed events, snapshots and projections, on any store: the feature `domain`.
#[cfg(feature = "domain")]
pub mod domain {
    pub use annals_domain::*;
}

/// The backend in memory: the feature `memory`.
#[cfg(feature = "memory")]
pub mod memory {
    pub use annals_memory::*;
}

/// The backend on SQLite: the feature `sqlite`.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use annals_sqlite::*;
}

/// The backend on PostgreSQL: the feature `postgres`.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use annals_postgres::*;
}

/// The backend on DynamoDB: the feature `dynamodb`.
#[cfg(feature = "dynamodb")]
pub mod dynamodb {
    pub use annals_dynamodb::*;
}

/// The backend on EventStoreDB and KurrentDB: the feature `eventstoredb`.
#[cfg(feature = "eventstoredb")]
pub mod eventstoredb {
    pub use annals_eventstoredb::*;
}

#[cfg(all(doctest, feature = "domain", feature = "memory", feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
