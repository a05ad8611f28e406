//! The events of one item, as bytes.
//!
//! DynamoDB charges by the kilobyte, so that they are packed, by the format of the crate
//! `postcard`, and compressed where that makes them smaller. First comes a byte that says how, then
//! when they were recorded and how many there are, then their ids, each without what it has in
//! common with the first: ids cannot be compressed, and would spoil what can. Then the rest:
//!
//! * 0: as it is packed.
//! * 1: the length of what is packed, in 4 bytes, the lowest first; and then that, compressed
//!   (Brotli, RFC 7932).

use std::io::Read;

use annals_core::{
    ContentKind, EventType, NewEvent, Payload, Position, RecordedEvent, Result, Snapshot, StreamId,
    Version,
};
use brotli::{Decompressor, enc::BrotliEncoderParams};
use bytes::Bytes;
use chrono::DateTime;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::{corrupt, internal};

const PACKED: u8 = 0;
const COMPRESSED: u8 = 1;
/// What is shorter than this does not become smaller.
const WORTH_COMPRESSING: usize = 64;
/// How well to compress: the fifth of eleven grades takes 50 us for ten small events, a hundredth
/// of a request; beyond the length the second.
const GRADE: (i32, i32) = (5, 2);
const LARGE: usize = 256 * 1024;
/// More than an append may have.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const BUFFER: usize = 4 * 1024;

/// What follows the bytes of data and of metadata.
const DATA_IS_JSON: u8 = 1;
const METADATA_IS_JSON: u8 = 2;

/// Comes first.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// Microseconds since 1970, UTC.
    recorded_at: i64,
    count: u32,
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    kinds: u8,
    event_type: &'a str,
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
    #[serde(with = "serde_bytes")]
    metadata: &'a [u8],
}

#[derive(Debug, Deserialize)]
struct Stored {
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
    let rest = events.iter().map(|event| Written {
        kinds: kinds(event.data(), event.metadata()),
        event_type: event.event_type().as_str(),
        data: event.data().bytes(),
        metadata: event.metadata().bytes(),
    });
    let ids = events.iter().map(NewEvent::id);
    join(recorded_at, ids, &rest.collect::<Vec<_>>())
}

/// The same events, without the first ones.
pub(crate) fn repack(body: &[u8], gone: usize) -> Result<Vec<u8>> {
    let (recorded_at, ids, rest) = split(body)?;
    let left = rest.iter().skip(gone).map(|event| Written {
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
    rest: &[Written<'_>],
) -> Result<Vec<u8>> {
    let failed = |e| internal("the events cannot be packed").with_source(e);
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

fn split(body: &[u8]) -> Result<(i64, Vec<Uuid>, Vec<Stored>)> {
    let bad = || corrupt("events that end too early");
    let (how, rest) = body.split_first().ok_or_else(bad)?;
    let header = postcard::take_from_bytes(rest);
    let (Header { recorded_at, count }, mut rest) =
        header.map_err(|e| corrupt("events without their number").with_source(e))?;
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
    let events: Vec<Stored> = decompress(*how, rest)?;
    if events.len() != ids.len() {
        return Err(corrupt("another number of events than of ids"));
    }
    Ok((recorded_at, ids, events))
}

/// The events, the first of which has this version, and this position where there are positions.
pub(crate) fn unpack(
    stream: &StreamId,
    first: u64,
    position: Option<u64>,
    body: &[u8],
) -> Result<Vec<RecordedEvent>> {
    let bad = |what: &str| corrupt(format!("{what} in version {first} or later of {stream:?}"));
    let (recorded_at, ids, events) =
        split(body).map_err(|e| bad("unreadable events").with_source(e))?;
    let recorded_at =
        DateTime::from_timestamp_micros(recorded_at).ok_or_else(|| bad("impossible time"))?;
    let recorded = (0..).zip(ids).zip(events).map(|((index, id), event)| {
        let event_type = EventType::new(&event.event_type).map_err(|_| bad("illegal type"))?;
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
        kinds: kinds(data, metadata),
        data: data.bytes().to_vec(),
        metadata: metadata.bytes().to_vec(),
    };
    compress(vec![PACKED], &packed)
}

pub(crate) fn unpack_snapshot(version: u64, body: &[u8]) -> Result<Snapshot> {
    let (how, rest) = body.split_first().ok_or_else(|| corrupt("an empty snapshot"))?;
    let PackedSnapshot { kinds, data, metadata } = decompress(*how, rest)?;
    let (data, metadata) = payloads(kinds, data, metadata)?;
    Ok(Snapshot::new(version, data).with_metadata(metadata))
}

/// Adds the rest, compressed if that is shorter; the first byte then says so.
fn compress<T: Serialize + ?Sized>(mut body: Vec<u8>, rest: &T) -> Result<Vec<u8>> {
    let failed = |e| internal("the events cannot be packed").with_source(e);
    let packed = postcard::to_stdvec(rest).map_err(failed)?;
    let length = u32::try_from(packed.len()).map_err(|_| internal("more than 4 GiB of events"))?;
    let mut compressed = length.to_le_bytes().to_vec();
    if packed.len() >= WORTH_COMPRESSING {
        let quality = if packed.len() < LARGE { GRADE.0 } else { GRADE.1 };
        let hint = BrotliEncoderParams { quality, size_hint: packed.len(), ..Default::default() };
        brotli::BrotliCompress(&mut packed.as_slice(), &mut compressed, &hint)
            .map_err(|e| internal("the events cannot be compressed").with_source(e))?;
        if compressed.len() < packed.len() {
            if let Some(how) = body.first_mut() {
                *how = COMPRESSED;
            }
            body.extend(compressed);
            return Ok(body);
        }
    }
    body.extend(packed);
    Ok(body)
}

fn decompress<T: DeserializeOwned>(how: u8, rest: &[u8]) -> Result<T> {
    match how {
        PACKED => read(rest),
        COMPRESSED => {
            let split = rest.split_first_chunk();
            let (length, compressed) =
                split.ok_or_else(|| corrupt("compressed without a length"))?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > MOST_BYTES {
                return Err(corrupt("impossible length"));
            }
            let mut packed = Vec::with_capacity(length);
            // One byte more than there should be, so that a longer one is found out.
            let mut decoder = Decompressor::new(compressed, BUFFER).take(length as u64 + 1);
            let read_all = decoder.read_to_end(&mut packed);
            read_all.map_err(|e| corrupt("bytes that cannot be decompressed").with_source(e))?;
            if packed.len() != length {
                return Err(corrupt("another length than it says"));
            }
            read(&packed)
        }
        how => Err(corrupt(format!("bytes in the format {how}, which this version does not know"))),
    }
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
            longer[0] = PACKED;
            longer.push(0);
            broken(&longer);
        }
    }
}
