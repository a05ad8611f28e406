//! Converts events and versions of annals to those of the protocol, and back.

use annals_core::{
    ContentKind, Error, ErrorKind, EventType, NewEvent, Payload, RecordedEvent, Result, StreamId,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{
    message::{EventData, ServerEvent, version_of},
    names::Names,
};

/// Converts an event to write. Data and metadata stay byte for byte what they are.
pub(crate) fn event_data(event: &NewEvent) -> Result<EventData> {
    let (data, is_json) = (event.data(), event.data().kind() == ContentKind::Json);
    if is_json && let Err(error) = std::str::from_utf8(data.bytes()) {
        let message = "the event's data is marked as JSON but is not UTF-8";
        return Err(Error::new(ErrorKind::InvalidInput, message).with_source(error));
    }
    Ok(EventData {
        id: event.id(),
        event_type: event.event_type().as_str().to_owned(),
        is_json,
        data: data.bytes().clone(),
        metadata: event.metadata().bytes().clone(),
    })
}

/// Converts an event that was read. `None` if its stream is in another namespace, or if another
/// application gave the stream or the event type a name that annals does not allow.
pub(crate) fn recorded(event: ServerEvent, names: &Names) -> Option<RecordedEvent> {
    let stream = names.stream_id(std::str::from_utf8(&event.stream).ok()?)?;
    recorded_in(stream, event)
}

/// Converts an event of this stream. `None` if its type has a name that annals does not allow.
pub(crate) fn recorded_in(stream: StreamId, event: ServerEvent) -> Option<RecordedEvent> {
    let event_type = EventType::new(std::str::from_utf8(&event.event_type).ok()?).ok()?;
    let recorded_at = DateTime::<Utc>::from_timestamp_micros(event.created / 10)?;
    let version = version_of(event.revision);
    let (data, metadata) = payloads(event.is_json, event.data, event.metadata);
    let new = NewEvent::from_stored(event.id, event_type, data, metadata);
    Some(new.recorded(stream, version, event.position, recorded_at))
}

/// Data and metadata of an event that was read.
pub(crate) fn payloads(is_json: bool, data: Bytes, metadata: Bytes) -> (Payload, Payload) {
    // Other applications may mark data as JSON that is none, so look at the bytes.
    let data = if is_json { Payload::inferred(data) } else { Payload::binary(data) };
    let metadata = if metadata.is_empty() { Payload::empty() } else { Payload::inferred(metadata) };
    (data, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_not_utf8_is_refused() {
        let data = Payload::from_stored(ContentKind::Json, &b"\"\xff\""[..]);
        let event = NewEvent::new(EventType::new("Odd").unwrap(), data);
        assert_eq!(event_data(&event).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
