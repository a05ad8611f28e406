//! The event store of annals in EventStoreDB, 21.10 or newer, or KurrentDB, over gRPC.
//!
//! ```no_run
//! # use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//! use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbStore};
//! # #[tokio::main] async fn main() -> Result<()> {
//! let config = EventStoreDbConfig::from_url("esdb://shop:secret@db.example:2113?namespace=shop")?;
//! let store = EventStoreDbStore::open(config).await?;
//! let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
//! store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//! assert_eq!(store.load_stream(&StreamId::new("order-42")?).await?.len(), 1);
//! # Ok(()) }
//! ```
//!
//! An application that has a `kurrentdb::Client` hands it over: [`EventStoreDbStore::with_client`].
//!
//! # What is what
//!
//! | here | on the server |
//! |---|---|
//! | version 1 | revision 0 |
//! | position | the commit position in `$all` |
//! | a stream `order-42` | the stream `order-42`, or `shop.order-42` in the namespace `shop` |
//! | a category, a prefix | a filter on the names of streams: no system projection has to run |
//! | truncation | the property `$tb` of the stream's metadata; the other properties stay |
//! | deletion, tombstone | the server's own |
//! | a snapshot, a checkpoint | one event in `$$annals.snapshot.order-42`, `$$annals.checkpoint.…` |
//! | a lease | one event in `$$annals.lease.…` |
//!
//! Streams whose id begins with `annals.snapshot.`, `annals.checkpoint.` or `annals.lease.` are not
//! written to: the metadata of those is where snapshots, checkpoints and leases are.
//!
//! # How it works
//!
//! * The expectation of an append is the server's own, and so is the recognition of a retry: by the
//!   ids of the events, at just the revisions expected. It does not tell a second answer from a
//!   first: [`Appended::replayed`](annals_core::Appended::replayed) is always false.
//! * An append whose answer is lost is sent again where the expectation makes it safe, and else
//!   fails with an unknown outcome. What cannot have been written, since no connection was there or
//!   the node was not the leader, is sent again in any case, for
//!   [`EventStoreDbOptions::retry_for`].
//! * A read is pages, one request each, and goes on where it was when the connection is lost.
//! * A subscription reads, and is woken by the server when there is more. Nothing is taken from the
//!   wake-up but the news itself, so that none can be missed, and a slow consumer costs a page.
//! * Filters run on the server. Where it can run no more than a part, the rest is left out here.
//!
//! # Other applications
//!
//! Events that others wrote are read as they are: metadata that is not JSON, links, which are events
//! of type `$>` and are not followed, system events. Where a stream or a type has a name that annals
//! does not have (255 bytes at most, no control characters), reads of all leave the event out, with
//! a warning, and reads of the stream itself fail.
//!
//! # What it needs of the server
//!
//! * The rights to read and write streams, and their metadata, which is what everybody has unless
//!   access lists say otherwise; to read and subscribe to all, the right to read `$all`, which
//!   administrators have.
//! * Positions of events in reads of one stream, which servers tell from 22.10 on. With older ones
//!   the position of an event that was read so is 0.

mod append;
mod codec;
mod config;
mod connection;
mod doorbell;
mod error;
mod filter;
mod keep;
mod manage;
mod metadata;
mod names;
mod read;
mod reader;
mod store;
mod subscribe;
mod url;
mod wire;

pub use config::{EventStoreDbConfig, EventStoreDbOptions};
/// The client, in the version whose types this crate's interface has.
pub use kurrentdb;
pub use store::EventStoreDbStore;
