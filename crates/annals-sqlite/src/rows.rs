//! Rows, and the events and streams they stand for.

use std::collections::{HashMap, HashSet};

use annals_core::{
    ContentKind, EventType, NewEvent, Payload, Position, RecordedEvent, Result, StreamId,
    StreamState, Version, adapter::StreamHead,
};
use bytes::Bytes;
use chrono::DateTime;
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use uuid::Uuid;

use crate::{
    error::{Failure, corrupt},
    sql::Sql,
};

/// How many names of each sort are remembered: far more than most stores have types, and at most
/// a few MiB.
const REMEMBERED: usize = 4_096;

/// Makes events of rows. Remembers names, so that a name that comes again is neither checked nor
/// copied.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    types: HashSet<EventType>,
    /// The type of the last event, which most often is that of the next.
    last_type: Option<EventType>,
    streams: HashMap<i64, StreamId>,
}

impl Decoder {
    /// The stream of a row id. Ids never change their stream.
    pub(crate) fn stream(
        &mut self,
        db: &Connection,
        sql: &Sql,
        row: i64,
    ) -> Result<StreamId, Failure> {
        if let Some(stream) = self.streams.get(&row) {
            return Ok(stream.clone());
        }
        let name: Option<String> =
            db.prepare_cached(&sql.stream_name)?.query_row([row], |row| row.get(0)).optional()?;
        let name = name.ok_or_else(|| corrupt(format!("stream {row} has events and no name")))?;
        let stream = StreamId::new(&name)
            .map_err(|e| corrupt(format!("stream {row} has an illegal name")).with_source(e))?;
        if self.streams.len() >= REMEMBERED {
            self.streams.clear();
        }
        self.streams.insert(row, stream.clone());
        Ok(stream)
    }

    /// The event of a row, with the columns as every statement on events has them.
    pub(crate) fn event(
        &mut self,
        row: &Row<'_>,
        stream: StreamId,
    ) -> Result<RecordedEvent, Failure> {
        let (position, version) = (number(row, 0)?, number(row, 2)?);
        let bad = |what: &str| corrupt(format!("{what} of the event at position {position}"));
        let event_type = match row.get_ref(4)? {
            ValueRef::Text(text) => self.event_type(text).ok_or_else(|| bad("illegal type"))?,
            _ => return Err(bad("type that is no text").into()),
        };
        let id = uuid(row.get_ref(3)?).ok_or_else(|| bad("illegal id"))?;
        let recorded_at =
            DateTime::from_timestamp_micros(row.get(5)?).ok_or_else(|| bad("impossible time"))?;
        let (data, metadata) = payloads(row, 6)?;
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
}

const DATA_IS_JSON: i64 = 1;
const METADATA_IS_JSON: i64 = 2;

/// How the content kinds of data and metadata are stored.
pub(crate) fn kinds(data: &Payload, metadata: &Payload) -> i64 {
    let bit = |payload: &Payload, bit| if payload.kind() == ContentKind::Json { bit } else { 0 };
    bit(data, DATA_IS_JSON) | bit(metadata, METADATA_IS_JSON)
}

/// Data and metadata, from a column of kinds and the two after it.
pub(crate) fn payloads(row: &Row<'_>, kinds: usize) -> Result<(Payload, Payload), Failure> {
    let bits: i64 = row.get(kinds)?;
    if bits & !(DATA_IS_JSON | METADATA_IS_JSON) != 0 {
        return Err(corrupt(format!("unknown content kinds {bits}")).into());
    }
    let payload = |column, bit| {
        let kind = if bits & bit == 0 { ContentKind::Binary } else { ContentKind::Json };
        Ok::<_, Failure>(Payload::from_stored(kind, Bytes::copy_from_slice(blob(row, column)?)))
    };
    Ok((payload(kinds + 1, DATA_IS_JSON)?, payload(kinds + 2, METADATA_IS_JSON)?))
}

fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], Failure> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Ok(bytes),
        other => Err(corrupt(format!("a payload is {}, no blob", other.data_type())).into()),
    }
}

/// A version or position of an event that is there: 1 or more.
fn number(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
    let value: i64 = row.get(column)?;
    match u64::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(corrupt(format!("an event has the version or position {value}")).into()),
    }
}

pub(crate) fn uuid(value: ValueRef<'_>) -> Option<Uuid> {
    value.as_blob().ok().and_then(|bytes| Uuid::from_slice(bytes).ok())
}

/// A stream as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Its row; none where it was never written to.
    pub(crate) row: Option<i64>,
    pub(crate) head: StreamHead,
    /// The id of its last event, unless that was removed.
    pub(crate) last_id: Option<Uuid>,
}

impl Head {
    /// Looks the stream up.
    pub(crate) fn load(db: &Connection, sql: &Sql, stream: &StreamId) -> Result<Self, Failure> {
        let mut statement = db.prepare_cached(&sql.head)?;
        let mut rows = statement.query([stream.as_str()])?;
        let Some(row) = rows.next()? else {
            return Ok(Self { row: None, head: StreamHead::MISSING, last_id: None });
        };
        let (deleted_at, last): (i64, Option<i64>) = (row.get(3)?, row.get(4)?);
        let (state, version) = state(stream, row.get(1)?, row.get(2)?, last)?;
        let head = StreamHead { state, version, deleted_at: Version::from_i64(deleted_at) };
        let last_id = last.and_then(|_| uuid(row.get_ref(5).ok()?));
        Ok(Self { row: Some(row.get(0)?), head, last_id })
    }
}

/// The state of a stream, and the version of its last event, removed or not.
pub(crate) fn state(
    stream: &StreamId,
    stored: i64,
    removed_to: i64,
    last: Option<i64>,
) -> Result<(StreamState, Version), Failure> {
    let state = StreamState::from_stored(stored)
        .ok_or_else(|| corrupt("unknown state").with_stream(stream))?;
    Ok((state, Version::from_i64(last.unwrap_or(0).max(removed_to))))
}

/// How the state of a stream is stored.
pub(crate) trait StoredState: Sized {
    fn from_stored(value: i64) -> Option<Self>;
    fn to_stored(self) -> Option<i64>;
}

impl StoredState for StreamState {
    fn from_stored(value: i64) -> Option<Self> {
        [Self::Live, Self::Deleted, Self::Tombstoned]
            .into_iter()
            .find(|state| state.to_stored() == Some(value))
    }

    fn to_stored(self) -> Option<i64> {
        match self {
            Self::Live => Some(0),
            Self::Deleted => Some(1),
            Self::Tombstoned => Some(2),
            // A stream that was never written to has no row.
            _ => None,
        }
    }
}
