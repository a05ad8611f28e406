//! What the gateway promises beyond what clients of others can show: whom it lets in, how much it
//! takes, how it ends, and what its groups do when something goes wrong.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod binary;
mod common;
mod counting;
mod groups;
mod limits;
mod security;
mod shutdown;
mod streams;
