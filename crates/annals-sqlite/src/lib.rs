//! The event store of annals in an SQLite file: embedded, durable, no server to run.
//!
//! ```
//! # use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//! use annals_sqlite::{SqliteConfig, SqliteStore};
//! # #[tokio::main] async fn main() -> Result<()> {
//! let store = SqliteStore::open(SqliteConfig::in_memory()).await?; // or `new("events.db")`
//! let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
//! store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//! assert_eq!(store.load_stream(&StreamId::new("order-42")?).await?.len(), 1);
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! * One thread for each store makes all changes. Whatever waits for it goes into one transaction
//!   and so shares one wait for the disk; each change is judged by itself, and answered once it is
//!   committed.
//! * Positions are given under SQLite's write lock, so that the order of positions is the order of
//!   commits, and a subscription that reads on from its last position skips nothing.
//! * Reads are pages, each in a short transaction of its own, on connections of their own: they
//!   block no append, and no append blocks them.
//! * Several handles, and several processes, can use one file at the same time. Subscribers are
//!   woken at once by commits of their own process, and within about 10 ms by those of others.
//! * Filters are evaluated by SQLite while it goes through the positions: there is no index on
//!   types or categories, which would cost every append.
//!
//! # The file
//!
//! It is in WAL mode: SQLite keeps a `-wal` and a `-shm` file next to it while it is open, and needs
//! a local disk. The tables begin with [`SqliteConfig::prefix`], so that several stores share a file
//! with each other and with the application; do not write to them. The schema's version stands in
//! `{prefix}_meta`; `PRAGMA user_version` is left to the application.
//!
//! A retry under [`Any`](annals_core::ExpectedVersion::Any) or `StreamExists` is recognised while
//! the events of the first try are the last of their stream. What is truncated or deleted is gone
//! at once; SQLite keeps the space in the file for what comes next.

mod append;
mod busy;
mod config;
mod database;
mod error;
mod heads;
mod import;
mod inspect;
mod manage;
mod migrate;
mod notify;
mod queue;
mod read;
mod readers;
mod rows;
mod session;
mod sql;
mod store;
mod subscribe;
#[cfg(test)]
mod tests;
mod url;
mod writer;

pub use config::{Location, SqliteConfig, Synchronous};
pub use inspect::Inspection;
pub use store::SqliteStore;
