//! The messages and services of the gRPC protocol of EventStoreDB and KurrentDB, as far as annals
//! needs them. They are generated from `proto/`, both for clients and for servers.
//!
//! This crate is below `annals-eventstoredb`, a client of the protocol, and `annals-gateway`, a
//! server. It changes whenever these two need it.

mod generated;

pub use generated::event_store::client::{
    self as shared, gossip, persistent_subscriptions as persistent, server_features, streams,
};
pub use generated::google;
