//! The events of one item, as bytes.
//!
//! DynamoDB charges by the kilobyte, so that they are packed, by the format of the crate
//! `postcard`, and compressed where that makes them smaller. The first byte says how:
//!
//! * 0: what follows is packed.
//! * 1: what follows is the length of what is packed, in 4 bytes, the lowest first; and then that,
//!   compressed (DEFLATE, RFC 1951).

use std::io::{Read, Write};

use annals_core::{
    ContentKind, EventType, NewEvent, Payload, Position, RecordedEvent, Result, Snapshot, StreamId,
    Version,
};
use bytes::Bytes;
use chrono::DateTime;
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::{corrupt, internal};

const PACKED: u8 = 0;
const COMPRESSED: u8 = 1;
/// What is shorter than this leaves room in its first kilobyte, which is charged in any case.
const WORTH_COMPRESSING: usize = 512;
/// Beyond this, compressing well takes longer than the request.
const LARGE: usize = 32 * 1024;
/// More than an item can hold unpacked: an item is split by the length of what is packed.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What follows the bytes of data and of metadata.
const DATA_IS_JSON: u8 = 1;
const METADATA_IS_JSON: u8 = 2;

/// Some events that follow each other in one stream, all recorded at the same time.
#[derive(Debug, Serialize, Deserialize)]
struct Packed<Events> {
    /// Microseconds since 1970, UTC.
    recorded_at: i64,
    events: Events,
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    id: [u8; 16],
    kinds: u8,
    event_type: &'a str,
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
    #[serde(with = "serde_bytes")]
    metadata: &'a [u8],
}

#[derive(Debug, Deserialize)]
struct Stored {
    id: [u8; 16],
    kinds: u8,
    event_type: String,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    #[serde(with = "serde_bytes")]
    metadata: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PackedSnapshot {
    kinds: u8,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    #[serde(with = "serde_bytes")]
    metadata: Vec<u8>,
}

/// How many bytes an event has at most when packed: what is added to its payload and type.
pub(crate) fn packed_size(event: &NewEvent) -> usize {
    /// The id, the kinds, and three lengths.
    const AROUND: usize = 16 + 1 + 3 * 5;
    event.size() + event.event_type().as_str().len() + AROUND
}

pub(crate) fn pack(recorded_at: i64, events: &[NewEvent]) -> Result<Vec<u8>> {
    let events = events.iter().map(|event| Written {
        id: event.id().into_bytes(),
        kinds: kinds(event.data(), event.metadata()),
        event_type: event.event_type().as_str(),
        data: event.data().bytes(),
        metadata: event.metadata().bytes(),
    });
    compress(&Packed { recorded_at, events: events.collect::<Vec<_>>() })
}

/// The same events, as far as they are `left` when the first ones are gone.
pub(crate) fn repack(body: &[u8], gone: usize) -> Result<Vec<u8>> {
    let Packed { recorded_at, events } = unpack_as::<Packed<Vec<Stored>>>(body)?;
    let left = events.iter().skip(gone).map(|event| Written {
        id: event.id,
        kinds: event.kinds,
        event_type: &event.event_type,
        data: &event.data,
        metadata: &event.metadata,
    });
    compress(&Packed { recorded_at, events: left.collect::<Vec<_>>() })
}

/// The events, the first of which has this version, and this position where there are positions.
pub(crate) fn unpack(
    stream: &StreamId,
    first: u64,
    position: Option<u64>,
    body: &[u8],
) -> Result<Vec<RecordedEvent>> {
    let bad = |what: &str| corrupt(format!("{what} in version {first} or later of {stream:?}"));
    let Packed { recorded_at, events } = unpack_as::<Packed<Vec<Stored>>>(body)
        .map_err(|e| bad("unreadable events").with_source(e))?;
    let recorded_at =
        DateTime::from_timestamp_micros(recorded_at).ok_or_else(|| bad("impossible time"))?;
    let recorded = (0..).zip(events).map(|(index, event)| {
        let event_type = EventType::new(&event.event_type).map_err(|_| bad("illegal type"))?;
        let (data, metadata) = payloads(event.kinds, event.data, event.metadata)?;
        let event = NewEvent::from_stored(Uuid::from_bytes(event.id), event_type, data, metadata);
        let position = position.map_or(Position::START, |first| Position::new(first + index));
        Ok(event.recorded(stream.clone(), Version::new(first + index), position, recorded_at))
    });
    recorded.collect()
}

pub(crate) fn pack_snapshot(snapshot: &Snapshot) -> Result<Vec<u8>> {
    let Snapshot { data, metadata, .. } = snapshot;
    compress(&PackedSnapshot {
        kinds: kinds(data, metadata),
        data: data.bytes().to_vec(),
        metadata: metadata.bytes().to_vec(),
    })
}

pub(crate) fn unpack_snapshot(version: u64, body: &[u8]) -> Result<Snapshot> {
    let PackedSnapshot { kinds, data, metadata } = unpack_as(body)?;
    let (data, metadata) = payloads(kinds, data, metadata)?;
    Ok(Snapshot::new(version, data).with_metadata(metadata))
}

fn compress(packed: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |e| internal("the events cannot be packed").with_source(e);
    let bytes = postcard::to_extend(packed, vec![PACKED]).map_err(failed)?;
    if bytes.len() < WORTH_COMPRESSING {
        return Ok(bytes);
    }
    let plain = bytes.get(1..).unwrap_or_default();
    let length = u32::try_from(plain.len()).map_err(|_| internal("more than 4 GiB of events"))?;
    let mut out = vec![COMPRESSED];
    out.extend(length.to_le_bytes());
    let level = if plain.len() < LARGE { Compression::default() } else { Compression::fast() };
    let mut encoder = DeflateEncoder::new(out, level);
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    let out = written.map_err(|e| internal("the events cannot be compressed").with_source(e))?;
    Ok(if out.len() < bytes.len() { out } else { bytes })
}

fn unpack_as<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let bad = |what: &'static str| corrupt(what);
    let packed = match body.split_first() {
        Some((&PACKED, packed)) => return read(packed),
        Some((&COMPRESSED, rest)) => {
            let (length, compressed) = rest.split_first_chunk().ok_or_else(|| bad("too short"))?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > MOST_BYTES {
                return Err(bad("impossible length"));
            }
            let mut packed = Vec::with_capacity(length);
            // One byte more than there should be, so that a longer one is found out.
            let mut decoder = DeflateDecoder::new(compressed).take(length as u64 + 1);
            let read = decoder.read_to_end(&mut packed);
            read.map_err(|e| bad("bytes that cannot be decompressed").with_source(e))?;
            if packed.len() != length {
                return Err(bad("another length than it says"));
            }
            packed
        }
        _ => return Err(bad("bytes in a format that this version does not know")),
    };
    read(&packed)
}

fn read<T: DeserializeOwned>(packed: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(packed) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(corrupt("bytes after the end")),
        Err(e) => Err(corrupt("bytes that are no events").with_source(e)),
    }
}

fn kinds(data: &Payload, metadata: &Payload) -> u8 {
    let flag = |payload: &Payload, flag| if payload.kind() == ContentKind::Json { flag } else { 0 };
    flag(data, DATA_IS_JSON) | flag(metadata, METADATA_IS_JSON)
}

fn payloads(kinds: u8, data: Vec<u8>, metadata: Vec<u8>) -> Result<(Payload, Payload)> {
    if kinds & !(DATA_IS_JSON | METADATA_IS_JSON) != 0 {
        return Err(corrupt(format!("unknown content kinds {kinds}")));
    }
    let payload = |flag, bytes: Vec<u8>| {
        let kind = if kinds & flag == 0 { ContentKind::Binary } else { ContentKind::Json };
        Payload::from_stored(kind, Bytes::from(bytes))
    };
    Ok((payload(DATA_IS_JSON, data), payload(METADATA_IS_JSON, metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: usize, text: &str) -> Vec<NewEvent> {
        let event = |n| NewEvent::json("Numbered", &format!("{text}{n}")).unwrap();
        (0..count).map(event).collect()
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let stream = StreamId::new("order-1").unwrap();
        for (count, text) in [(1, ""), (10, "a text that is repeated "), (1000, "x")] {
            let written = events(count, text);
            let body = pack(5, &written).unwrap();
            assert!(body.len() <= written.iter().map(packed_size).sum::<usize>() + 16);
            let read = unpack(&stream, 7, Some(1024), &body).unwrap();
            assert_eq!(read.len(), count);
            for ((index, read), written) in (0..).zip(&read).zip(&written) {
                assert_eq!((read.id, &read.data), (written.id(), written.data()));
                assert_eq!((read.version.get(), read.position.get()), (7 + index, 1024 + index));
            }
            let left = unpack(&stream, 8, None, &repack(&body, 1).unwrap()).unwrap();
            assert_eq!(left.len(), count - 1);
            assert!(left.iter().zip(&read[1..]).all(|(l, r)| l.data == r.data && l.id == r.id));
        }
    }

    #[test]
    fn compressible_events_are_compressed_and_others_are_not() {
        let same = pack(5, &events(100, "the same words again and again ")).unwrap();
        assert_eq!(same[0], COMPRESSED);
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(2000).collect();
        let noise = pack(5, &[NewEvent::binary("Noise", noise).unwrap()]).unwrap();
        assert_eq!(noise[0], PACKED);
    }

    #[test]
    fn damage_is_found() {
        let stream = StreamId::new("order-1").unwrap();
        for body in [pack(5, &events(1, "x")).unwrap(), pack(5, &events(99, "words")).unwrap()] {
            let broken = |body: &[u8]| unpack(&stream, 1, None, body).unwrap_err();
            for bad in [&[][..], &[99], &body[..body.len() - 1], &body[..1]] {
                assert_eq!(broken(bad).kind(), annals_core::ErrorKind::Corrupt, "{bad:?}");
            }
            let mut longer = body.clone();
            longer[0] = 99;
            broken(&longer);
            if body[0] == PACKED {
                longer[0] = PACKED;
                longer.push(0);
                broken(&longer);
            } else {
                longer[0] = COMPRESSED;
                longer[1] ^= 1;
                broken(&longer);
            }
        }
    }
}
