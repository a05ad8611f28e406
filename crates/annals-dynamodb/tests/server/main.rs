//! How the store keeps the contract: a writer may die between any two requests, a subscriber misses
//! no event, failed requests are sent again, and requests cost what the documentation says. Each
//! test starts a server of its own in this process, and disturbs the requests to it.
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
mod hot;
mod open;
mod order;
mod removal;
mod restored;
mod retry;
mod throttle;
mod torn;
