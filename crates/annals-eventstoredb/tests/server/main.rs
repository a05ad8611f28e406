//! How the store does what it promises: a client that gave up is replaced, what may have been
//! written is told from what was not, a node that is no leader is left, what other applications
//! wrote is read. Each test has a gateway, or a scripted server, of its own in this process.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::result_large_err, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod foreign;
mod metadata;
mod namespaces;
mod nodes;
mod outage;
mod secrets;
mod tls;
mod tools;
