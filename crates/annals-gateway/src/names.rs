//! What streams and types are called on the wire, and in the store.
//!
//! A store keeps names that begin with `$` for itself, and EventStoreDB lets applications write to
//! some of them: the metadata of `order-1` is the stream `$$order-1`. In the store these have a
//! prefix, so that they are streams like any other, with versions and positions of their own.

use annals_core::{Category, EventType, StreamId};
use tonic::Status;

use crate::proto::shared::StreamIdentifier;

/// What stands in the store before a name that begins with `$`.
const PREFIX: &str = "esdb:";

/// What a client reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `$all`.
    All,
    /// `$ce-order`: links to the events of a category.
    Category(Category),
    /// A stream, by its id in the store.
    Stream(StreamId),
}

impl Target {
    pub(crate) fn of(name: Option<&StreamIdentifier>) -> Result<Self, Status> {
        let name = text(name)?;
        if name == "$all" {
            return Ok(Self::All);
        }
        if let Some(category) = name.strip_prefix("$ce-") {
            let category = Category::new(category).map_err(|e| invalid(&e))?;
            return Ok(Self::Category(category));
        }
        stream_in(name).map(Self::Stream)
    }

    /// What clients call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::All => "$all".to_owned(),
            Self::Category(category) => format!("$ce-{category}"),
            Self::Stream(stream) => out(stream.as_str()).to_owned(),
        }
    }
}

/// The stream that a client writes to.
pub(crate) fn writable(name: Option<&StreamIdentifier>) -> Result<StreamId, Status> {
    match Target::of(name)? {
        Target::Stream(stream) => Ok(stream),
        other => {
            let message = format!("{} is made by the server, and not written to", other.name());
            Err(Status::invalid_argument(message))
        }
    }
}

fn text(name: Option<&StreamIdentifier>) -> Result<&str, Status> {
    let name = name.ok_or_else(|| Status::invalid_argument("the name of the stream is missing"))?;
    let not_utf8 = |_| Status::invalid_argument("the name of the stream is not UTF-8");
    std::str::from_utf8(&name.stream_name).map_err(not_utf8)
}

/// The id in the store of a stream that has this name on the wire.
pub(crate) fn stream_in(name: &str) -> Result<StreamId, Status> {
    StreamId::new(inwards(name)?).map_err(|e| invalid(&e))
}

/// The type in the store of events that have this one on the wire.
pub(crate) fn type_in(name: &str) -> Result<EventType, Status> {
    EventType::new(inwards(name)?).map_err(|e| invalid(&e))
}

fn inwards(name: &str) -> Result<String, Status> {
    if name.starts_with('$') {
        return Ok(format!("{PREFIX}{name}"));
    }
    if is_prefixed(name) {
        let message = format!("names that begin with `{PREFIX}$` belong to the gateway");
        return Err(Status::invalid_argument(message));
    }
    Ok(name.to_owned())
}

fn is_prefixed(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|name| name.starts_with('$'))
}

/// What has this name in the store has that one on the wire.
pub(crate) fn out(name: &str) -> &str {
    if is_prefixed(name) { &name[PREFIX.len()..] } else { name }
}

pub(crate) fn identifier(stream: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: stream.to_owned().into() }
}

/// The stream in the store that has the metadata of this one, which has none if it is one itself.
pub(crate) fn metadata_of(stream: &StreamId) -> Option<StreamId> {
    let name = out(stream.as_str());
    if name.starts_with("$$") { None } else { stream_in(&format!("$${name}")).ok() }
}

/// The stream whose metadata is in this one.
pub(crate) fn described_by(stream: &StreamId) -> Option<StreamId> {
    stream_in(out(stream.as_str()).strip_prefix("$$")?).ok()
}

fn invalid(error: &annals_core::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_there_and_back() {
        for name in ["order-1", "$settings", "$$order-1", "$$$settings", "esdb:order", "esdb:"] {
            let stream = stream_in(name).unwrap();
            assert!(!stream.is_system(), "{name}");
            assert_eq!(out(stream.as_str()), name);
        }
        assert!(stream_in("esdb:$settings").is_err());
        assert!(stream_in("").is_err());
    }

    #[test]
    fn metadata_has_a_stream_of_its_own() {
        let stream = stream_in("order-1").unwrap();
        let metadata = metadata_of(&stream).unwrap();
        assert_eq!(out(metadata.as_str()), "$$order-1");
        assert_eq!(described_by(&metadata), Some(stream.clone()));
        assert_eq!((metadata_of(&metadata), described_by(&stream)), (None, None));
    }
}
