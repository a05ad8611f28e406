//! The order over all streams: a log of numbered slots. Each slot is written once: by the
//! transaction that also writes the events, or by a reader that closes a slot which stayed empty.
//!
//! `docs/adr/0005-dynamodb.md` explains why no reader skips an event.

mod counter;
mod reader;
mod settle;
mod share;
mod slots;
mod tail;
mod wait;

pub(crate) use reader::SlotReader;
pub(crate) use slots::Log;
