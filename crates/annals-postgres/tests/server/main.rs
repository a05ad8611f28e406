//! Tests that need a real PostgreSQL server. If there is none, they are ignored with the reason, or
//! fail if `ANNALS_REQUIRE` names `postgres`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod append_in;
mod beside;
mod child;
mod common;
mod contention;
mod dump;
mod faults;
mod import;
mod literals;
mod live;
mod load;
mod lock;
mod order;
mod page;
mod plans;
mod pool;
mod pooler;
mod privileges;
mod projection;
mod recovery;
mod schema;
mod sessions;
mod standby;
mod strangers;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(ended) = child::run() {
        return ended;
    }
    common::run([
        append_in::TESTS,
        dump::TESTS,
        contention::TESTS,
        faults::TESTS,
        import::TESTS,
        literals::TESTS,
        live::TESTS,
        order::TESTS,
        plans::TESTS,
        pool::TESTS,
        pooler::TESTS,
        privileges::TESTS,
        projection::TESTS,
        recovery::TESTS,
        schema::TESTS,
        sessions::TESTS,
        standby::TESTS,
        strangers::TESTS,
        tls::TESTS,
    ])
}
