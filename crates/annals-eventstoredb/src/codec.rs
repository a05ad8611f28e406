//! Converts events, versions and expected versions of annals to those of the client, and back.

use annals_core::{
    ContentKind, Error, ErrorKind, EventType, ExpectedVersion, NewEvent, Payload, Position,
    RecordedEvent, Result, Version,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use kurrentdb::{
    CurrentRevision, EventData, RecordedEvent as ServerEvent, ResolvedEvent,
    StreamState as ExpectedState,
};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::names::Names;

/// The expected version in the server's terms. Versions count from 1, the server's revisions from
/// 0.
pub(crate) fn expected_state(expected: ExpectedVersion) -> ExpectedState {
    match expected {
        ExpectedVersion::Any => ExpectedState::Any,
        ExpectedVersion::StreamExists => ExpectedState::StreamExists,
        ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => {
            ExpectedState::NoStream
        }
        ExpectedVersion::Exact(version) => {
            // Versions are `u64`, the server's revisions `i64`. No stream is as long as either.
            let greatest = i64::MAX.unsigned_abs() - 1;
            ExpectedState::StreamRevision(version.minus(1).get().min(greatest))
        }
    }
}

/// The stream's version, from the error of an append whose expectation did not hold.
pub(crate) fn current_version(current: &CurrentRevision) -> Version {
    match current {
        CurrentRevision::Current(revision) => version_of(*revision),
        CurrentRevision::NoStream => Version::NONE,
    }
}

pub(crate) fn version_of(revision: u64) -> Version {
    Version::new(revision.saturating_add(1))
}

/// Converts an event to write. Data and metadata stay byte for byte what they are.
pub(crate) fn event_data(event: &NewEvent) -> Result<EventData> {
    let (data, event_type) = (event.data(), event.event_type().as_str());
    let written = match data.kind() {
        ContentKind::Json => json(event_type, data.bytes())?,
        ContentKind::Binary => EventData::binary(event_type, data.bytes().clone()),
    };
    let written = written.id(event.id());
    let metadata = event.metadata().bytes();
    Ok(if metadata.is_empty() { written } else { written.metadata(metadata.clone()) })
}

fn json(event_type: &str, text: &[u8]) -> Result<EventData> {
    let invalid = |message| Error::new(ErrorKind::InvalidInput, message);
    let text = std::str::from_utf8(text).map_err(|e| {
        invalid("the event's data is marked as JSON but is not UTF-8").with_source(e)
    })?;
    EventData::json(event_type, &Verbatim(text))
        .map_err(|e| invalid("the event's data cannot be written as JSON").with_source(e))
}

/// A JSON text that serde_json writes unchanged. `EventData::json` accepts only values to
/// serialise, and `RawValue` would trim the white space around the text.
struct Verbatim<'a>(&'a str);

/// The name by which serde_json recognises its own `RawValue` while serialising.
const RAW: &str = "$serde_json::private::RawValue";

impl Serialize for Verbatim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct(RAW, 1)?;
        raw.serialize_field(RAW, self.0)?;
        raw.end()
    }
}

/// The event that was read. A link is returned as the event that it is, not as the one it points
/// to.
pub(crate) fn server_event(event: ResolvedEvent) -> Option<ServerEvent> {
    event.link.or(event.event)
}

/// The event's position in `$all`. Servers before 22.10 leave it out when one stream is read.
pub(crate) fn position(event: &ServerEvent) -> Position {
    match event.position.commit {
        u64::MAX => Position::START,
        commit => Position::new(commit),
    }
}

/// Converts an event that was read. `None` if its stream is in another namespace, or if another
/// application gave the stream or the event type a name that annals does not allow.
pub(crate) fn recorded(event: ServerEvent, names: &Names) -> Option<RecordedEvent> {
    // The client does not check that the name is UTF-8.
    let stream = std::str::from_utf8(event.stream_id().as_bytes()).ok()?;
    let stream = names.stream_id(stream)?;
    let event_type = EventType::new(&event.event_type).ok()?;
    let (position, recorded_at) = (position(&event), created(&event));
    let version = version_of(event.revision);
    // Other applications may mark data as JSON that is none, so look at the bytes.
    let data =
        if event.is_json { Payload::inferred(event.data) } else { Payload::binary(event.data) };
    let metadata = metadata(event.custom_metadata);
    let event = NewEvent::from_stored(event.id, event_type, data, metadata);
    Some(event.recorded(stream, version, position, recorded_at))
}

fn metadata(bytes: Bytes) -> Payload {
    if bytes.is_empty() { Payload::empty() } else { Payload::inferred(bytes) }
}

/// The client's `created` has whole seconds only. The metadata still has what the server sent: a
/// number of ticks of 100 ns.
fn created(event: &ServerEvent) -> DateTime<Utc> {
    let ticks = event.metadata.get("created").and_then(|ticks| ticks.parse::<i64>().ok());
    ticks.and_then(|ticks| DateTime::from_timestamp_micros(ticks / 10)).unwrap_or(event.created)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a new version of serde_json no longer writes such a text unchanged.
    #[test]
    fn json_is_written_byte_for_byte() {
        for text in [
            " {\"b\": 1.10,\n \"a\": \"\\u0000\", \"a\": 1e400} \t\r\n",
            "1",
            " null",
            "\"\u{1f980}\"",
            "[ ]\n",
        ] {
            assert_eq!(serde_json::to_vec(&Verbatim(text)).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn json_that_is_not_utf8_is_refused() {
        let data = Payload::from_stored(ContentKind::Json, &b"\"\xff\""[..]);
        let event = NewEvent::new(EventType::new("Odd").unwrap(), data);
        assert_eq!(event_data(&event).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
