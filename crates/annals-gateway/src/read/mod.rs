//! Reads and subscriptions: of a stream, a category, or `$all`.
//!
//! `request` is what a client asks for; `stream` and `all` read, `subscribe` follows, and `links`
//! finds the events that links lead to. `call` drives them: it answers the call `Read`.

mod all;
mod call;
mod links;
mod request;
mod stream;
mod subscribe;

pub(crate) use call::ReadCall;
pub(crate) use links::LinkTarget;
pub(crate) use request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
