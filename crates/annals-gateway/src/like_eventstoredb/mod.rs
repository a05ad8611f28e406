//! For tests only: a server that behaves as EventStoreDB 23.10 does, also where the gateway differs from
//! it on purpose, and clusters of such servers.
//!
//! It keeps a log in memory and follows what a real 23.10.8 answered to recorded requests:
//!
//! * Events that were deleted or truncated stay in the log. A retry of such events is answered as done,
//!   without a position, and nothing is written.
//! * A tombstone is an event `$streamDeleted` at the greatest revision.
//! * Appends under `any` and `stream_exists` are judged by the id of their first event.
//! * Prefixes are compared by culture: none matches before a combining character.
//! * Reads of `$all` from a position that is no event's, nil ids and other requests that the server
//!   cannot take end with `UNKNOWN`.
//! * Where a name beyond ASCII would stand in a trailer, the answer is HTTP 500.
//! * A connection has at most 100 open calls.
//!
//! The gateway's program is built without this module.

mod batch;
mod cluster;
mod filter;
mod http_500;
mod log;
mod read;
mod service;

pub use cluster::{Cluster, Fault, Node, Role};
