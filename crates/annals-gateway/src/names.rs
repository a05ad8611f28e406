//! How clients name streams and event types, and how the store names them.
//!
//! An annals store reserves names that begin with `$`. EventStoreDB lets applications write to some
//! of them: the metadata of `order-1` is the stream `$$order-1`. The gateway writes such a name to
//! the store with a prefix, so that the stream is an ordinary one, with versions and positions.

use annals_core::{EventType, MAX_NAME_BYTES, StreamId};
use tonic::Status;
use uuid::Uuid;

use crate::proto::shared::StreamIdentifier;

/// The store has this before each name that begins with `$` on the wire.
pub(crate) const PREFIX: &str = "esdb:";
/// With this and the prefix, a stream can be called that is not an application's own, and whose name is
/// too long for the store: a digest of the name follows. So the metadata of the longest stream id has a
/// place, and so have the parked events of a group on it. Reads of all show such a stream under its short
/// name.
const SHORTENED: &str = "$#.";
/// Begins the names of the streams of groups, as EventStoreDB calls them.
pub(crate) const GROUP: &str = "$persistentsubscription-";

/// The name of a stream in a request.
pub(crate) fn text(name: Option<&StreamIdentifier>) -> Result<&str, Status> {
    let name = name.ok_or_else(|| Status::invalid_argument("the stream's name is missing"))?;
    let not_utf8 = |_| Status::invalid_argument("the stream's name is not UTF-8");
    std::str::from_utf8(&name.stream_name).map_err(not_utf8)
}

/// The store's id for a stream that clients call `name`.
pub(crate) fn stream_from_wire(name: &str) -> Result<StreamId, Status> {
    let mut id = from_wire(name)?;
    if id.len() > MAX_NAME_BYTES && (name.starts_with(GROUP) || described(name).is_some()) {
        id = format!("{PREFIX}{SHORTENED}{}", digest(name));
    }
    StreamId::new(id).map_err(|e| invalid(&e))
}

/// Stands for a name that is too long.
pub(crate) fn digest(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// The store's name for an event type that clients call `name`.
pub(crate) fn type_from_wire(name: &str) -> Result<EventType, Status> {
    EventType::new(from_wire(name)?).map_err(|e| invalid(&e))
}

fn from_wire(name: &str) -> Result<String, Status> {
    if name.starts_with('$') {
        return Ok(format!("{PREFIX}{name}"));
    }
    if is_prefixed(name) {
        let message = format!("names that begin with `{PREFIX}$` are reserved for the gateway");
        return Err(Status::invalid_argument(message));
    }
    Ok(name.to_owned())
}

fn is_prefixed(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|name| name.starts_with('$'))
}

/// The clients' name for a stream or an event type of the store.
pub(crate) fn to_wire(name: &str) -> &str {
    if is_prefixed(name) { &name[PREFIX.len()..] } else { name }
}

pub(crate) fn identifier(stream: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: stream.to_owned().into() }
}

/// The stream that holds the metadata of `stream`. A metadata stream has no metadata of its own.
pub(crate) fn metadata_stream(stream: &StreamId) -> Option<StreamId> {
    let name = to_wire(stream.as_str());
    if name.starts_with("$$") { None } else { stream_from_wire(&format!("$${name}")).ok() }
}

/// True if this is the stream of another stream's metadata.
pub(crate) fn is_metadata(stream: &StreamId) -> bool {
    to_wire(stream.as_str()).starts_with("$$")
}

/// The stream that a metadata stream describes. `None` if clients call no metadata stream `name`.
pub(crate) fn described_stream(name: Option<&StreamIdentifier>) -> Option<StreamId> {
    described(text(name).ok()?)
}

fn described(name: &str) -> Option<StreamId> {
    stream_from_wire(name.strip_prefix("$$")?).ok()
}

fn invalid(error: &annals_core::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_to_the_store_and_back() {
        for name in ["order-1", "$settings", "$$order-1", "$$$settings", "esdb:order", "esdb:"] {
            let stream = stream_from_wire(name).unwrap();
            assert!(!stream.is_system(), "{name}");
            assert_eq!(to_wire(stream.as_str()), name);
        }
        assert!(stream_from_wire("esdb:$settings").is_err());
        assert!(stream_from_wire("").is_err());
    }

    #[test]
    fn metadata_has_a_stream_of_its_own() {
        let stream = stream_from_wire("order-1").unwrap();
        let metadata = metadata_stream(&stream).unwrap();
        assert_eq!(to_wire(metadata.as_str()), "$$order-1");
        assert_eq!(described("$$order-1"), Some(stream));
        assert_eq!((metadata_stream(&metadata), described("order-1")), (None, None));
    }

    #[test]
    fn the_longest_streams_have_metadata_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for length in [MAX_NAME_BYTES - 8, MAX_NAME_BYTES - 7, MAX_NAME_BYTES - 1, MAX_NAME_BYTES] {
            for last in ["a", "b"] {
                let name = "x".repeat(length - 1) + last;
                let stream = stream_from_wire(&name).unwrap();
                let metadata = metadata_stream(&stream).unwrap();
                assert_eq!(stream_from_wire(&format!("$${name}")).unwrap(), metadata);
                assert_eq!(described(&format!("$${name}")), Some(stream));
                assert!(to_wire(metadata.as_str()).starts_with('$') && seen.insert(metadata));
            }
        }
        assert!(stream_from_wire(&format!("$${}", "x".repeat(MAX_NAME_BYTES + 1))).is_err());
    }
}
