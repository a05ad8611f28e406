//! Decodes rows, and looks up streams and positions on any connection.

use std::collections::HashMap;

use annals_core::{
    NewEvent, Payload, Position, RecordedEvent, StreamId, StreamState, Version,
    adapter::{self, StreamHead, TypeCache},
};
use bytes::Bytes;
use chrono::DateTime;
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use uuid::Uuid;

use crate::{
    error::{Failure, corrupt},
    sql::Sql,
};

/// How many stream ids a decoder remembers: they take at most a few MiB.
const REMEMBERED: usize = 4_096;

/// Makes events of rows. It remembers names, so that a name that is read again is neither checked
/// nor copied again.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    types: TypeCache,
    streams: HashMap<i64, StreamId>,
}

impl Decoder {
    /// The id of the stream with this row id. The row id of a stream never changes.
    pub(crate) fn stream(
        &mut self,
        connection: &Connection,
        sql: &Sql,
        row: i64,
    ) -> Result<StreamId, Failure> {
        if let Some(stream) = self.streams.get(&row) {
            return Ok(stream.clone());
        }
        let mut statement = connection.prepare_cached(&sql.stream_name)?;
        let name: Option<String> = statement.query_row([row], |row| row.get(0)).optional()?;
        let name = name.ok_or_else(|| corrupt(format!("stream {row} has events but no name")))?;
        let stream = StreamId::new(&name)
            .map_err(|e| corrupt(format!("stream {row} has an illegal name")).with_source(e))?;
        if self.streams.len() >= REMEMBERED {
            self.streams.clear();
        }
        self.streams.insert(row, stream.clone());
        Ok(stream)
    }

    /// The event of a row that has the columns of [`Sql`]'s statements on events.
    pub(crate) fn event(
        &mut self,
        row: &Row<'_>,
        stream: StreamId,
    ) -> Result<RecordedEvent, Failure> {
        let (position, version) = (positive(row, 0)?, positive(row, 2)?);
        let bad = |what: &str| corrupt(format!("the event at position {position} has {what}"));
        let event_type = match row.get_ref(4)? {
            ValueRef::Text(text) => self.types.get(text).ok_or_else(|| bad("an illegal type"))?,
            _ => return Err(bad("a type that is not text").into()),
        };
        let id = uuid(row.get_ref(3)?).ok_or_else(|| bad("an illegal id"))?;
        let recorded_at = DateTime::from_timestamp_micros(row.get(5)?)
            .ok_or_else(|| bad("an impossible time"))?;
        let (data, metadata) = payloads(row, 6)?;
        let (version, position) = (Version::new(version), Position::new(position));
        let event = NewEvent::from_stored(id, event_type, data, metadata);
        Ok(event.recorded(stream, version, position, recorded_at))
    }
}

/// Data and metadata, from the column of their content kinds and the two columns after it.
pub(crate) fn payloads(row: &Row<'_>, kinds: usize) -> Result<(Payload, Payload), Failure> {
    let blob = |column| match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        other => {
            let message = format!("a payload has the type {}, not blob", other.data_type());
            Err(Failure::from(corrupt(message)))
        }
    };
    let (code, data, metadata) = (row.get(kinds)?, blob(kinds + 1)?, blob(kinds + 2)?);
    adapter::payloads(code, data, metadata)
        .ok_or_else(|| corrupt(format!("unknown content kinds {code}")).into())
}

/// The version or position of an event, which is at least 1.
fn positive(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
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
pub(crate) struct StoredStream {
    /// The id of its row; `None` if the stream was never written to.
    pub(crate) row: Option<i64>,
    pub(crate) head: StreamHead,
    /// The id of its last event; `None` if that event was removed.
    pub(crate) last_id: Option<Uuid>,
}

impl StoredStream {
    pub(crate) fn load(
        connection: &Connection,
        sql: &Sql,
        stream: &StreamId,
    ) -> Result<Self, Failure> {
        let mut statement = connection.prepare_cached(&sql.stream)?;
        let mut rows = statement.query([stream.as_str()])?;
        let Some(row) = rows.next()? else {
            return Ok(Self { row: None, head: StreamHead::MISSING, last_id: None });
        };
        let (deleted_at, last): (i64, Option<i64>) = (row.get(3)?, row.get(4)?);
        let (state, version) = state_and_version(stream, row.get(1)?, row.get(2)?, last)?;
        let head = StreamHead { state, version, deleted_at: Version::from_i64(deleted_at) };
        let last_id = last.and_then(|_| uuid(row.get_ref(5).ok()?));
        Ok(Self { row: Some(row.get(0)?), head, last_id })
    }
}

/// The state of a stream, and the version of its last event, even if that was removed. `last` is
/// the version of the last event that is left.
pub(crate) fn state_and_version(
    stream: &StreamId,
    state_code: i64,
    removed_to: i64,
    last: Option<i64>,
) -> Result<(StreamState, Version), Failure> {
    let state = adapter::state_of_code(state_code)
        .ok_or_else(|| corrupt(format!("unknown state {state_code}")).with_stream(stream))?;
    Ok((state, Version::from_i64(last.unwrap_or(0).max(removed_to))))
}

/// The version of the first event of a stream that is left.
pub(crate) fn first_version(
    connection: &Connection,
    sql: &Sql,
    row: i64,
) -> Result<Option<Version>, Failure> {
    let first: Option<i64> =
        connection.prepare_cached(&sql.first_version)?.query_row([row], |row| row.get(0))?;
    Ok(first.map(Version::from_i64))
}

/// The greatest position that any event ever had.
pub(crate) fn last_position(connection: &Connection, sql: &Sql) -> Result<Position, Failure> {
    let last: i64 =
        connection.prepare_cached(&sql.last_position)?.query_row([], |row| row.get(0))?;
    Ok(Position::from_i64(last))
}
