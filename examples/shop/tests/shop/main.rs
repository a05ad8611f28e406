//! The shop from end to end, on every store: in memory, on SQLite, and on those whose URLs stand,
//! parted by commas, in `ANNALS_SHOP_URLS`. In each, `{}` stands for a name of the test's own.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod command_line;
mod faulty;
mod interrupted;
mod runs;
mod stores;
