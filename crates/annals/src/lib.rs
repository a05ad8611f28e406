//! One interface to event stores, whatever database is behind them.
//!
//! [`connect`] opens a store by its URL, on any backend. It returns a [`Store`]: [`EventStore`]
//! appends, reads and subscribes, [`EventStoreExt`] adds conveniences, and [`SnapshotStore`],
//! [`CheckpointStore`], [`LeaseStore`] and [`TransferStore`] stand beside it. An application that
//! holds an `Arc<dyn Store>` names its database in one place only, and that is a string.
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
//! // Expects the version that the first append returned. If another writer has appended to the
//! // stream since, this fails with `ErrorKind::Conflict`, and nothing is written.
//! let paid = NewEvent::json("OrderPaid", &json!({ "cents": 4000 }))?;
//! store.append_to("order-42", appended.last_version, [paid]).await?;
//!
//! let events = store.load_stream(&StreamId::new("order-42")?).await?;
//! assert_eq!(events.len(), 2);
//!
//! // Delivers the events that are stored, then every new one: each once, in order.
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
//! | open a store | [`connect`], [`connect_with`], [`StoreUrl`], [`Backend`] |
//! | open stores of a backend that annals does not know | [`register`] |
//! | write events | [`NewEvent`], [`ExpectedVersion`], [`EventStore::append`] |
//! | write to several streams at once | [`EventStore::append_multi`] |
//! | read one stream, or all | [`EventStore::read_stream`], [`EventStore::read_all`], [`Filter`] |
//! | follow new events | [`EventStore::subscribe`], [`Subscription`], [`Message`] |
//! | keep derived state | [`Snapshot`], [`SnapshotStore`], [`CheckpointStore`] |
//! | let one of several processes work at a time | [`Candidate`], [`LeaseStore`] |
//! | copy events with their ids, versions and times | [`TransferStore`] |
//! | write deciders, typed events and projections | [`domain`] |
//! | decide what to do after a failure | [`Error`], [`ErrorKind`] |
//! | find out what a store can do | [`Capabilities`] |
//!
//! The documentation of `annals-core` says what every store promises. This crate re-exports all of
//! `annals-core`.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `memory` | yes | stores in memory |
//! | `sqlite` | yes | stores in SQLite files; SQLite is compiled, which takes a C compiler |
//! | `postgres` | no | stores in PostgreSQL, by `sqlx` |
//! | `marten` | no | the event tables of a .NET program with Marten, by `sqlx` |
//! | `dynamodb` | no | stores in DynamoDB, by the SDK of AWS |
//! | `eventstoredb` | no | stores in EventStoreDB and KurrentDB, by their gRPC client |
//! | `domain` | yes | the typed layer: deciders, typed events, snapshots, projections |
//! | `personal` | no | personal data that can be forgotten; turns on `domain` |
//! | `opentelemetry` | no | traces of the typed layer; turns on `domain` |
//!
//! A feature only adds API. The module of a backend has its typed configuration, which can say all
//! that a URL can say.

mod backend;
#[cfg(all(doctest, feature = "domain", feature = "memory", feature = "sqlite"))]
mod book;
mod connect;
mod mode;
mod register;
mod scheme;
mod url;

pub use annals_core::*;
pub use backend::Backend;
pub use connect::{connect, connect_with};
pub use mode::OpenMode;
pub use register::{Opener, Registered, register};
pub use url::StoreUrl;

/// The typed layer: deciders, typed events, snapshots and projections, on any store. Feature
/// `domain`.
#[cfg(feature = "domain")]
pub mod domain {
    pub use annals_domain::*;

    /// Projections, and the sinks that they write into.
    pub mod projection {
        pub use annals_domain::projection::*;

        /// Projections into SQLite: the feature `sqlite`.
        #[cfg(feature = "sqlite")]
        pub mod sqlite {
            pub use annals_sqlite::{SqliteSink, SqliteTransaction, rusqlite};
        }

        /// Projections into PostgreSQL: the feature `postgres`.
        #[cfg(feature = "postgres")]
        pub mod postgres {
            pub use annals_postgres::{PostgresSink, sqlx};
        }
    }
}

/// Stores in memory. Feature `memory`.
#[cfg(feature = "memory")]
pub mod memory {
    pub use annals_memory::*;
}

/// Stores in SQLite files. Feature `sqlite`.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use annals_sqlite::*;
}

/// Stores in PostgreSQL. Feature `postgres`.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use annals_postgres::*;
}

/// The event tables of Marten. Feature `marten`.
#[cfg(feature = "marten")]
pub mod marten {
    pub use annals_marten::*;
}

/// Stores in DynamoDB. Feature `dynamodb`.
#[cfg(feature = "dynamodb")]
pub mod dynamodb {
    pub use annals_dynamodb::*;
}

/// Stores in EventStoreDB and KurrentDB. Feature `eventstoredb`.
#[cfg(feature = "eventstoredb")]
pub mod eventstoredb {
    pub use annals_eventstoredb::*;
}

#[cfg(all(doctest, feature = "domain", feature = "memory", feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
