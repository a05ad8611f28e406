//! What the name of a stream in a request stands for.

use annals_core::StreamId;
use tonic::Status;

use crate::{
    linked::LinkedStream,
    names::{stream_from_wire, text, to_wire},
    proto::shared::StreamIdentifier,
    status::access_denied,
    tombstones,
};

/// What a client can read under the name of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireStream {
    /// `$all`.
    All,
    /// Links to events of other streams, such as `$ce-order`.
    Linked(LinkedStream),
    /// Any other name: a stream, by its id in the store.
    Stream(StreamId),
}

impl WireStream {
    pub(crate) fn parse(name: Option<&StreamIdentifier>) -> Result<Self, Status> {
        let name = text(name)?;
        if name == "$all" {
            return Ok(Self::All);
        }
        match LinkedStream::parse(name) {
            Some(linked) => Ok(Self::Linked(linked)),
            None => stream_from_wire(name).map(Self::Stream),
        }
    }

    /// The name that clients use.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::All => "$all".to_owned(),
            Self::Linked(linked) => linked.name(),
            Self::Stream(stream) => to_wire(stream.as_str()).to_owned(),
        }
    }
}

/// The stream that a client appends to, deletes or tombstones: neither `$all` nor one of links.
pub(crate) fn writable_stream(name: Option<&StreamIdentifier>) -> Result<StreamId, Status> {
    match WireStream::parse(name)? {
        WireStream::Stream(stream) if is_writable(to_wire(stream.as_str())) => Ok(stream),
        other => Err(access_denied(&other.name())),
    }
}

/// False for the streams in which the gateway keeps records, and for the metadata of no stream.
fn is_writable(name: &str) -> bool {
    !tombstones::is_own(name) && name != "$$"
}
