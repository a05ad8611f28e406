//! Events that another store recorded, written as they are.
//!
//! The function `import` of the schema takes them by the thousand, and writes all or none. Where a
//! stream is not simply at the version before its events, it says how it found the streams; what
//! stands there already is looked up then, and what is left is sent again.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use annals_core::{
    RecordedEvent, Result, StreamId, Version,
    adapter::{ImportVerdict, StreamHead, import_conflict},
};
use sqlx::{
    Encode, PgConnection, Postgres, Row, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, types::Oid},
};
use uuid::Uuid;

use crate::{
    append::{self, kinds},
    error::{Failure, driver, internal},
    resend::{Sent, Tries},
    rows::EPOCH_MICROS,
    sql::{one_row, query},
    store::Shared,
    writer::{ended, runtime},
};

/// The most events of a transaction. Beyond, its begin and its end are a small part of it already,
/// and appends to its streams wait for it.
const MOST_EVENTS: usize = 5_000;
/// The most bytes of a transaction, unless one event has more.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The most streams of a transaction: each takes a lock, of which the server has 6,400 for everybody
/// with the settings that it has by default.
const MOST_STREAMS: usize = 1_000;

/// Writes events that were checked, a transaction for each part of them. The part that is under way
/// goes on when what this returns is dropped, so that its commit wakes subscribers.
pub(crate) async fn import(shared: &Arc<Shared>, events: Vec<RecordedEvent>) -> Result<()> {
    let runtime = runtime()?;
    for events in in_parts(events) {
        let importer = Importer { shared: shared.clone(), sent: Sent::default() };
        let written = runtime.spawn(importer.write(events)).await;
        written.unwrap_or_else(|_| Err(ended().with_outcome_unknown()))?;
    }
    Ok(())
}

fn in_parts(events: Vec<RecordedEvent>) -> Vec<Vec<RecordedEvent>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes, mut streams) = (Vec::new(), 0, HashSet::new());
    for event in events {
        let full = part.len() == MOST_EVENTS
            || bytes + event.size() > MOST_BYTES
            || (streams.len() == MOST_STREAMS && !streams.contains(&event.stream));
        if full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            streams.clear();
            bytes = 0;
        }
        bytes += event.size();
        streams.insert(event.stream.clone());
        part.push(event);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Writes one part.
struct Importer {
    shared: Arc<Shared>,
    sent: Sent,
}

impl Importer {
    async fn write(mut self, events: Vec<RecordedEvent>) -> Result<()> {
        let mut left: Vec<&RecordedEvent> = events.iter().collect();
        while !left.is_empty() {
            let asked = Asked::of(&left);
            let sent = self.send(&asked).await;
            if self.sent.is_unknown || matches!(sent, Ok(None)) {
                self.shared.notifier.committed();
            }
            let sent = sent.map_err(|e| self.sent.outcome(e))?;
            let Some(found) = sent else { return Ok(()) };
            let ids = self.ids(&asked, &found).await.map_err(|e| self.sent.outcome(driver(e)))?;
            let new = judge(&asked, &found, &ids)?;
            if new.len() == left.len() {
                return Err(internal("an import was not written"));
            }
            left = new;
        }
        Ok(())
    }

    /// Says how the streams were found, where nothing was written.
    async fn send(&mut self, asked: &Asked<'_>) -> Result<Option<Vec<Found>>> {
        let connections = &self.shared.connections;
        let mut tries = Tries::default();
        loop {
            let mut lease = self.sent.lease(connections, &mut tries).await?;
            let answer = connections.within(asked.send(&mut lease, &self.shared)).await;
            let done = self.sent.answered(connections, lease, answer, &mut tries);
            if let ControlFlow::Break(done) = done {
                // Who looks for ids must not wait for this one.
                self.sent.keep();
                return done;
            }
        }
    }

    /// The ids of the events that can be read where some of those asked for would stand: by the
    /// index of their stream, and their version.
    async fn ids(
        &self,
        asked: &Asked<'_>,
        found: &[Found],
    ) -> sqlx::Result<HashMap<(usize, Version), Uuid>> {
        let passed = || {
            let streams = asked.streams.iter().zip(found).enumerate();
            streams.filter(|(_, (stream, found))| stream.first <= found.head.version)
        };
        if passed().next().is_none() {
            return Ok(HashMap::new());
        }
        let (connections, text) = (&self.shared.connections, &self.shared.sql.ids_between);
        let last = |(_, (stream, found)): (usize, (&Stream<'_>, &Found))| {
            stream.last.min(found.head.version).to_i64()
        };
        let statement = || {
            query(text)
                .bind(passed().map(|(_, (stream, _))| stream.id.as_str()).collect::<Vec<_>>())
                .bind(passed().map(|(_, (stream, _))| stream.first.to_i64()).collect::<Vec<_>>())
                .bind(passed().map(last).collect::<Vec<_>>())
        };
        let rows = connections.rows(statement).await?;
        let indexes: Vec<usize> = passed().map(|(index, _)| index).collect();
        let mut ids = HashMap::with_capacity(rows.len());
        for row in rows {
            let (number, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let index = usize::try_from(number - 1).ok().and_then(|at| indexes.get(at));
            let index = *index.ok_or(sqlx::Error::RowNotFound)?;
            ids.insert((index, Version::from_i64(version)), row.try_get(2)?);
        }
        Ok(ids)
    }
}

/// A part, or what is left of it, with its streams.
struct Asked<'a> {
    streams: Vec<Stream<'a>>,
    /// Each with the index of its stream.
    events: Vec<(usize, &'a RecordedEvent)>,
}

struct Stream<'a> {
    id: &'a StreamId,
    /// The versions of its events here, all between these.
    first: Version,
    last: Version,
}

/// How a stream was found.
struct Found {
    head: StreamHead,
    /// Whether none of its events can be read.
    is_empty: bool,
}

impl<'a> Asked<'a> {
    fn of(events: &[&'a RecordedEvent]) -> Self {
        let mut streams: Vec<Stream<'a>> = Vec::new();
        let mut indexes = HashMap::new();
        let mut index_of = |event: &'a RecordedEvent| {
            let index = *indexes.entry(&event.stream).or_insert(streams.len());
            match streams.get_mut(index) {
                Some(stream) => stream.last = event.version,
                None => {
                    let (first, last) = (event.version, event.version);
                    streams.push(Stream { id: &event.stream, first, last });
                }
            }
            (index, event)
        };
        let events = events.iter().map(|event| index_of(event)).collect();
        Self { streams, events }
    }

    async fn send(
        &self,
        connection: &mut PgConnection,
        shared: &Shared,
    ) -> Result<Option<Vec<Found>>, Failure> {
        let streams = || self.streams.iter();
        let events = || self.events.iter().map(|(_, event)| *event);
        let owner = |index: usize| i32::try_from(index + 1).unwrap_or(i32::MAX);
        let flags = |event: &RecordedEvent| kinds(&event.data, &event.metadata);
        let query = query(&shared.sql.import)
            .bind(shared.lock_key)
            .bind(streams().map(|stream| stream.id.as_str()).collect::<Vec<_>>())
            .bind(streams().map(|stream| stream.id.category_str()).collect::<Vec<_>>())
            .bind(streams().map(|stream| stream.first.to_i64()).collect::<Vec<_>>())
            .bind(self.events.iter().map(|(index, _)| owner(*index)).collect::<Vec<_>>())
            .bind(events().map(|event| event.version.to_i64()).collect::<Vec<_>>())
            .bind(events().map(RecordedAt::of).collect::<Vec<_>>())
            .bind(events().map(|event| event.id).collect::<Vec<_>>())
            .bind(events().map(|event| event.event_type.as_str()).collect::<Vec<_>>())
            .bind(events().map(flags).collect::<Vec<_>>())
            .bind(events().map(|event| &**event.data.bytes()).collect::<Vec<_>>())
            .bind(events().map(|event| &**event.metadata.bytes()).collect::<Vec<_>>());
        let row = one_row(query, connection).await?;
        if row.try_get(0)? { Ok(None) } else { self.decode(&row).map(Some) }
    }

    fn decode(&self, row: &PgRow) -> Result<Vec<Found>, Failure> {
        let states: Vec<Option<i16>> = row.try_get(1)?;
        let (versions, removals): (Vec<i64>, Vec<i64>) = (row.try_get(2)?, row.try_get(3)?);
        let mut found = Vec::with_capacity(self.streams.len());
        for ((state, version), removed_to) in states.into_iter().zip(versions).zip(removals) {
            // No append is judged here: when it was deleted does not matter.
            let head = append::head(state, Version::from_i64(version), None)?;
            found.push(Found { head, is_empty: version <= removed_to });
        }
        if found.len() != self.streams.len() {
            return Err(internal("not as many answers as streams").into());
        }
        Ok(found)
    }
}

/// The events that are still to be written, those before them in their streams being there.
fn judge<'a>(
    asked: &Asked<'a>,
    found: &[Found],
    ids: &HashMap<(usize, Version), Uuid>,
) -> Result<Vec<&'a RecordedEvent>> {
    let mut new = Vec::new();
    // The versions of a stream go up by 1: what follows a new event is new.
    let mut has_new = vec![false; found.len()];
    for &(index, event) in &asked.events {
        let (Some(has_new), Some(found)) = (has_new.get_mut(index), found.get(index)) else {
            return Err(internal("an event without a stream"));
        };
        let verdict = match *has_new {
            true => ImportVerdict::Write,
            false => found.head.judge_import(event, found.is_empty)?,
        };
        match verdict {
            ImportVerdict::Write => {
                *has_new = true;
                new.push(event);
            }
            ImportVerdict::Compare if ids.get(&(index, event.version)) == Some(&event.id) => {}
            ImportVerdict::Compare => return Err(import_conflict(event, found.head.version)),
        }
    }
    Ok(new)
}

/// A `timestamptz`, of which sqlx knows nothing without another crate.
#[derive(Clone, Copy, Debug)]
struct RecordedAt(i64);

impl RecordedAt {
    const TYPE: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
    const ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));

    fn of(event: &RecordedEvent) -> Self {
        Self(event.recorded_at.timestamp_micros().saturating_sub(EPOCH_MICROS))
    }
}

impl Type<Postgres> for RecordedAt {
    fn type_info() -> PgTypeInfo {
        Self::TYPE
    }
}

impl PgHasArrayType for RecordedAt {
    fn array_type_info() -> PgTypeInfo {
        Self::ARRAY
    }
}

impl Encode<'_, Postgres> for RecordedAt {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0, buffer)
    }
}
