//! What the clients in `tests/clients` cannot show: who is let in, the limits, how the gateway
//! stops, and what groups do when something goes wrong.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod binary;
mod common;
mod counting;
mod groups;
mod limits;
mod linked;
mod security;
mod shutdown;
mod streams;
mod wire;
