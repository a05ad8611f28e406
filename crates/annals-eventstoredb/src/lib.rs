//! An annals store on EventStoreDB, 21.10 or newer, or KurrentDB, over gRPC.
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
//! An application that already has settings of the official client, or a client, passes them to
//! [`EventStoreDbStore::with_settings`] or [`EventStoreDbStore::with_client`]. The store has connections of
//! its own in any case: the client leaves Nagle's algorithm on, and so makes each append wait.
//!
//! # How annals maps to the server
//!
//! | annals | on the server |
//! |---|---|
//! | version 1 | revision 0 |
//! | position | commit position in `$all` |
//! | stream `order-42` | stream `order-42`, or `shop.order-42` in the namespace `shop` |
//! | category, prefix | a filter on stream names; no system projection has to run |
//! | truncation | the property `$tb` of the stream's metadata; other properties stay as they are |
//! | deletion, tombstone | the server's own |
//! | snapshot, checkpoint | one event in `$$annals.snapshot.order-42`, `$$annals.checkpoint.…` |
//! | lease | one event in `$$annals.lease.…` |
//!
//! The store keeps snapshots, checkpoints and leases in the metadata of streams whose ids begin
//! with `annals.snapshot.`, `annals.checkpoint.` or `annals.lease.`. Appends to such streams are
//! refused.
//!
//! # How it works
//!
//! * The server compares the expected version of an append, and recognises a retry: its events have
//!   the ids that stand at the revisions after the expected one. The server's answer to a retry is
//!   the same as to the first append, so [`Appended::replayed`](annals_core::Appended::replayed) is
//!   always false.
//! * The server also recognises events that were deleted or truncated since, and writes nothing. The
//!   store sends them again where the expectation holds, in a way in which the server does not look at
//!   ids; elsewhere the append is a conflict.
//! * Appends that expect a version, or no stream, share one call to the server.
//! * If the answer to an append is lost, the append is sent again if its expected version makes
//!   that safe; otherwise it fails with an unknown outcome. An append that cannot have been
//!   written, since there was no connection or the node was not the leader, is always sent again.
//!   Retries stop after [`EventStoreDbOptions::retry_for`].
//! * A read is one request. The server sends as fast as its answer is read, and a slow reader costs a
//!   page and up to 2 MiB that the server has sent ahead. After a lost connection the read goes on with the
//!   next event.
//! * A subscription is one on the server, which is made again after a lost connection, behind the last
//!   event and behind what the filter left out. One that waits costs no request, also while others write.
//!   If it has a filter, the server then also sends its own events, such as the links of its projections:
//!   what it leaves out is an event of an application, so the subscriber can be told of its position.
//! * The server applies as much of a filter as it can. The store applies the rest.
//! * In a cluster, everything that decides is asked of the leader. Reads and subscriptions of events go
//!   there, too, unless the settings prefer other nodes: see
//!   [`EventStoreDbStore::reads_may_lag`].
//!
//! # Events of other applications
//!
//! Events that other applications wrote are read as they are: with metadata that is not JSON;
//! system events; links, which are returned as events of the type `$>` and not followed. A name of
//! a stream or an event type may break the rules of annals (1 to 255 bytes, no control characters).
//! Reads of all leave out such an event and log a warning; reads of its stream fail.
//! [`EventStoreDbStore::export`] gives it, and [`EventStoreDbStore::resolve`] follows a link, for those
//! who move the events elsewhere, as `annals copy` does. [`EventStoreDbStore::system_stream`] tells which
//! streams of the server's own hold what somebody would miss there.
//!
//! # What surprises on a real server
//!
//! * Deleting a stream replaces its metadata: access lists, `$maxCount` and the properties of other
//!   applications are gone. The first append after it is followed by a record that makes the stream
//!   visible again; a reader in between may find no stream.
//! * Events that were deleted or truncated stay in reads of all until a scavenge. They show again in
//!   their stream if another application lowers `$tb`.
//! * A stream that has only metadata exists to the server: an append that expects the stream to exist
//!   succeeds. [`stream_info`](annals_core::EventStore::stream_info) calls it missing.
//! * An event needs an id that is not nil.
//! * The server limits an append, 1 MiB unless its `MaxAppendSize` says otherwise. Servers up to 23.10 count
//!   the data only, newer ones metadata and types as well. The store counts all of them, and refuses more
//!   than 1 MiB whatever the server takes.
//! * Settings of streams other than `$tb` (`$maxAge`, `$maxCount`, `$acl`) are the server's: the store keeps
//!   them, except in a deletion, and does not copy them elsewhere.
//! * There is no append to several streams at once. Newer servers have one, but compare the names of streams
//!   without case (`docs/adr/0006-eventstoredb.md`).
//! * A number at which no event stands is no place for the server to begin. The store finds the events
//!   before and behind it, for which it reads all streams backwards. The positions that the store gives
//!   out never need that.
//!
//! # What the server has to provide
//!
//! * Permission to read and write streams and their metadata. Every user has it unless access lists
//!   say otherwise. Reads of all and subscriptions to all also need permission to read `$all`,
//!   which administrators have.
//! * Positions in reads of one stream: servers send them from version 22.10 on. With an older
//!   server, events that were read from one stream have the position 0.

mod append;
mod batch;
mod codec;
mod config;
mod connect;
mod connection;
mod dial;
mod error;
mod export;
mod filter;
mod follow_all;
mod follow_stream;
mod manage;
mod message;
mod metadata;
mod names;
mod read;
mod reader;
mod records;
mod rpc;
mod server;
mod settings;
mod store;
mod subscribe;
mod subscription;
mod system;
mod tls;
mod url;

pub use config::{EventStoreDbConfig, EventStoreDbOptions};
pub use export::{Exported, ForeignEvent};
/// The client crate, in the version whose types this crate's API uses.
pub use kurrentdb;
pub use store::EventStoreDbStore;
pub use system::SystemStream;
