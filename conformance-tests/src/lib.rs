#![doc = include_str!("../README.md")]
// A case fails by panicking, as every test does.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod alone;
mod case;
mod cases;
mod child;
mod harness;
mod history;
mod refuse;
mod run;
mod table;
mod tools;
mod watched;

/// The version of the suite: that of this crate. A case that is removed or gets another name makes
/// another major version, a new case another minor one.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use case::Case;
pub use cases::cases;
pub use harness::{BoxError, CORRUPT_EVENT, Fault, Harness};
pub use libtest_mimic::Arguments;
pub use run::{Outcome, main, run, run_case};
pub use table::{Counts, Table};
