//! The protocol's messages and services, generated from `proto/`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    rust_2018_idioms
)]

include!(concat!(env!("OUT_DIR"), "/proto.rs"));

pub use event_store::client::{
    self as shared, gossip, persistent_subscriptions as persistent, server_features, streams,
};
