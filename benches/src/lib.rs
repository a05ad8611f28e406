//! What the load program and the criterion benchmarks share: events, writers, and filled stores.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]

mod events;
mod fill;
mod writer;

pub use events::{EventGenerator, data, metadata};
pub use fill::{Shape, fill, filled_stream};
pub use writer::{STREAM_EVENTS, Writer};
