//! Reads, a page at a time: each page is one short transaction, so that an open read blocks no
//! append and keeps no WAL from being written back.

use std::{ops::ControlFlow, sync::Arc};

use annals_core::{
    Direction, Error, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId,
    Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use crate::{
    database::Database,
    error::{Failure, context},
    readers::{Reader, Readers},
    rows,
    sql::Sql,
};

/// The most events of a page: enough to make up for the change of threads.
const PAGE_EVENTS: usize = 1_024;
/// A page ends with the event that brings its payloads to this many bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How many positions a filtered page looks at: a few milliseconds' worth.
const PAGE_POSITIONS: u64 = 16 * PAGE_EVENTS as u64;

/// What a page of a read gives: the page, and where the next begins.
type Turned<T> = Result<(Page, T), Failure>;

/// One stream, from a version on.
pub(crate) struct StreamPages {
    readers: Arc<Readers>,
    query: StreamQuery,
}

#[derive(Clone)]
struct StreamQuery {
    stream: StreamId,
    options: ReadStream,
}

impl StreamPages {
    pub(crate) fn new(readers: Arc<Readers>, stream: StreamId, options: ReadStream) -> Self {
        Self { readers, query: StreamQuery { stream, options } }
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let query = self.query.clone();
        let turned = self.readers.run(move |database, reader| query.page(database, reader)).await;
        let (page, from) = turned
            .map_err(context("read_stream"))
            .map_err(|e| e.with_stream(&self.query.stream))?;
        let options = &mut self.query.options;
        options.from = from.or(options.from);
        options.limit = options.limit.map(|limit| limit.saturating_sub(page.events.len() as u64));
        Ok(page)
    }
}

impl StreamQuery {
    fn page(&self, database: &Database, reader: &mut Reader) -> Turned<Option<Version>> {
        let Self { stream, options } = self;
        let Reader { connection, decoder } = reader;
        let sql = &database.sql;
        let considered = last_position(connection, sql)?;
        let mut page = Page { events: Vec::new(), considered, more: false };
        let row: Option<i64> = connection
            .prepare_cached(&sql.stream_row)?
            .query_row([stream.as_str()], |row| row.get(0))
            .optional()?;
        let Some(row) = row.filter(|_| options.limit != Some(0)) else { return Ok((page, None)) };
        let (text, from) = match options.direction {
            Direction::Forwards => (&sql.stream_forwards, options.from.unwrap_or(Version::NONE)),
            Direction::Backwards => {
                (&sql.stream_backwards, options.from.unwrap_or(Version::new(u64::MAX)))
            }
        };
        let mut statement = connection.prepare_cached(text)?;
        let end = fill(
            &mut page.events,
            statement.query(params![row, from.to_i64()])?,
            options.limit,
            |row| Ok(Some(decoder.event(row, stream.clone())?)),
        )?;
        let Some(last) = page.events.last() else { return Ok((page, None)) };
        if let End::Full { .. } = end {
            page.more = true;
            page.considered = last.position;
        }
        let next = match options.direction {
            Direction::Forwards => last.version.plus(1),
            Direction::Backwards => last.version.minus(1),
        };
        Ok((page, Some(next)))
    }
}

/// The whole store from one position on, itself excluded.
pub(crate) struct AllPages {
    readers: Arc<Readers>,
    query: AllQuery,
}

#[derive(Clone)]
struct AllQuery {
    options: Arc<ReadAll>,
    /// The types wanted, as a JSON array; none for any.
    types: Option<Arc<str>>,
    from: Option<Position>,
    limit: Option<u64>,
}

impl AllPages {
    pub(crate) fn new(readers: Arc<Readers>, options: ReadAll) -> Self {
        let types = &options.filter.event_types;
        let json = || serde_json::Value::from_iter(types.iter().map(|t| t.as_str())).to_string();
        let types = (!types.is_empty()).then(|| json().into());
        let (from, limit) = (options.from, options.limit);
        Self { readers, query: AllQuery { options: Arc::new(options), types, from, limit } }
    }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let query = self.query.clone();
        let turned = self.readers.run(move |database, reader| query.page(database, reader)).await;
        let (page, from) = turned.map_err(context("read_all"))?;
        self.query.from = Some(from);
        let read = page.events.len() as u64;
        self.query.limit = self.query.limit.map(|limit| limit.saturating_sub(read));
        Ok(page)
    }
}

impl AllQuery {
    fn page(&self, database: &Database, reader: &mut Reader) -> Turned<Position> {
        let sql = &database.sql;
        let forwards = self.options.direction == Direction::Forwards;
        let last = last_position(&reader.connection, sql)?;
        let from = match self.from {
            Some(from) if forwards => from,
            None if forwards => Position::START,
            from => from.unwrap_or(last.plus(1)).min(last.plus(1)),
        };
        let mut page = Page { events: Vec::new(), considered: from, more: false };
        let Some((low, high)) = self.window(&reader.connection, sql, from, last)? else {
            return Ok((page, from));
        };
        let (at, more) = match self.fill(&mut page.events, sql, reader, low, high)? {
            End::Over if forwards => (high, high < last),
            End::Over => (low, low > Position::new(1)),
            End::Full { at } => (at, true),
            End::Limit { at } => (at, false),
        };
        (page.considered, page.more) = (at, more);
        Ok((page, at))
    }

    /// The positions to look at now: all that are left where nothing is filtered, else some, so
    /// that a page that finds little ends as well. None where there are none left.
    fn window(
        &self,
        connection: &Connection,
        sql: &Sql,
        from: Position,
        last: Position,
    ) -> Result<Option<(Position, Position)>, Failure> {
        if self.limit == Some(0) {
            return Ok(None);
        }
        let forwards = self.options.direction == Direction::Forwards;
        let (mut low, mut high) =
            if forwards { (from.plus(1), last) } else { (Position::new(1), from.minus(1)) };
        if low > high {
            return Ok(None);
        }
        if self.types.is_some() || self.names_streams() {
            // Begins with the next event that is left, so that a long stretch of removed ones
            // takes one page, not many.
            let text = if forwards { &sql.first_position_after } else { &sql.last_position_before };
            let next: Option<i64> =
                connection.prepare_cached(text)?.query_row([from.to_i64()], |row| row.get(0))?;
            let next = next.map(Position::from_i64);
            if forwards {
                high = next.map_or(last, |next| next.plus(PAGE_POSITIONS - 1).min(last));
            } else {
                low = next.map_or(low, |next| next.minus(PAGE_POSITIONS - 1).max(low));
            }
        }
        Ok(Some((low, high)))
    }

    fn names_streams(&self) -> bool {
        let Filter { category, prefix, .. } = &self.options.filter;
        category.is_some() || prefix.is_some()
    }

    fn fill(
        &self,
        events: &mut Vec<RecordedEvent>,
        sql: &Sql,
        reader: &mut Reader,
        low: Position,
        high: Position,
    ) -> Result<End, Failure> {
        let Reader { connection, decoder } = reader;
        let Filter { category, prefix, include_system, .. } = &self.options.filter;
        let decode = |row: &Row<'_>| {
            let stream = decoder.stream(connection, sql, row.get(1)?)?;
            // No stream of this backend begins with `$`; one that another tool put there does.
            let hidden = stream.is_system() && !include_system;
            if hidden { Ok(None) } else { decoder.event(row, stream).map(Some) }
        };
        let (low, high, types) = (low.to_i64(), high.to_i64(), self.types.as_deref());
        let forwards = self.options.direction == Direction::Forwards;
        if self.names_streams() {
            let text = if forwards { &sql.of_streams_forwards } else { &sql.of_streams_backwards };
            let category = category.as_ref().map(|c| c.as_str());
            let prefix = prefix.as_ref().map(|p| p.as_str());
            let mut statement = connection.prepare_cached(text)?;
            let rows = statement.query(params![low, high, types, category, prefix])?;
            fill(events, rows, self.limit, decode)
        } else {
            let text = if forwards { &sql.all_forwards } else { &sql.all_backwards };
            let mut statement = connection.prepare_cached(text)?;
            fill(events, statement.query(params![low, high, types])?, self.limit, decode)
        }
    }
}

/// Why a page has no more events.
enum End {
    /// There are no more rows.
    Over,
    /// The page is full; `at` is the last position that it considered.
    Full { at: Position },
    /// So many were asked for.
    Limit { at: Position },
}

/// Takes as many rows as make a page.
fn fill(
    events: &mut Vec<RecordedEvent>,
    mut rows: Rows<'_>,
    limit: Option<u64>,
    mut decode: impl FnMut(&Row<'_>) -> Result<Option<RecordedEvent>, Failure>,
) -> Result<End, Failure> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut at = Position::START;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if events.len() == PAGE_EVENTS || bytes >= PAGE_BYTES {
            return Ok(End::Full { at });
        }
        at = Position::from_i64(row.get(0)?);
        if let Some(event) = decode(row)? {
            bytes += event.data.len() + event.metadata.len();
            events.push(event);
        }
        if events.len() == limit {
            return Ok(End::Limit { at });
        }
    }
    Ok(End::Over)
}

/// The last position that any event ever had.
pub(crate) fn last_position(connection: &Connection, sql: &Sql) -> Result<Position, Failure> {
    let last: i64 =
        connection.prepare_cached(&sql.last_position)?.query_row([], |row| row.get(0))?;
    Ok(Position::from_i64(last))
}

/// The version that a stream had at a position.
pub(crate) fn version_at(
    connection: &Connection,
    sql: &Sql,
    stream: &StreamId,
    position: Position,
) -> Result<Version, Failure> {
    let head = rows::Head::load(connection, sql, stream)?;
    let Some(row) = head.row else { return Ok(Version::NONE) };
    let Some(first) = first_version(connection, sql, row)? else { return Ok(head.head.version) };
    // Position order is version order, and there are no gaps, so that halving finds it.
    let (mut low, mut high) = (first.minus(1).get(), head.head.version.get());
    while let ControlFlow::Continue(middle) = halve(low, high) {
        let found: Option<i64> = connection
            .prepare_cached(&sql.position_of)?
            .query_row(params![row, Version::new(middle).to_i64()], |row| row.get(0))
            .optional()?;
        let Some(found) = found else { return Err(gap(stream, middle).into()) };
        if Position::from_i64(found) <= position {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(Version::new(low))
}

/// The middle of what is left, above `low`.
fn halve(low: u64, high: u64) -> ControlFlow<(), u64> {
    if low < high {
        ControlFlow::Continue(low + (high - low).div_ceil(2))
    } else {
        ControlFlow::Break(())
    }
}

fn gap(stream: &StreamId, version: u64) -> Error {
    crate::error::corrupt(format!("version {version} is missing")).with_stream(stream)
}

/// The version of the first event that is left.
pub(crate) fn first_version(
    connection: &Connection,
    sql: &Sql,
    row: i64,
) -> Result<Option<Version>, Failure> {
    let first: Option<i64> =
        connection.prepare_cached(&sql.first_version)?.query_row([row], |row| row.get(0))?;
    Ok(first.map(Version::from_i64))
}
