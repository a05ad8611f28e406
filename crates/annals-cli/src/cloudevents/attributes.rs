//! Attributes of CloudEvents for which an event has no place: extensions, `dataschema`, and a `source`,
//! an `id` or a `datacontenttype` that annals would not give. An event keeps them in its metadata, in
//! the member `cloudevents` of a JSON object, and an export writes them again.

use annals::{ContentKind, Payload, StreamId};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The member of the metadata.
const MEMBER: &str = "cloudevents";

/// Attributes that say something else of an event, so that they are never taken from its metadata.
const OWN: [&str; 6] = ["specversion", "type", "subject", "time", "data", "data_base64"];

/// Adds attributes to the metadata, unless they are there already. The error names what cannot be
/// kept.
pub(super) fn with_kept(
    metadata: Payload,
    mut others: Map<String, Value>,
) -> Result<Payload, String> {
    // By the specification, `null` is no value.
    others.retain(|_, value| !value.is_null());
    if let Some((name, _)) = others.iter().find(|(_, value)| !is_scalar(value)) {
        return Err(format!("the attribute `{name}` is no string, number or boolean"));
    }
    let before = kept_in(&metadata);
    let Some((name, _)) = others.iter().find(|(name, value)| before.get(*name) != Some(value))
    else {
        return Ok(metadata);
    };
    let mut object = match object(&metadata) {
        _ if metadata.is_empty() => Map::new(),
        Some(object) if object.get(MEMBER).is_none_or(Value::is_object) => object,
        _ => {
            return Err(format!(
                "there is no place for the attribute `{name}` beside metadata that is no JSON object"
            ));
        }
    };
    let kept = object.entry(MEMBER).or_insert_with(|| Map::new().into());
    if let Some(kept) = kept.as_object_mut() {
        kept.extend(others);
    }
    Payload::json(&object).map_err(|e| e.to_string())
}

/// The attributes that the metadata keeps.
pub(super) fn kept_in(metadata: &Payload) -> Map<String, Value> {
    let kept = object(metadata).and_then(|mut object| object.remove(MEMBER));
    let Some(Value::Object(mut kept)) = kept else { return Map::new() };
    kept.retain(|name, value| {
        is_scalar(value) && !OWN.contains(&name.as_str()) && !name.starts_with("annals")
    });
    kept
}

fn object(metadata: &Payload) -> Option<Map<String, Value>> {
    if metadata.kind() != ContentKind::Json {
        return None;
    }
    serde_json::from_slice(metadata.bytes()).ok()
}

fn is_scalar(value: &Value) -> bool {
    value.is_string() || value.is_number() || value.is_boolean()
}

/// The id of an event. One that is no UUID is hashed to one, together with the source, within which
/// it is unique.
pub(super) fn id_of(id: &str, source: &str) -> Uuid {
    Uuid::parse_str(id)
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{source} {id}").as_bytes()))
}

/// Whether data of this media type is JSON. Media types have no case.
pub(super) fn is_json(content: &str) -> bool {
    let media = content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = media.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype == "json" || subtype.ends_with("+json")
}

/// A `source` for each stream: CloudEvents requires an id to be unique within its source.
pub(super) fn source_of(stream: &StreamId) -> String {
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
