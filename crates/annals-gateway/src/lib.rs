//! Puts any annals event store behind the gRPC protocol of EventStoreDB and KurrentDB: programs
//! written for those, in any language, swap their store without a change.
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
//! | service | calls |
//! |---|---|
//! | Streams | Read (streams, `$all`, `$ce-` categories, stream metadata; subscriptions, filters, checkpoints, links), Append, BatchAppend, Delete, Tombstone |
//! | PersistentSubscriptions | all calls, on a stream and on `$all` |
//! | ServerFeatures, Gossip | one node, the leader |
//! | `GET /health/live` | 204 while the store answers |
//!
//! Whatever else a client calls answers `UNIMPLEMENTED`.
//!
//! # What differs from EventStoreDB
//!
//! * Names that begin with `$` are names like any other in the store: they stand there with `esdb:`
//!   in front. Everybody may write to them; access lists in metadata are kept and not looked at.
//! * Revisions in `$ce-` streams are positions: they rise, and have gaps. Nothing has to be
//!   projected, and nothing shifts when events are removed.
//! * What is truncated, deleted or tombstoned is gone as the store declares it, without a scavenge.
//!   `$maxCount` and `$maxAge` only hide events.
//! * An append is as large as the store allows, 1 MiB unless set.

#![allow(clippy::result_large_err, reason = "what the services of tonic return is its Status")]

mod append;
mod auth;
mod cluster;
mod filter;
mod metadata;
mod names;
mod open;
mod persistent;
#[doc(hidden)]
pub mod proto;
mod request;
mod server;
mod socket;
mod source;
mod status;
mod streams;
mod wire;

pub use server::{Gateway, GatewayOptions, Security};
