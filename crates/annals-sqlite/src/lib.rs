//! The event store of annals in an SQLite file: embedded, durable, and without a server.
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
//! * Each store has one thread that makes all changes. It makes all changes that wait in one
//!   transaction, so that they share one wait for the disk. It judges each change by itself, and
//!   answers after the commit.
//! * A position is assigned while SQLite's write lock is held. So the order of positions is the
//!   order of commits, and a subscription that reads on from its last position skips nothing.
//! * A read is made of pages, each a short transaction on a connection that only reads. Reads block
//!   no append, and appends block no read.
//! * Several handles, and several processes, can use the same file at the same time. A subscription
//!   is woken at once by commits of its own process, and within about 10 ms by commits of others.
//! * SQLite evaluates filters while it scans the positions. There is no index on types or
//!   categories, because it would make every append more expensive.
//!
//! # The file
//!
//! The file is in WAL mode: while it is open, SQLite keeps a `-wal` and a `-shm` file beside it. It
//! must be on a local disk. The names of the tables begin with [`SqliteConfig::prefix`], so that
//! several stores and the application can share a file; do not write to these tables. The version
//! of the schema is in the table `{prefix}_meta`; `PRAGMA user_version` is left to the application.
//!
//! The application writes its own rows and events in one transaction by [`SqliteStore::append_with`].
//!
//! If the file or its directory cannot be written, the store can be read, and each change fails with
//! [`Denied`](annals_core::ErrorKind::Denied).
//!
//! If the file or its `-wal` file is moved, deleted or replaced while a store is open, every later
//! call fails with [`Incompatible`](annals_core::ErrorKind::Incompatible) until the store is opened
//! again (on Unix; other systems do not let an open file be moved). An open file whose bytes are
//! overwritten, as `cp backup.db events.db` does, is not noticed: SQLite then damages it.
//!
//! After the last handle was dropped or closed, the file alone has all events and can be copied. To
//! copy a file that is open, use `VACUUM INTO` or the command `.backup` of the sqlite3 shell.
//!
//! A retry under [`Any`](annals_core::ExpectedVersion::Any) or `StreamExists` is recognised as long
//! as the events of the first try are the last of their stream. Truncated and deleted events are
//! removed at once; SQLite reuses their space in the file.

mod append;
mod append_with;
mod busy;
mod config;
mod database;
mod engine;
mod error;
mod files;
mod import;
mod lifecycle;
mod manage;
mod migrate;
mod notify;
mod queue;
mod read;
mod read_only;
mod readers;
mod records;
mod rows;
mod runtime;
mod session;
#[cfg(feature = "projection")]
mod sink;
mod sql;
mod store;
mod subscribe;
#[cfg(test)]
mod tests;
mod url;
mod writer;

pub use config::{Location, SqliteConfig, Synchronous};
pub use lifecycle::Inspection;
/// The driver, in the version whose types [`SqliteStore::append_with`] uses.
pub use rusqlite;
#[cfg(feature = "projection")]
pub use sink::{SqliteSink, SqliteTransaction};
pub use store::SqliteStore;
