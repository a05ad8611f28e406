//! Appends: one append to a call (`single`), or several over one call (`batch`).

mod batch;
mod batch_error;
mod recent;
mod single;
mod write;

pub(crate) use batch::batch_append;
pub(crate) use single::append;
pub(crate) use write::{Appender, write_target};
// The simulated server answers in the same form.
#[cfg(feature = "like-eventstoredb-23-10")]
pub(crate) use {single::wrong_version, write::success};
