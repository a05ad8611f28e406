//! What the benchmarks share: the events they write, and stores that are full of them.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]

mod events;
mod fill;
mod writer;

pub use events::{Events, data, metadata};
pub use fill::{Shape, fill, filled_stream};
pub use writer::{STREAM_EVENTS, Writer};
