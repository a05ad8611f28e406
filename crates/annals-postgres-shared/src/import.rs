//! Writes events that another store recorded, as they are.
//!
//! A function of the schema takes thousands of events, and writes all of them or none. If some stream
//! is not at the version before its first event, the function only says how it found the streams. Then
//! the importer looks up the events that are there already, and sends the others again.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use annals_core::{
    RecordedEvent, Result, StreamId, Version,
    adapter::{ImportVerdict, StreamHead, import_conflict},
};
use sqlx::Row;
use uuid::Uuid;

use crate::{
    connections::{Connected, PooledConnection},
    error::{Failure, driver, internal, runtime, runtime_ended},
    notify::Notifier,
    resend::{Attempts, WriteSession},
    sql::query,
};

/// The most events of a transaction. With more, beginning and ending it would hardly cost less for
/// each event, and appends to its streams would wait longer.
const MOST_EVENTS: usize = 5_000;
/// The most bytes of a transaction, unless one event has more.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The most streams of a transaction. Each takes a lock, and with its default settings the server
/// has 6,400 locks for all sessions together.
const MOST_STREAMS: usize = 1_000;

/// A store that can import.
pub trait ImportTarget: Connected {
    fn notifier(&self) -> &Arc<Notifier>;

    /// The statement that gives the ids of several streams' events, each stream between two versions.
    fn ids_between(&self) -> &Arc<str>;

    /// Sends a request. `None` if it was written, otherwise how its streams were found.
    fn send(
        &self,
        connection: &mut PooledConnection,
        request: &ImportRequest<'_>,
    ) -> impl Future<Output = Result<Option<Vec<FoundStream>>, Failure>> + Send;
}

/// Writes events that were checked, in one transaction for each part of them. If the future is
/// dropped, the part that is under way is written all the same, and wakes subscribers.
pub async fn import<T: ImportTarget>(target: &Arc<T>, events: Vec<RecordedEvent>) -> Result<()> {
    let runtime = runtime()?;
    for events in in_parts(events) {
        let importer = Importer { target: target.clone(), session: WriteSession::default() };
        let written = runtime.spawn(importer.write(events)).await;
        written.unwrap_or_else(|_| Err(runtime_ended().with_outcome_unknown()))?;
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

/// Writes one part of an import.
struct Importer<T> {
    target: Arc<T>,
    session: WriteSession,
}

impl<T: ImportTarget> Importer<T> {
    async fn write(mut self, events: Vec<RecordedEvent>) -> Result<()> {
        let mut left: Vec<&RecordedEvent> = events.iter().collect();
        while !left.is_empty() {
            let request = ImportRequest::of(&left);
            let sent = self.send(&request).await;
            if self.session.outcome_unknown || matches!(sent, Ok(None)) {
                self.target.notifier().committed();
            }
            let Some(found) = sent.map_err(|e| self.session.mark(e))? else { return Ok(()) };
            let ids = self.ids(&request, &found).await;
            let ids = ids.map_err(|e| self.session.mark(driver(e)))?;
            let new = judge(&request, &found, &ids)?;
            if new.len() == left.len() {
                return Err(internal("an import was not written"));
            }
            left = new;
        }
        Ok(())
    }

    /// Sends a request. `None` if it was written, otherwise how its streams were found.
    async fn send(&mut self, request: &ImportRequest<'_>) -> Result<Option<Vec<FoundStream>>> {
        let connections = self.target.connections();
        let mut attempts = Attempts::default();
        loop {
            let mut connection = self.session.connection(connections, &mut attempts).await?;
            let sent = self.target.send(&mut connection, request);
            let answer = connections.with_timeout(sent).await;
            let next = self.session.answered(connections, connection, answer, &mut attempts);
            if let ControlFlow::Break(done) = next {
                // Looking for ids takes a connection, and this task may hold the last one.
                self.session.give_back();
                return done;
            }
        }
    }

    /// The ids of the readable events at the versions that the request's events would have, by the
    /// index of their stream in the request and their version.
    async fn ids(
        &self,
        request: &ImportRequest<'_>,
        found: &[FoundStream],
    ) -> sqlx::Result<HashMap<(usize, Version), Uuid>> {
        let passed = || {
            let streams = request.streams.iter().zip(found).enumerate();
            streams.filter(|(_, (stream, found))| stream.first <= found.head.version)
        };
        if passed().next().is_none() {
            return Ok(HashMap::new());
        }
        let (connections, text) = (self.target.connections(), self.target.ids_between());
        let last = |(_, (stream, found)): (usize, (&VersionRange<'_>, &FoundStream))| {
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

/// The events of one statement, with their streams.
pub struct ImportRequest<'a> {
    pub streams: Vec<VersionRange<'a>>,
    /// The events, each with the index of its stream.
    pub events: Vec<(usize, &'a RecordedEvent)>,
}

/// A stream, and the first and last version of its events in a request.
pub struct VersionRange<'a> {
    pub id: &'a StreamId,
    pub first: Version,
    pub last: Version,
}

/// How the database found a stream.
pub struct FoundStream {
    pub head: StreamHead,
    /// Whether no event of the stream can be read.
    pub is_empty: bool,
}

impl<'a> ImportRequest<'a> {
    fn of(events: &[&'a RecordedEvent]) -> Self {
        let mut streams: Vec<VersionRange<'a>> = Vec::new();
        let mut indexes = HashMap::new();
        let mut index_of = |event: &'a RecordedEvent| {
            let index = *indexes.entry(&event.stream).or_insert(streams.len());
            match streams.get_mut(index) {
                Some(stream) => stream.last = event.version,
                None => {
                    let (first, last) = (event.version, event.version);
                    streams.push(VersionRange { id: &event.stream, first, last });
                }
            }
            (index, event)
        };
        let events = events.iter().map(|event| index_of(event)).collect();
        Self { streams, events }
    }
}

/// The events that are still to be written. The events before them in their streams are there.
fn judge<'a>(
    request: &ImportRequest<'a>,
    found: &[FoundStream],
    ids: &HashMap<(usize, Version), Uuid>,
) -> Result<Vec<&'a RecordedEvent>> {
    let mut new = Vec::new();
    // The versions of a stream have no gaps, so an event that follows a new one is new.
    let mut has_new = vec![false; found.len()];
    for &(index, event) in &request.events {
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
