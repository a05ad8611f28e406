//! How states, content kinds and names are stored.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{ContentKind, EventType, Payload, StreamState};

/// The code of a stream's state: 0 is live, 1 deleted, 2 tombstoned. A stream that was never
/// written to has no code, since it has no record.
#[must_use]
pub fn state_code(state: StreamState) -> Option<u8> {
    match state {
        StreamState::Missing => None,
        StreamState::Live => Some(0),
        StreamState::Deleted => Some(1),
        StreamState::Tombstoned => Some(2),
    }
}

/// The state of a code; `None` for a number that is no code.
#[must_use]
pub fn state_of_code(code: i64) -> Option<StreamState> {
    match code {
        0 => Some(StreamState::Live),
        1 => Some(StreamState::Deleted),
        2 => Some(StreamState::Tombstoned),
        _ => None,
    }
}

const DATA_IS_JSON: u8 = 1;
const METADATA_IS_JSON: u8 = 2;

/// The content kinds of data and metadata in two bits: 1 if the data is JSON, 2 if the metadata is.
#[must_use]
pub fn content_kinds(data: &Payload, metadata: &Payload) -> u8 {
    let bit = |payload: &Payload, bit| if payload.kind() == ContentKind::Json { bit } else { 0 };
    bit(data, DATA_IS_JSON) | bit(metadata, METADATA_IS_JSON)
}

/// Data and metadata of these content kinds; `None` if `kinds` has a bit that
/// [`content_kinds`] never sets.
#[must_use]
pub fn payloads(kinds: i64, data: Bytes, metadata: Bytes) -> Option<(Payload, Payload)> {
    let kinds = u8::try_from(kinds).ok().filter(|k| k & !(DATA_IS_JSON | METADATA_IS_JSON) == 0)?;
    let payload = |bit, bytes| {
        let kind = if kinds & bit == 0 { ContentKind::Binary } else { ContentKind::Json };
        Payload::from_stored(kind, bytes)
    };
    Some((payload(DATA_IS_JSON, data), payload(METADATA_IS_JSON, metadata)))
}

/// How many event types a [`TypeCache`] remembers: more than most stores have, and at most a few
/// MiB.
const REMEMBERED: usize = 4_096;

/// Remembers event types, so that a type that is read again is neither checked nor copied again.
#[derive(Debug, Default)]
pub struct TypeCache {
    types: HashSet<EventType>,
    /// The type that was asked for last, which often is the next one too.
    last: Option<EventType>,
}

impl TypeCache {
    /// The event type of this text; `None` if the text cannot be one.
    pub fn get(&mut self, text: &[u8]) -> Option<EventType> {
        if let Some(last) = self.last.as_ref().filter(|last| last.as_str().as_bytes() == text) {
            return Some(last.clone());
        }
        let text = std::str::from_utf8(text).ok()?;
        let event_type = match self.types.get(text) {
            Some(known) => known.clone(),
            None => {
                let new = EventType::new(text).ok()?;
                if self.types.len() >= REMEMBERED {
                    self.types.clear();
                }
                self.types.insert(new.clone());
                new
            }
        };
        self.last = Some(event_type.clone());
        Some(event_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_kinds_are_read_as_they_were_written() {
        for state in [StreamState::Live, StreamState::Deleted, StreamState::Tombstoned] {
            assert_eq!(state_of_code(state_code(state).unwrap().into()), Some(state));
        }
        assert_eq!((state_of_code(3), state_of_code(-1)), (None, None));
        let json = |text: &'static str| Payload::from_stored(ContentKind::Json, text);
        let binary = |text: &'static str| Payload::binary(text);
        for (data, metadata) in [
            (json("1"), json("2")),
            (json("1"), binary("2")),
            (binary("1"), json("2")),
            (binary("1"), binary("2")),
        ] {
            let kinds = content_kinds(&data, &metadata).into();
            let read = payloads(kinds, data.bytes().clone(), metadata.bytes().clone());
            assert_eq!(read, Some((data, metadata)));
        }
        assert_eq!(payloads(4, Bytes::new(), Bytes::new()), None);
        assert_eq!(payloads(-1, Bytes::new(), Bytes::new()), None);
    }

    #[test]
    fn types_are_checked_and_remembered() {
        let mut types = TypeCache::default();
        for n in 0..2 * REMEMBERED {
            let text = format!("Type{}", n / 2);
            assert_eq!(types.get(text.as_bytes()).unwrap().as_str(), text);
        }
        assert!(types.types.len() <= REMEMBERED);
        assert_eq!(types.get(b""), None);
        assert_eq!(types.get(b"\xff"), None);
        assert_eq!(types.get(b"a\nb"), None);
    }
}
