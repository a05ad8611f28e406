//! How states, content kinds, names and whole events are stored.

use std::collections::HashSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chrono::DateTime;
use uuid::Uuid;

use crate::{
    ContentKind, Error, ErrorKind, EventType, NewEvent, Payload, Position, RecordedEvent, Result,
    StreamId, StreamState,
};

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

/// An event as bytes, without its position, for a database that keeps bytes. Numbers are big-endian.
#[must_use]
pub fn encode_event(event: &RecordedEvent) -> Bytes {
    let RecordedEvent { stream, event_type, data, metadata, .. } = event;
    let (names, data, metadata) = ([stream.as_str(), event_type.as_str()], data, metadata);
    let names_length: usize = names.iter().map(|name| 1 + name.len()).sum();
    let mut bytes =
        BytesMut::with_capacity(41 + names_length + data.bytes().len() + metadata.bytes().len());
    bytes.put_u64(event.version.get());
    bytes.put_u128(event.id.as_u128());
    bytes.put_i64(event.recorded_at.timestamp_micros());
    bytes.put_u8(content_kinds(data, metadata));
    for name in names {
        // A name has at most 255 bytes.
        bytes.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.put_slice(name.as_bytes());
    }
    bytes.put_u64(data.bytes().len() as u64);
    bytes.put_slice(data.bytes());
    bytes.put_slice(metadata.bytes());
    bytes.freeze()
}

/// The event that [`encode_event`] wrote. Its payloads share the memory of `bytes`.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for other bytes.
pub fn decode_event(mut bytes: Bytes, position: Position) -> Result<RecordedEvent> {
    let mut read = || {
        let version = bytes.try_get_u64().ok()?;
        let id = Uuid::from_u128(bytes.try_get_u128().ok()?);
        let time = DateTime::from_timestamp_micros(bytes.try_get_i64().ok()?)?;
        let kinds = bytes.try_get_u8().ok()?;
        let mut name = || {
            let length = usize::from(bytes.try_get_u8().ok()?);
            let name = (length <= bytes.len()).then(|| bytes.split_to(length))?;
            String::from_utf8(name.into()).ok()
        };
        let (stream, event_type) = (StreamId::new(name()?).ok()?, EventType::new(name()?).ok()?);
        let length = usize::try_from(bytes.try_get_u64().ok()?).ok()?;
        let data = (length <= bytes.len()).then(|| bytes.split_to(length))?;
        let (data, metadata) = payloads(kinds.into(), data, bytes.clone())?;
        let event = NewEvent::from_stored(id, event_type, data, metadata);
        Some(event.recorded(stream, version.into(), position, time))
    };
    let message = "a stored event cannot be decoded";
    read().ok_or_else(|| Error::new(ErrorKind::Corrupt, message))
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
    fn an_event_is_read_as_it_was_written_and_no_part_of_it_is() {
        let json = Payload::json_text(&b"{ }"[..]).unwrap();
        let event = NewEvent::from_stored(
            Uuid::from_u128(7),
            EventType::new("Grüße").unwrap(),
            json,
            Payload::binary(vec![0, 255]),
        );
        let time = DateTime::from_timestamp_micros(-1).unwrap();
        let stream = StreamId::new("x".repeat(255)).unwrap();
        let event = event.recorded(stream, u64::MAX.into(), 5.into(), time);
        let bytes = encode_event(&event);
        assert_eq!(decode_event(bytes.clone(), 5.into()).unwrap(), event);
        for length in 0..bytes.len() - 2 {
            let error = decode_event(bytes.slice(..length), 5.into()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
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
