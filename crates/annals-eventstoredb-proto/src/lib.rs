//! The messages and services of the gRPC protocol of EventStoreDB and KurrentDB, as far as annals
//! needs them, both for clients and for servers. The program in `generate/` generates them from `proto/`.
//!
//! This crate is below `annals-eventstoredb`, a client of the protocol, and `annals-gateway`, a
//! server. It changes whenever these two need it.

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction, rust_2018_idioms)]
mod generated;
pub mod header;

pub use generated::event_store::client::{
    self as shared, gossip, persistent_subscriptions as persistent, projections, server_features,
    streams,
};
pub use generated::google;
