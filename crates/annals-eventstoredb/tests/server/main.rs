//! What the conformance suite cannot provoke: servers that are gone or do not answer, answers that are
//! lost, nodes that are not the leader, events that other applications wrote. Each test has a
//! gateway, or a scripted server, of its own in this process.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::result_large_err, clippy::unwrap_used)]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod foreign;
mod metadata;
mod namespaces;
mod nodes;
mod outage;
mod real;
mod secrets;
mod tls;
mod tools;
