//! Rows, and the events they stand for.

use std::collections::HashSet;

use annals_core::{
    EventType, NewEvent, Payload, Position, RecordedEvent, Result, StreamId, StreamState, Version,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{Row, ValueRef, postgres::PgRow};
use uuid::Uuid;

use crate::{
    append::{KNOWN_FLAGS, kind_of},
    error::{corrupt, driver},
};

/// How many types are remembered: far more than most stores have.
const REMEMBERED: usize = 4_096;
/// PostgreSQL counts microseconds from the beginning of 2000.
pub(crate) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Makes events of rows. Remembers names, so that a name that comes again is neither checked nor
/// copied.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    types: HashSet<EventType>,
    /// The type of the last event, which most often is that of the next.
    last_type: Option<EventType>,
    last_stream: Option<StreamId>,
}

impl Decoder {
    /// The event of a row with the columns as every statement on events has them: of the stream
    /// given, or else of the one named in the column behind them.
    pub(crate) fn event(
        &mut self,
        row: &PgRow,
        stream: Option<&StreamId>,
    ) -> Result<RecordedEvent> {
        let (position, version) = (number(row, 0)?, number(row, 1)?);
        let bad = |what: &str| corrupt(format!("{what} of the event at position {position}"));
        let micros = i64::from_be_bytes(fixed(row, 2)?);
        let recorded_at = micros.checked_add(EPOCH_MICROS).and_then(time);
        let recorded_at = recorded_at.ok_or_else(|| bad("impossible time"))?;
        let id = Uuid::from_bytes(fixed(row, 3)?);
        let flags = i16::from_be_bytes(fixed(row, 4)?);
        if flags & !KNOWN_FLAGS != 0 {
            return Err(bad("unknown flags"));
        }
        let event_type = self.event_type(bytes(row, 5)?).ok_or_else(|| bad("illegal type"))?;
        let (data_kind, metadata_kind) = kind_of(flags);
        let data = Payload::from_stored(data_kind, Bytes::copy_from_slice(bytes(row, 6)?));
        let metadata = Payload::from_stored(metadata_kind, Bytes::copy_from_slice(bytes(row, 7)?));
        let stream = match stream {
            Some(stream) => stream.clone(),
            None => self.stream(bytes(row, 8)?).ok_or_else(|| bad("illegal stream"))?,
        };
        let (version, position) = (Version::new(version), Position::new(position));
        let event = NewEvent::from_stored(id, event_type, data, metadata);
        Ok(event.recorded(stream, version, position, recorded_at))
    }

    fn event_type(&mut self, text: &[u8]) -> Option<EventType> {
        if let Some(last) = self.last_type.as_ref().filter(|last| last.as_str().as_bytes() == text)
        {
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
        self.last_type = Some(event_type.clone());
        Some(event_type)
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

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

/// Data and metadata, from a column of flags and the two after it.
pub(crate) fn payloads(row: &PgRow, flags: usize) -> Result<(Payload, Payload)> {
    let bits = i16::from_be_bytes(fixed(row, flags)?);
    if bits & !KNOWN_FLAGS != 0 {
        return Err(corrupt(format!("unknown flags {bits}")));
    }
    let (data, metadata) = kind_of(bits);
    let payload = |column, kind| {
        bytes(row, column).map(|b| Payload::from_stored(kind, Bytes::copy_from_slice(b)))
    };
    Ok((payload(flags + 1, data)?, payload(flags + 2, metadata)?))
}

/// The state of a stream as it is stored.
pub(crate) fn state(stored: i16) -> Option<StreamState> {
    match stored {
        0 => Some(StreamState::Live),
        1 => Some(StreamState::Deleted),
        2 => Some(StreamState::Tombstoned),
        _ => None,
    }
}

/// A version or position of an event that is there: 1 or more.
fn number(row: &PgRow, column: usize) -> Result<u64> {
    let value = i64::from_be_bytes(fixed(row, column)?);
    match u64::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(corrupt(format!("an event has the version or position {value}"))),
    }
}

/// The value of a column of fixed size, as it was sent: the statements of this crate know the types
/// of their columns, so that they need not be compared for every value.
fn fixed<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N]> {
    let bytes = bytes(row, column)?;
    bytes.try_into().map_err(|_| corrupt(format!("column {column} has {} bytes", bytes.len())))
}

fn bytes(row: &PgRow, column: usize) -> Result<&[u8]> {
    let value = row.try_get_raw(column).map_err(driver)?;
    if value.is_null() {
        return Err(corrupt(format!("column {column} is empty")));
    }
    value.as_bytes().map_err(|e| corrupt(format!("column {column} is unreadable")).with_source(e))
}
