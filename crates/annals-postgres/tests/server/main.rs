//! What only a real PostgreSQL shows. Ignored, with the reason, where none can be had, unless
//! `ANNALS_REQUIRE` names `postgres`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod common;
mod order;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::run([order::TESTS])
}
