//! Decodes the rows of events and payloads.

use annals_core::{
    NewEvent, Payload, Position, RecordedEvent, Result, StreamId, Version,
    adapter::{self, TypeCache},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{Row, ValueRef, postgres::PgRow};
use uuid::Uuid;

use crate::error::{corrupt, driver};

/// The flag of an event, beside its content kinds, that is the first of an append under `Any` or
/// `StreamExists`: a retry of that append is found by it.
pub const MAY_BE_RETRIED: i16 = 4;
/// PostgreSQL counts microseconds from the beginning of 2000, Unix from that of 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Makes events of rows. Remembers the names it has seen, so that a name that comes again is
/// neither checked nor copied.
#[derive(Debug, Default)]
pub struct Decoder {
    types: TypeCache,
    last_stream: Option<StreamId>,
}

impl Decoder {
    /// The event of a row with these columns: position, version, time, id, flags, type, data,
    /// metadata. If `stream` is `None`, the column after them has the name of the event's stream.
    pub fn event(&mut self, row: &PgRow, stream: Option<&StreamId>) -> Result<RecordedEvent> {
        let (position, version) = (number(row, 0)?, number(row, 1)?);
        let bad = |what: &str| corrupt(format!("{what} of the event at position {position}"));
        let recorded_at = time(fixed(row, 2)?).ok_or_else(|| bad("impossible time"))?;
        let id = Uuid::from_bytes(fixed(row, 3)?);
        let flags = i16::from_be_bytes(fixed(row, 4)?) & !MAY_BE_RETRIED;
        let (data, metadata) = (copied(row, 6)?, copied(row, 7)?);
        let payloads = adapter::payloads(flags.into(), data, metadata);
        let (data, metadata) = payloads.ok_or_else(|| bad("unknown flags"))?;
        let event_type = self.types.get(bytes(row, 5)?).ok_or_else(|| bad("illegal type"))?;
        let stream = match stream {
            Some(stream) => stream.clone(),
            None => self.stream(bytes(row, 8)?).ok_or_else(|| bad("illegal stream"))?,
        };
        let (version, position) = (Version::new(version), Position::new(position));
        let event = NewEvent::from_stored(id, event_type, data, metadata);
        Ok(event.recorded(stream, version, position, recorded_at))
    }

    fn stream(&mut self, text: &[u8]) -> Option<StreamId> {
        if let Some(last) =
            self.last_stream.as_ref().filter(|last| last.as_str().as_bytes() == text)
        {
            return Some(last.clone());
        }
        let stream = StreamId::new(std::str::from_utf8(text).ok()?).ok()?;
        self.last_stream = Some(stream.clone());
        Some(stream)
    }
}

/// The time of a `timestamptz`. sqlx's own conversion panics on `infinity`.
fn time(stored: [u8; 8]) -> Option<DateTime<Utc>> {
    let micros = i64::from_be_bytes(stored).checked_add(EPOCH_MICROS)?;
    DateTime::from_timestamp_micros(micros)
}

/// Data and metadata, from the column of their content kinds and the two columns after it.
pub fn payloads(row: &PgRow, kinds: usize) -> Result<(Payload, Payload)> {
    let flags = i16::from_be_bytes(fixed(row, kinds)?);
    let (data, metadata) = (copied(row, kinds + 1)?, copied(row, kinds + 2)?);
    let payloads = adapter::payloads(flags.into(), data, metadata);
    payloads.ok_or_else(|| corrupt(format!("unknown flags {flags}")))
}

/// A version or position of an event, which is 1 or more.
fn number(row: &PgRow, column: usize) -> Result<u64> {
    let value = i64::from_be_bytes(fixed(row, column)?);
    match u64::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(corrupt(format!("an event has the version or position {value}"))),
    }
}

/// A value of fixed size, as the server sent it. `try_get` of sqlx would compare the type of every
/// value, which the statements of this crate need not: they know the types of their columns.
fn fixed<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N]> {
    let bytes = bytes(row, column)?;
    bytes.try_into().map_err(|_| corrupt(format!("column {column} has {} bytes", bytes.len())))
}

fn copied(row: &PgRow, column: usize) -> Result<Bytes> {
    bytes(row, column).map(Bytes::copy_from_slice)
}

fn bytes(row: &PgRow, column: usize) -> Result<&[u8]> {
    let value = row.try_get_raw(column).map_err(driver)?;
    if value.is_null() {
        return Err(corrupt(format!("column {column} is empty")));
    }
    value.as_bytes().map_err(|e| corrupt(format!("column {column} is unreadable")).with_source(e))
}
