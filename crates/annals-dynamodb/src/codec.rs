//! How the events of one item, and snapshots, are packed into bytes.
//!
//! DynamoDB charges by the kilobyte. So events are serialized in the compact format of the crate
//! `postcard`, and compressed if that makes them smaller. The bytes of events are:
//!
//! 1. one byte, the format: 0 packed, or 1 packed and compressed;
//! 2. when the events were recorded, and how many they are;
//! 3. their ids: the first id whole, of each other id the number of leading bytes that it shares
//!    with the first and the bytes after these. Ids stand apart because they cannot be compressed;
//! 4. types, data and metadata. In format 1: the length before compression in 4 bytes,
//!    little-endian, and then the compressed bytes (Brotli, RFC 7932).
//!
//! A snapshot has parts 1 and 4.

use std::io::Read;

use annals_core::{
    EventType, NewEvent, Payload, Position, RecordedEvent, Result, Snapshot, StreamId, Version,
    adapter,
};
use brotli::{Decompressor, enc::BrotliEncoderParams};
use bytes::Bytes;
use chrono::DateTime;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::{corrupt, internal};

const PACKED: u8 = 0;
const COMPRESSED: u8 = 1;
/// Fewer bytes than this do not become smaller when compressed.
const WORTH_COMPRESSING: usize = 64;
/// The Brotli quality up to [`LARGE`] bytes, and beyond. Quality 5 of 11 takes about 50 us for ten
/// small events, a hundredth of a request.
const QUALITY: (i32, i32) = (5, 2);
const LARGE: usize = 256 * 1024;
/// More bytes than any append can have: a stored length above this is corrupt.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const BUFFER: usize = 4 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// Microseconds since 1970, UTC.
    recorded_at: i64,
    count: u32,
}

/// An event as it is written, without its id.
#[derive(Debug, Serialize)]
struct EventRef<'a> {
    kinds: u8,
    event_type: &'a str,
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
    #[serde(with = "serde_bytes")]
    metadata: &'a [u8],
}

/// An event as it is read, without its id.
#[derive(Debug, Deserialize)]
struct StoredEvent {
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

/// The most bytes that an event has when packed.
pub(crate) fn packed_size(event: &NewEvent) -> usize {
    /// The bytes of the id, the content kinds, and three lengths.
    const OVERHEAD: usize = 16 + 1 + 3 * 5;
    event.size() + event.event_type().as_str().len() + OVERHEAD
}

/// Packs events that were recorded at this time, in microseconds since 1970.
pub(crate) fn pack(recorded_at: i64, events: &[NewEvent]) -> Result<Vec<u8>> {
    let rest = events.iter().map(|event| EventRef {
        kinds: adapter::content_kinds(event.data(), event.metadata()),
        event_type: event.event_type().as_str(),
        data: event.data().bytes(),
        metadata: event.metadata().bytes(),
    });
    let ids = events.iter().map(NewEvent::id);
    join(recorded_at, ids, &rest.collect::<Vec<_>>())
}

/// Packed events without the first `gone` of them.
pub(crate) fn repack(body: &[u8], gone: usize) -> Result<Vec<u8>> {
    let (recorded_at, ids, rest) = split(body)?;
    let left = rest.iter().skip(gone).map(|event| EventRef {
        kinds: event.kinds,
        event_type: &event.event_type,
        data: &event.data,
        metadata: &event.metadata,
    });
    join(recorded_at, ids.into_iter().skip(gone), &left.collect::<Vec<_>>())
}

fn join(
    recorded_at: i64,
    ids: impl ExactSizeIterator<Item = Uuid>,
    rest: &[EventRef<'_>],
) -> Result<Vec<u8>> {
    let failed = |e| internal("the events could not be packed").with_source(e);
    let count = u32::try_from(ids.len()).map_err(|_| internal("too many events"))?;
    let mut body =
        postcard::to_extend(&Header { recorded_at, count }, vec![PACKED]).map_err(failed)?;
    let mut first = None;
    for id in ids {
        let bytes = id.into_bytes();
        match first {
            None => {
                first = Some(bytes);
                body.extend(bytes);
            }
            Some(first) => {
                let common = bytes.iter().zip(first).take_while(|(a, b)| **a == *b).count();
                body.push(common as u8);
                body.extend(bytes.get(common..).unwrap_or_default());
            }
        }
    }
    compress(body, rest)
}

fn split(body: &[u8]) -> Result<(i64, Vec<Uuid>, Vec<StoredEvent>)> {
    let bad = || corrupt("the packed events end too early");
    let (format, rest) = body.split_first().ok_or_else(bad)?;
    let header = postcard::take_from_bytes(rest);
    let (Header { recorded_at, count }, mut rest) =
        header.map_err(|e| corrupt("the packed events have no readable header").with_source(e))?;
    let mut ids: Vec<Uuid> = Vec::new();
    for _ in 0..count {
        let mut id = [0; 16];
        let common = match ids.first() {
            None => 0,
            Some(first) => {
                let (common, others) = rest.split_first().ok_or_else(bad)?;
                rest = others;
                id = first.into_bytes();
                usize::from(*common)
            }
        };
        let own = id.get_mut(common..).ok_or_else(bad)?;
        let (bytes, others) = rest.split_at_checked(own.len()).ok_or_else(bad)?;
        own.copy_from_slice(bytes);
        rest = others;
        ids.push(Uuid::from_bytes(id));
    }
    let events: Vec<StoredEvent> = decompress(*format, rest)?;
    if events.len() != ids.len() {
        return Err(corrupt("the packed events have another number of ids"));
    }
    Ok((recorded_at, ids, events))
}

/// Unpacks events of which the first has this version, and this position if the store has an order
/// over all streams.
pub(crate) fn unpack(
    stream: &StreamId,
    first: u64,
    position: Option<u64>,
    body: &[u8],
) -> Result<Vec<RecordedEvent>> {
    let bad = |what: &str| {
        corrupt(format!("the events from version {first} on {what}")).with_stream(stream)
    };
    let (recorded_at, ids, events) =
        split(body).map_err(|e| bad("cannot be unpacked").with_source(e))?;
    let recorded_at = DateTime::from_timestamp_micros(recorded_at)
        .ok_or_else(|| bad("have an impossible record time"))?;
    let recorded = (0..).zip(ids).zip(events).map(|((index, id), event)| {
        let event_type =
            EventType::new(&event.event_type).map_err(|_| bad("have an invalid type"))?;
        let (data, metadata) = payloads(event.kinds, event.data, event.metadata)?;
        let event = NewEvent::from_stored(id, event_type, data, metadata);
        let position = position.map_or(Position::START, |first| Position::new(first + index));
        Ok(event.recorded(stream.clone(), Version::new(first + index), position, recorded_at))
    });
    recorded.collect()
}

pub(crate) fn pack_snapshot(snapshot: &Snapshot) -> Result<Vec<u8>> {
    let Snapshot { data, metadata, .. } = snapshot;
    let packed = PackedSnapshot {
        kinds: adapter::content_kinds(data, metadata),
        data: data.bytes().to_vec(),
        metadata: metadata.bytes().to_vec(),
    };
    compress(vec![PACKED], &packed)
}

pub(crate) fn unpack_snapshot(version: u64, body: &[u8]) -> Result<Snapshot> {
    let (format, rest) = body.split_first().ok_or_else(|| corrupt("the snapshot has no bytes"))?;
    let PackedSnapshot { kinds, data, metadata } = decompress(*format, rest)?;
    let (data, metadata) = payloads(kinds, data, metadata)?;
    Ok(Snapshot::new(version, data).with_metadata(metadata))
}

/// Adds the last part, compressed if that is shorter, and then sets the format in the first byte.
fn compress<T: Serialize + ?Sized>(mut body: Vec<u8>, rest: &T) -> Result<Vec<u8>> {
    let failed = |e| internal("the events could not be packed").with_source(e);
    let packed = postcard::to_stdvec(rest).map_err(failed)?;
    let length = u32::try_from(packed.len())
        .map_err(|_| internal("the packed events have more than 4 GiB"))?;
    let mut compressed = length.to_le_bytes().to_vec();
    if packed.len() >= WORTH_COMPRESSING {
        let quality = if packed.len() < LARGE { QUALITY.0 } else { QUALITY.1 };
        let parameters =
            BrotliEncoderParams { quality, size_hint: packed.len(), ..Default::default() };
        brotli::BrotliCompress(&mut packed.as_slice(), &mut compressed, &parameters)
            .map_err(|e| internal("the events could not be compressed").with_source(e))?;
        if compressed.len() < packed.len() {
            if let Some(format) = body.first_mut() {
                *format = COMPRESSED;
            }
            body.extend(compressed);
            return Ok(body);
        }
    }
    body.extend(packed);
    Ok(body)
}

fn decompress<T: DeserializeOwned>(format: u8, rest: &[u8]) -> Result<T> {
    match format {
        PACKED => read(rest),
        COMPRESSED => {
            let split = rest.split_first_chunk();
            let (length, compressed) =
                split.ok_or_else(|| corrupt("compressed bytes have no length"))?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > MOST_BYTES {
                return Err(corrupt("compressed bytes have an impossible length"));
            }
            let mut packed = Vec::with_capacity(length);
            // Read one byte more than there should be, to notice a length that is too small.
            let mut decoder = Decompressor::new(compressed, BUFFER).take(length as u64 + 1);
            let read_all = decoder.read_to_end(&mut packed);
            read_all.map_err(|e| corrupt("the bytes cannot be decompressed").with_source(e))?;
            if packed.len() != length {
                return Err(corrupt("decompressed bytes have another length than stored"));
            }
            read(&packed)
        }
        other => Err(corrupt(format!("the bytes have the unknown format {other}"))),
    }
}

fn read<T: DeserializeOwned>(packed: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(packed) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(corrupt("more bytes follow the packed ones")),
        Err(e) => Err(corrupt("the bytes cannot be deserialized").with_source(e)),
    }
}

fn payloads(kinds: u8, data: Vec<u8>, metadata: Vec<u8>) -> Result<(Payload, Payload)> {
    let payloads = adapter::payloads(kinds.into(), Bytes::from(data), Bytes::from(metadata));
    payloads.ok_or_else(|| corrupt(format!("the content kinds {kinds} are unknown")))
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
            longer[0] = PACKED;
            longer.push(0);
            broken(&longer);
        }
    }
}
