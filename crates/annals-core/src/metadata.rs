//! Reads and sets one member of JSON metadata, and leaves the other members as they are.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::{ContentKind, Error, ErrorKind, Payload, Result};

/// The name that EventStoreDB gives to the correlation id.
pub(crate) const CORRELATION_ID: &str = "$correlationId";
/// The name that EventStoreDB gives to the causation id.
pub(crate) const CAUSATION_ID: &str = "$causationId";

pub(crate) fn get(metadata: &Payload, name: &str) -> Option<String> {
    if metadata.kind() != ContentKind::Json {
        return None;
    }
    let members: Members = serde_json::from_slice(metadata.bytes()).ok()?;
    // If a name occurs twice, the last member counts, as in most JSON parsers.
    let value = members.0.into_iter().rfind(|(member, _)| member == name)?.1;
    serde_json::from_str(value.get()).ok()
}

pub(crate) fn with(metadata: &Payload, name: &str, value: &str) -> Result<Payload> {
    let mut members = if metadata.is_empty() {
        Members(Vec::new())
    } else {
        serde_json::from_slice(metadata.bytes()).map_err(|e| {
            let message = format!("{name} cannot be set, since the metadata is not a JSON object");
            Error::new(ErrorKind::InvalidInput, message).with_source(e)
        })?
    };
    members.0.retain(|(member, _)| member != name);
    let value = serde_json::value::to_raw_value(value).map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "the id is not a JSON string").with_source(e)
    })?;
    members.0.push((name.to_owned(), value));
    Payload::json(&members)
}

/// The members of a JSON object in their order, with their values as unchanged JSON text.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_one_member_and_keeps_the_others() {
        let before = Payload::inferred(r#"{"z":1.10,"$correlationId":"old","a":[1e400]}"#);
        let after = with(&before, CORRELATION_ID, "né\"w").unwrap();
        assert_eq!(after.bytes(), r#"{"z":1.10,"a":[1e400],"$correlationId":"né\"w"}"#.as_bytes());
        assert_eq!(get(&after, CORRELATION_ID).as_deref(), Some("né\"w"));
        assert_eq!(get(&after, CAUSATION_ID), None);
    }

    #[test]
    fn begins_an_object_or_refuses() {
        let set = |before: &Payload| with(before, CAUSATION_ID, "x");
        assert_eq!(set(&Payload::empty()).unwrap().bytes(), r#"{"$causationId":"x"}"#.as_bytes());
        assert!(set(&Payload::inferred("[1]")).is_err());
        assert!(set(&Payload::binary(vec![0xff])).is_err());
        assert_eq!(get(&Payload::inferred(r#"{"$causationId":7}"#), CAUSATION_ID), None);
    }
}
