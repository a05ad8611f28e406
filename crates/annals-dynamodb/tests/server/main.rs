//! How the store does what it promises: between which requests a writer may die, what becomes of
//! those it has stopped waiting for, what requests are tried again, and what they cost. Each test is
//! on a server of its own in this process, whose requests it disturbs.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod common;
mod cost;
mod death;
mod follow;
mod gate;
mod open;
mod order;
mod removal;
mod retry;
mod torn;
