//! Appends: one append to a call (`single`), or several over one call (`batch`).
//!
//! `request` parses and limits an append, `write` writes it. `recent` recognises retries, `revival` does
//! what EventStoreDB does when a deleted stream is written to, and `empty` answers appends without events.

mod batch;
mod batch_error;
mod chunks;
mod empty;
mod recent;
mod request;
mod revival;
mod single;
mod write;

pub(crate) use batch::batch_append;
pub(crate) use request::{Limits, write_target};
pub(crate) use single::append;
pub(crate) use write::Appender;
// The simulated server answers in the same form.
#[cfg(feature = "like-eventstoredb-23-10")]
pub(crate) use {single::wrong_version, write::success};
