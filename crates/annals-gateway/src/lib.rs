//! Puts any annals event store behind the gRPC protocol of EventStoreDB and KurrentDB. Programs
//! that were written for these servers, in any language, use the store without a change.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use annals_gateway::{Gateway, GatewayOptions, Security};
//! let store = annals::connect("sqlite://shop.db").await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:2113").await?;
//! let gateway = Gateway::new(store, GatewayOptions::default().with_user("admin", "secret"));
//! let (certificates, key) = (std::fs::read_to_string("a.pem")?, std::fs::read_to_string("a.key")?);
//! let shutdown = async { drop(tokio::signal::ctrl_c().await) };
//! gateway.serve(listener, Security::Tls { certificates, key }, shutdown).await?;
//! # Ok(()) }
//! ```
//!
//! # What is served
//!
//! | service | what is served |
//! |---|---|
//! | Streams | Read (streams, `$all`, stream metadata, and streams of links such as `$ce-order`; with subscriptions, filters, checkpoints and links), Append, BatchAppend, Delete, Tombstone |
//! | PersistentSubscriptions | all calls, for all that can be read |
//! | Projections | the system projections are running: Statistics, Enable, Reset, RestartSubsystem |
//! | ServerFeatures, Gossip | a cluster of one node, the leader |
//! | `GET /health/live` over HTTP | 204 if the store answers, else 503 |
//!
//! All other calls answer `UNIMPLEMENTED`, and all other paths over HTTP 404.
//!
//! # What differs from EventStoreDB
//!
//! The answers are those of EventStoreDB 23.10.8, or 24.10 where the two differ. The book has a table of
//! all differences (`docs/book/src/gateway.md`). The most important ones:
//!
//! * Streams and types whose names begin with `$` are ordinary ones in the store, under names with
//!   `esdb:` in front. Every user may write to them: the gateway keeps the access lists in metadata,
//!   but does not apply them.
//! * The streams `$ce-`, `$et-`, `$bc-`, `$category-` and `$streams` are made when they are read. The
//!   revision of an entry is the position of its event in the store. Revisions rise and have gaps, and do
//!   not change when events are removed. No projection has to run. `$bc-` and `$streams` read all events.
//! * Truncated, deleted and tombstoned events are removed when the store removes them, without a
//!   scavenge. `$maxCount` and `$maxAge` hide events and remove none.
//! * A retry of an append to any revision is recognised if its events are among the last 50,000 since the
//!   gateway started, or if the store recognises it. Other appends to the stream may come in between.
//! * Several gateways can serve one store. One of them runs a group, and gives events to the consumers that
//!   are connected to it; consumers of the others wait until those have gone, or their gateway has been dead
//!   for 15 seconds.
//! * Positions are those of the store. A subscription or a group from a position of another server,
//!   beyond the store's last one, is refused. The old number of an event in a `$ce-` stream is the
//!   number of events before it: read that many events of the category to find its position.
//! * One append has at most 1 MiB of data, unless [`GatewayOptions`] or the store set another limit, and
//!   as many events as the store takes, mostly 10,000.

#![allow(clippy::result_large_err, reason = "services of tonic return its Status")]

mod append;
mod auth;
mod call_layer;
mod cluster;
mod command;
mod delete;
mod filter;
#[cfg(feature = "like-eventstoredb-23-10")]
#[doc(hidden)]
pub mod like_eventstoredb;
mod linked;
mod metadata;
mod names;
mod open_calls;
mod options;
mod persistent;
#[doc(hidden)]
pub use annals_eventstoredb_proto as proto;
mod projections;
mod read;
mod request_memory;
mod server;
mod socket;
mod status;
mod streams;
mod tombstones;
mod wire;
mod wire_stream;

pub use command::{main, main_with};
pub use options::{GatewayOptions, Security};
pub use server::Gateway;
