//! Events as the client has them, and as annals does.

use annals_core::{
    ContentKind, Error, ErrorKind, EventType, NewEvent, Payload, Position, RecordedEvent, Result,
    Version,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use kurrentdb::{EventData, RecordedEvent as Stored, ResolvedEvent};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::names::Names;

/// An event to be written: data and metadata byte for byte.
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
    let text = std::str::from_utf8(text)
        .map_err(|e| invalid("data that is said to be JSON is not UTF-8").with_source(e))?;
    EventData::json(event_type, &Verbatim(text))
        .map_err(|e| invalid("the data cannot be written as JSON").with_source(e))
}

/// A JSON text that serde_json writes as it is. `EventData::json` takes nothing but a value to be
/// serialised, and `RawValue` would trim the white space around the text.
struct Verbatim<'a>(&'a str);

/// What serde_json calls a `RawValue` among itself.
const RAW: &str = "$serde_json::private::RawValue";

impl Serialize for Verbatim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct(RAW, 1)?;
        raw.serialize_field(RAW, self.0)?;
        raw.end()
    }
}

/// The event that was read, be it a link to another one.
pub(crate) fn stored(event: ResolvedEvent) -> Option<Stored> {
    event.link.or(event.event)
}

/// The place of an event in `$all`. Servers before 22.10 do not tell it in reads of one stream.
pub(crate) fn position(event: &Stored) -> Position {
    match event.position.commit {
        u64::MAX => Position::START,
        commit => Position::new(commit),
    }
}

/// An event as it was recorded; nothing where it belongs to somebody else, or where another
/// application gave it a name that annals does not have.
pub(crate) fn recorded(event: Stored, names: &Names) -> Option<RecordedEvent> {
    // The client has not looked whether it is UTF-8.
    let stream = std::str::from_utf8(event.stream_id().as_bytes()).ok()?;
    let stream = names.stream_id(stream)?;
    let event_type = EventType::new(&event.event_type).ok()?;
    let (position, recorded_at) = (position(&event), created(&event));
    let version = Version::new(event.revision.saturating_add(1));
    // Other applications are free to say that something is JSON.
    let data =
        if event.is_json { Payload::inferred(event.data) } else { Payload::binary(event.data) };
    let metadata = metadata(event.custom_metadata);
    let event = NewEvent::from_stored(event.id, event_type, data, metadata);
    Some(event.recorded(stream, version, position, recorded_at))
}

fn metadata(bytes: Bytes) -> Payload {
    if bytes.is_empty() { Payload::empty() } else { Payload::inferred(bytes) }
}

/// The client cuts the time to seconds; what the server said is still there, in units of 100 ns.
fn created(event: &Stored) -> DateTime<Utc> {
    let ticks = event.metadata.get("created").and_then(|ticks| ticks.parse::<i64>().ok());
    ticks.and_then(|ticks| DateTime::from_timestamp_micros(ticks / 10)).unwrap_or(event.created)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where a new serde_json writes such a text in another way.
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
    fn what_is_not_utf8_is_no_json() {
        let data = Payload::from_stored(ContentKind::Json, &b"\"\xff\""[..]);
        let event = NewEvent::new(EventType::new("Odd").unwrap(), data);
        assert_eq!(event_data(&event).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
