//! Events as CloudEvents 1.0 in the JSON format, one on a line.
//!
//! `id`, `type`, `time`, `subject` (the stream), `data` and `data_base64` are attributes of the
//! [specification](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
//! Extensions hold the rest: `annalsversion`, `annalsposition`, `annalsdeletedat` (the version up to
//! which the stream was deleted before the event), and the metadata, as a JSON text in
//! `annalsmeta`, or in Base64 in `annalsmetab64` (binary) or `annalsmetajson64` (called JSON, but
//! none). A JSON payload that would change inside a line is written to `data_base64`; the content type
//! says that it is JSON.
//!
//! Attributes of other programs, for which an event has no place, are kept in the metadata: see
//! [`attributes`].

mod attributes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use annals::{ContentKind, EventType, Payload, Position, RecordedEvent, StreamId, Version};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use self::attributes::{id_of, is_json, kept_in, source_of, with_kept};
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
    annalsdeletedat: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annalsposition: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    annalsmeta: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annalsmetab64: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annalsmetajson64: Option<Cow<'a, str>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "lines::some",
        skip_serializing_if = "Option::is_none"
    )]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Cow<'a, str>>,
    /// All other attributes.
    #[serde(flatten)]
    extensions: Map<String, Value>,
}

/// Writes an event as a line, with the line break. `deleted_at` is the version up to which the stream
/// was deleted before it.
pub(crate) fn write(
    event: &RecordedEvent,
    deleted_at: Option<Version>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let (mut data, mut data_base64) = (None, None);
    match EncodedPayload::of(&event.data) {
        EncodedPayload::Raw(raw) => data = Some(raw),
        EncodedPayload::Text(text) => data_base64 = Some(BASE64_STANDARD.encode(text).into()),
        EncodedPayload::Base64(base64) | EncodedPayload::NotJson(base64) => {
            data_base64 = Some(base64.into());
        }
        EncodedPayload::Nothing => {}
    }
    let (mut meta, mut meta_base64, mut meta_json_base64) = (None, None, None);
    match EncodedPayload::of(&event.metadata) {
        EncodedPayload::Raw(raw) => meta = Some(raw.get().into()),
        EncodedPayload::Text(text) => meta = Some(text.into()),
        EncodedPayload::Base64(base64) => meta_base64 = Some(base64.into()),
        EncodedPayload::NotJson(base64) => meta_json_base64 = Some(base64.into()),
        EncodedPayload::Nothing => {}
    }
    let mut kept = kept_in(&event.metadata);
    let mut take = |name: &str| match kept.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let source = take("source").unwrap_or_else(|| source_of(&event.stream));
    let id = take("id").filter(|id| id_of(id, &source) == event.id);
    let content = take("datacontenttype")
        .filter(|media| is_json(media) == (event.data.kind() == ContentKind::Json));
    let content = content.map(Cow::from).or_else(|| content_of(&event.data).map(Cow::from));
    let line = CloudEvent {
        specversion: "1.0".into(),
        id: id.unwrap_or_else(|| event.id.to_string()).into(),
        source: source.into(),
        event_type: event.event_type.as_str().into(),
        subject: Some(event.stream.as_str().into()),
        time: Some(lines::time(event.recorded_at).into()),
        datacontenttype: content,
        annalsversion: Some(event.version.to_string().into()),
        annalsdeletedat: deleted_at.map(|version| version.to_string().into()),
        annalsposition: Some(event.position.to_string().into()),
        annalsmeta: meta,
        annalsmetab64: meta_base64,
        annalsmetajson64: meta_json_base64,
        data,
        data_base64,
        extensions: kept,
    };
    serde_json::to_writer(&mut *out, &line).map_err(|e| e.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// The content type of a payload, if no other program has given it another one.
fn content_of(data: &Payload) -> Option<&'static str> {
    match data.kind() {
        ContentKind::Json => Some(JSON),
        ContentKind::Binary => (!data.is_empty()).then_some(BYTES),
    }
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
    let id = id_of(&event.id, &event.source);
    let stream = event.subject.map(StreamId::new).transpose().map_err(|e| e.to_string())?;
    let is_ours = event.annalsversion.is_some();
    let content = event.datacontenttype.as_deref();
    let data = data(content, event.data, event.data_base64, is_ours)?;
    let metadata = match (event.annalsmeta, event.annalsmetab64, event.annalsmetajson64) {
        (None, None, None) => Payload::empty(),
        (Some(text), None, None) => {
            Payload::json_text(text.into_owned()).map_err(|e| format!("annalsmeta: {e}"))?
        }
        (None, Some(base64), None) => Payload::binary(lines::decode(&base64)?),
        (None, None, Some(base64)) => {
            Payload::from_stored(ContentKind::Json, lines::decode(&base64)?)
        }
        _ => {
            return Err("the line has more than one of annalsmeta, annalsmetab64 and \
                        annalsmetajson64"
                .to_owned());
        }
    };
    let mut others = event.extensions;
    let mut keep = |name: &str, text: &str| others.insert(name.to_owned(), text.into());
    if stream.as_ref().is_none_or(|stream| source_of(stream) != event.source) {
        keep("source", &event.source);
    }
    if event.id != id.to_string() {
        keep("id", &event.id);
    }
    if let Some(content) = content.filter(|content| content_of(&data) != Some(*content)) {
        keep("datacontenttype", content);
    }
    let metadata = with_kept(metadata, others)?;
    Ok(Entry {
        stream,
        version: number("annalsversion", event.annalsversion)?.map(Version::new),
        deleted_at: number("annalsdeletedat", event.annalsdeletedat)?.map(Version::new),
        position: number("annalsposition", event.annalsposition)?.map(Position::new),
        recorded_at: event.time.map(|time| lines::parse_time(&time)).transpose()?,
        id: Some(id),
        event_type: EventType::new(event.event_type).map_err(|e| e.to_string())?,
        data,
        metadata,
    })
}

fn data(
    content: Option<&str>,
    data: Option<&RawValue>,
    base64: Option<Cow<'_, str>>,
    is_ours: bool,
) -> Result<Payload, String> {
    let media = content.unwrap_or(JSON);
    match (data, base64) {
        (None, None) => Ok(Payload::empty()),
        (Some(raw), None) if is_json(media) => {
            Payload::json_text(raw.get().to_owned()).map_err(|e| e.to_string())
        }
        // By the specification, the data of another media type is the content of a JSON string.
        (Some(raw), None) => serde_json::from_str::<String>(raw.get())
            .map(Payload::binary)
            .map_err(|e| format!("data of type {media} must be a string: {e}")),
        (None, Some(base64)) => {
            let bytes = lines::decode(&base64).map_err(|e| format!("data_base64: {e}"))?;
            if !is_json(media) {
                Ok(Payload::binary(bytes))
            } else if is_ours {
                // A store may hold bytes that are called JSON and are none.
                Ok(Payload::from_stored(ContentKind::Json, bytes))
            } else {
                Payload::json_text(bytes).map_err(|e| format!("data_base64: {e}"))
            }
        }
        _ => Err("the line has both data and data_base64".to_owned()),
    }
}
