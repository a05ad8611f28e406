//! Events as JSON lines: each line is one complete event.
//!
//! A JSON payload stands in the line byte for byte (`data`). One that would change there, because it
//! has line breaks or surrounding blanks, is written as a JSON string (`data_text`), and a binary
//! payload in Base64 (`data_base64`). Bytes that are stored as JSON but are none, which clients of
//! EventStoreDB may write, are written in Base64, too (`data_json_base64`). So every payload is read
//! back byte for byte, and of the same kind.
//!
//! The first event after a deletion of its stream says up to which version the stream was deleted
//! (`deleted_at`), so that an import can tell the versions before it from missing ones.

use std::borrow::Cow;

use annals::{
    ContentKind, EventType, NewEvent, Payload, Position, RecordedEvent, StreamId, Version,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use uuid::Uuid;

/// An event as a file has it. A field that the file leaves out is `None`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) stream: Option<StreamId>,
    pub(crate) version: Option<Version>,
    /// The version up to which the stream was deleted before this event.
    pub(crate) deleted_at: Option<Version>,
    pub(crate) position: Option<Position>,
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    pub(crate) id: Option<Uuid>,
    pub(crate) event_type: EventType,
    pub(crate) data: Payload,
    pub(crate) metadata: Payload,
}

impl Entry {
    pub(crate) fn into_new(self) -> NewEvent {
        let id = self.id.unwrap_or_else(Uuid::now_v7);
        NewEvent::from_stored(id, self.event_type, self.data, self.metadata)
    }

    /// The event as it was recorded. The error is the name of a field that is missing.
    pub(crate) fn into_recorded(self) -> Result<RecordedEvent, &'static str> {
        let (stream, version) =
            (self.stream.clone().ok_or("stream")?, self.version.ok_or("version")?);
        let (position, at) = (self.position.ok_or("position")?, self.recorded_at.ok_or("time")?);
        self.id.ok_or("id")?;
        Ok(self.into_new().recorded(stream, version, position, at))
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    stream: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    data_text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_json_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    metadata_text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_json_base64: Option<Cow<'a, str>>,
}

/// Reads a member that is present as `Some`, even if its value is `null`: `null` is a payload.
pub(crate) fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// How a payload is represented in a line. `Nothing` stands for no bytes.
pub(crate) enum EncodedPayload<'a> {
    Nothing,
    Raw(&'a RawValue),
    Text(&'a str),
    Base64(String),
    /// In Base64: the kind is JSON, the bytes are not.
    NotJson(String),
}

impl<'a> EncodedPayload<'a> {
    pub(crate) fn of(payload: &'a Payload) -> Self {
        let bytes = payload.bytes();
        let base64 = || BASE64_STANDARD.encode(bytes);
        match (payload.kind(), std::str::from_utf8(bytes)) {
            (ContentKind::Json, Ok(text)) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
                raw(text).map_or(Self::Text(text), Self::Raw)
            }
            (ContentKind::Json, _) => Self::NotJson(base64()),
            (ContentKind::Binary, _) if bytes.is_empty() => Self::Nothing,
            (ContentKind::Binary, _) => Self::Base64(base64()),
        }
    }
}

/// A payload as members of a line: `data`, `data_text`, `data_base64`, `data_json_base64`, of which at
/// most one is set.
type Members<'a> =
    (Option<&'a RawValue>, Option<Cow<'a, str>>, Option<Cow<'a, str>>, Option<Cow<'a, str>>);

impl<'a> EncodedPayload<'a> {
    fn members(self) -> Members<'a> {
        match self {
            Self::Nothing => (None, None, None, None),
            Self::Raw(raw) => (Some(raw), None, None, None),
            Self::Text(text) => (None, Some(text.into()), None, None),
            Self::Base64(text) => (None, None, Some(text.into()), None),
            Self::NotJson(text) => (None, None, None, Some(text.into())),
        }
    }
}

/// A JSON text as a value inside a line, or `None` if it would be read back differently.
fn raw(text: &str) -> Option<&RawValue> {
    // A line break would end the line. The parser drops blanks around a value.
    if text.contains(['\n', '\r']) || text.trim() != text {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Writes an event as a line, with the line break. `deleted_at` is the version up to which the stream
/// was deleted before it.
pub(crate) fn write(
    event: &RecordedEvent,
    deleted_at: Option<Version>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let (data, data_text, data_base64, data_json_base64) =
        EncodedPayload::of(&event.data).members();
    let (metadata, metadata_text, metadata_base64, metadata_json_base64) =
        EncodedPayload::of(&event.metadata).members();
    let line = Line {
        stream: Some(event.stream.as_str().into()),
        version: Some(event.version.get()),
        deleted_at: deleted_at.map(Version::get),
        position: Some(event.position.get()),
        recorded_at: Some(time(event.recorded_at).into()),
        id: Some(event.id),
        event_type: event.event_type.as_str().into(),
        data,
        data_text,
        data_base64,
        data_json_base64,
        metadata,
        metadata_text,
        metadata_base64,
        metadata_json_base64,
    };
    serde_json::to_writer(&mut *out, &line).map_err(|e| e.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// A time in RFC 3339: UTC, with six digits of microseconds.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|e| format!("{text:?} is no time such as 2026-01-31T12:00:00Z: {e}"))?;
    Ok(time.to_utc().trunc_subsecs(6))
}

/// Reads a line. The error says why it is no event.
pub(crate) fn parse(line: &str) -> Result<Entry, String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let data =
        payload("data", (line.data, line.data_text, line.data_base64, line.data_json_base64))?;
    let metadata = payload(
        "metadata",
        (line.metadata, line.metadata_text, line.metadata_base64, line.metadata_json_base64),
    )?;
    Ok(Entry {
        stream: line.stream.map(StreamId::new).transpose().map_err(|e| e.to_string())?,
        version: line.version.map(Version::new),
        deleted_at: line.deleted_at.map(Version::new),
        position: line.position.map(Position::new),
        recorded_at: line.recorded_at.map(|time| parse_time(&time)).transpose()?,
        id: line.id,
        event_type: EventType::new(line.event_type).map_err(|e| e.to_string())?,
        data,
        metadata,
    })
}

fn payload(name: &str, members: Members<'_>) -> Result<Payload, String> {
    match members {
        (None, None, None, None) => Ok(Payload::empty()),
        (Some(raw), None, None, None) => {
            Ok(Payload::from_stored(ContentKind::Json, raw.get().as_bytes().to_vec()))
        }
        (None, Some(text), None, None) => {
            Payload::json_text(text.into_owned()).map_err(|e| format!("{name}_text: {e}"))
        }
        (None, None, Some(base64), None) => {
            decode(&base64).map(Payload::binary).map_err(|e| format!("{name}_base64: {e}"))
        }
        (None, None, None, Some(base64)) => decode(&base64)
            .map(|bytes| Payload::from_stored(ContentKind::Json, bytes))
            .map_err(|e| format!("{name}_json_base64: {e}")),
        _ => Err(format!(
            "the line has more than one of {name}, {name}_text, {name}_base64 and \
             {name}_json_base64"
        )),
    }
}

pub(crate) fn decode(base64: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(base64).map_err(|e| format!("not valid Base64: {e}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn odd() -> Vec<RecordedEvent> {
        let json = |text: &str| Payload::json_text(text.to_owned()).unwrap();
        let not_json = |bytes: &[u8]| Payload::from_stored(ContentKind::Json, bytes.to_vec());
        let payloads = [
            json("null"),
            json("{ \"b\" : 1.50e+2, \"a\":\"\\u0000\\ud800 \", \"a\": null }"),
            json(" 7"),
            json("[1,\n 2]\r\n"),
            json("\"\u{2028}\""),
            Payload::binary("{}"),
            Payload::binary(vec![0, 255, 10]),
            Payload::empty(),
            not_json(b"not json"),
            not_json(b"\xff{}"),
            not_json(b""),
            not_json(b"\xef\xbb\xbf{}"),
            not_json(b"{}\n{}"),
        ];
        let at = DateTime::from_timestamp_micros(1_600_000_000_123_456).unwrap();
        let mut events = Vec::new();
        for data in &payloads {
            for metadata in &payloads {
                let version = Version::new(events.len() as u64 + 1);
                let event_type = EventType::new("a \"type\"").unwrap();
                let event = NewEvent::from_stored(
                    Uuid::now_v7(),
                    event_type,
                    data.clone(),
                    metadata.clone(),
                );
                let stream = StreamId::new(" ä\\-1").unwrap();
                events.push(event.recorded(stream, version, version.get().into(), at));
            }
        }
        events
    }

    #[test]
    fn what_was_written_is_read() {
        for event in odd() {
            let mut line = Vec::new();
            let deleted_at = event.version.get().checked_sub(7).map(Version::new);
            write(&event, deleted_at, &mut line).unwrap();
            let line = String::from_utf8(line).unwrap();
            assert_eq!(line.lines().count(), 1, "{line}");
            let read = parse(line.trim_end_matches('\n')).unwrap();
            assert_eq!(read.deleted_at, deleted_at, "{line}");
            assert_eq!(read.into_recorded().unwrap(), event, "{line}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (line, due) in [
            ("{}", "missing field `type`"),
            ("{\"type\":\"a\",\"dat\":1}", "unknown field `dat`"),
            ("{\"type\":\"a\",\"data\":1,\"data_base64\":\"\"}", "more than one of data"),
            ("{\"type\":\"a\",\"data_base64\":\"*\"}", "not valid Base64"),
            ("{\"type\":\"a\",\"data_text\":\"{\"}", "data_text"),
            ("{\"type\":\"a\",\"recorded_at\":\"noon\"}", "is no time"),
            ("{\"type\":\"a\",\"stream\":\"\"}", "stream id"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(due), "{line}: {error}");
        }
        let error =
            parse("{\"type\":\"a\",\"stream\":\"b\"}").unwrap().into_recorded().unwrap_err();
        assert_eq!(error, "version");
    }
}
