//! Events as CloudEvents 1.0 in the JSON format, one on a line.
//!
//! `id`, `type`, `time`, `subject` (the stream), `data` and `data_base64` are attributes of the
//! [specification](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
//! Extensions hold the rest: `annalsversion`, `annalsposition`, and the metadata, as a JSON text in
//! `annalsmeta` or in Base64 in `annalsmetab64`. A JSON payload that would change inside a line is
//! written to `data_base64`; the content type says that it is JSON.

use std::borrow::Cow;

use annals::{EventType, Payload, Position, RecordedEvent, StreamId, Version};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::lines::{self, EncodedPayload, Entry};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

#[derive(Deserialize, Serialize)]
struct CloudEvent<'a> {
    specversion: Cow<'a, str>,
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<Cow<'a, str>>,
    // Strings, because an integer of CloudEvents has 32 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    annalsversion: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annalsposition: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    annalsmeta: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annalsmetab64: Option<Cow<'a, str>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "lines::some",
        skip_serializing_if = "Option::is_none"
    )]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Cow<'a, str>>,
}

/// Writes an event as a line, with the line break.
pub(crate) fn write(event: &RecordedEvent, out: &mut Vec<u8>) -> Result<(), String> {
    let (mut data, mut data_base64, mut content) = (None, None, Some(JSON.into()));
    match EncodedPayload::of(&event.data)? {
        EncodedPayload::Raw(raw) => data = Some(raw),
        EncodedPayload::Text(text) => data_base64 = Some(BASE64_STANDARD.encode(text).into()),
        EncodedPayload::Base64(base64) => {
            (data_base64, content) = (Some(base64.into()), Some(BYTES.into()))
        }
        EncodedPayload::Nothing => content = None,
    }
    let (mut meta, mut meta_base64) = (None, None);
    match EncodedPayload::of(&event.metadata)? {
        EncodedPayload::Raw(raw) => meta = Some(raw.get().into()),
        EncodedPayload::Text(text) => meta = Some(text.into()),
        EncodedPayload::Base64(base64) => meta_base64 = Some(base64.into()),
        EncodedPayload::Nothing => {}
    }
    let line = CloudEvent {
        specversion: "1.0".into(),
        id: event.id.to_string().into(),
        source: source(&event.stream).into(),
        event_type: event.event_type.as_str().into(),
        subject: Some(event.stream.as_str().into()),
        time: Some(lines::time(event.recorded_at).into()),
        datacontenttype: content,
        annalsversion: Some(event.version.to_string().into()),
        annalsposition: Some(event.position.to_string().into()),
        annalsmeta: meta,
        annalsmetab64: meta_base64,
        data,
        data_base64,
    };
    serde_json::to_writer(&mut *out, &line).map_err(|e| e.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// A `source` for each stream: CloudEvents requires an id to be unique within its source.
fn source(stream: &StreamId) -> String {
    let mut source = "/streams/".to_owned();
    for byte in stream.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                source.push(char::from(byte));
            }
            _ => source.push_str(&format!("%{byte:02X}")),
        }
    }
    source
}

/// Reads a line. The error says why it is no event. For an event of another program, the subject is
/// the stream, and an id that is no UUID is hashed to one.
pub(crate) fn parse(line: &str) -> Result<Entry, String> {
    let event: CloudEvent<'_> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if event.specversion != "1.0" {
        return Err(format!(
            "the line is CloudEvents {}; only 1.0 is supported",
            event.specversion
        ));
    }
    let number = |name: &str, text: Option<Cow<'_, str>>| {
        text.map(|text| text.parse::<u64>().map_err(|e| format!("{name}: {e}"))).transpose()
    };
    let id = Uuid::parse_str(&event.id).unwrap_or_else(|_| {
        Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{} {}", event.source, event.id).as_bytes())
    });
    let stream = event.subject.map(StreamId::new).transpose().map_err(|e| e.to_string())?;
    let metadata = match (event.annalsmeta, event.annalsmetab64) {
        (None, None) => Payload::empty(),
        (Some(text), None) => {
            Payload::json_text(text.into_owned()).map_err(|e| format!("annalsmeta: {e}"))?
        }
        (None, Some(base64)) => Payload::binary(lines::decode(&base64)?),
        _ => return Err("the line has both annalsmeta and annalsmetab64".to_owned()),
    };
    Ok(Entry {
        stream,
        version: number("annalsversion", event.annalsversion)?.map(Version::new),
        position: number("annalsposition", event.annalsposition)?.map(Position::new),
        recorded_at: event.time.map(|time| lines::parse_time(&time)).transpose()?,
        id: Some(id),
        event_type: EventType::new(event.event_type).map_err(|e| e.to_string())?,
        data: data(event.datacontenttype.as_deref(), event.data, event.data_base64)?,
        metadata,
    })
}

fn data(
    content: Option<&str>,
    data: Option<&RawValue>,
    base64: Option<Cow<'_, str>>,
) -> Result<Payload, String> {
    let media = content.unwrap_or(JSON).split(';').next().unwrap_or_default().trim();
    let is_json = media == JSON || media.ends_with("+json");
    match (data, base64) {
        (None, None) => Ok(Payload::empty()),
        (Some(raw), None) if is_json => {
            Payload::json_text(raw.get().to_owned()).map_err(|e| e.to_string())
        }
        // By the specification, the data of another media type is the content of a JSON string.
        (Some(raw), None) => serde_json::from_str::<String>(raw.get())
            .map(Payload::binary)
            .map_err(|e| format!("data of type {media} must be a string: {e}")),
        (None, Some(base64)) => {
            let bytes = lines::decode(&base64).map_err(|e| format!("data_base64: {e}"))?;
            if is_json {
                Payload::json_text(bytes).map_err(|e| format!("data_base64: {e}"))
            } else {
                Ok(Payload::binary(bytes))
            }
        }
        _ => Err("the line has both data and data_base64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for event in crate::lines::tests::odd() {
            let mut line = Vec::new();
            write(&event, &mut line).unwrap();
            let line = String::from_utf8(line).unwrap();
            let read = parse(line.trim_end()).unwrap().into_recorded().unwrap();
            assert_eq!(read, event, "{line}");
        }
    }

    #[test]
    fn takes_events_of_others() {
        let line = r#"{"specversion":"1.0","id":"A234-1234","source":"/mycontext","type":"x.y",
            "subject":"order-1","datacontenttype":"text/xml","data":"<much/>","comexample":"v"}"#;
        let event = parse(line).unwrap();
        assert_eq!(event.stream.as_ref().unwrap().as_str(), "order-1");
        assert_eq!(event.data, Payload::binary("<much/>"));
        assert_eq!(event.id, parse(line).unwrap().id);
        assert_eq!(event.into_recorded().unwrap_err(), "version");
        assert!(parse(&line.replace("1.0", "2.0")).unwrap_err().contains("only 1.0"));
    }
}
