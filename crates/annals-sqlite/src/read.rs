//! Reads, a page at a time. Each page is one short transaction, so an open read blocks no append
//! and does not keep SQLite from copying the WAL into the file.

use std::sync::Arc;

use annals_core::{
    Direction, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use crate::{
    error::Failure,
    readers::{Reader, Readers},
    rows::last_position,
    sql::Sql,
};

/// The most events of a page: enough to make up for the change of threads.
const PAGE_EVENTS: usize = 1_024;
/// A page ends with the event that brings its payloads to this many bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How many positions a filtered page looks at, which takes SQLite a few milliseconds.
const PAGE_POSITIONS: u64 = 16 * PAGE_EVENTS as u64;

/// The pages of one stream.
pub(crate) struct StreamPages {
    readers: Arc<Readers>,
    query: StreamQuery,
}

/// What is left to read of a stream.
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
        let (page, next) = self.readers.read(move |reader| query.page(reader)).await?;
        let options = &mut self.query.options;
        options.from = next.or(options.from);
        options.limit = options.limit.map(|limit| limit.saturating_sub(page.events.len() as u64));
        Ok(page)
    }
}

impl StreamQuery {
    /// The next page, and the version with which the page after it begins; `None` if this page has
    /// no events.
    fn page(&self, reader: &mut Reader) -> Result<(Page, Option<Version>), Failure> {
        let Self { stream, options } = self;
        let Reader { database, connection, decoder, .. } = reader;
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
        if let PageEnd::Full { .. } = end {
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

/// The pages of all streams.
pub(crate) struct AllPages {
    readers: Arc<Readers>,
    query: AllQuery,
}

/// What is left to read of all streams.
#[derive(Clone)]
struct AllQuery {
    options: Arc<ReadAll>,
    /// The wanted event types as a JSON array; `None` if all are wanted.
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
        let (page, from) = self.readers.read(move |reader| query.page(reader)).await?;
        self.query.from = Some(from);
        let read = page.events.len() as u64;
        self.query.limit = self.query.limit.map(|limit| limit.saturating_sub(read));
        Ok(page)
    }
}

impl AllQuery {
    /// The next page, and the position from which the page after it goes on.
    fn page(&self, reader: &mut Reader) -> Result<(Page, Position), Failure> {
        let forwards = self.options.direction == Direction::Forwards;
        let last = last_position(&reader.connection, &reader.database.sql)?;
        let from = match self.from {
            Some(from) if forwards => from,
            None if forwards => Position::START,
            from => from.unwrap_or(last.plus(1)).min(last.plus(1)),
        };
        let mut page = Page { events: Vec::new(), considered: from, more: false };
        let window = self.window(&reader.connection, &reader.database.sql, from, last)?;
        let Some((low, high)) = window else { return Ok((page, from)) };
        (page.considered, page.more) = match self.fill(&mut page.events, reader, low, high)? {
            PageEnd::NoMoreRows if forwards => (high, high < last),
            PageEnd::NoMoreRows => (low, low > Position::new(1)),
            PageEnd::Full { at } => (at, true),
            PageEnd::Limit { at } => (at, false),
        };
        let considered = page.considered;
        Ok((page, considered))
    }

    /// The positions that this page looks at, both inclusive: without a filter all that are left,
    /// with a filter only some, so that a page that finds few events also ends soon. `None` if no
    /// positions are left.
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
        if self.types.is_some() || self.filters_streams() {
            // Begin with the next event that is left, so that a long stretch of removed events
            // takes one page and not many.
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

    fn filters_streams(&self) -> bool {
        let Filter { category, prefix, .. } = &self.options.filter;
        category.is_some() || prefix.is_some()
    }

    fn fill(
        &self,
        events: &mut Vec<RecordedEvent>,
        reader: &mut Reader,
        low: Position,
        high: Position,
    ) -> Result<PageEnd, Failure> {
        let Reader { database, connection, decoder, .. } = reader;
        let sql = &database.sql;
        let Filter { category, prefix, include_system, .. } = &self.options.filter;
        let decode = |row: &Row<'_>| {
            let stream = decoder.stream(connection, sql, row.get(1)?)?;
            // This store writes no stream that begins with `$`, but another tool may have written
            // one.
            let hidden = stream.is_system() && !include_system;
            if hidden { Ok(None) } else { decoder.event(row, stream).map(Some) }
        };
        let (low, high, types) = (low.to_i64(), high.to_i64(), self.types.as_deref());
        let forwards = self.options.direction == Direction::Forwards;
        if self.filters_streams() {
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
enum PageEnd {
    /// The statement has no more rows.
    NoMoreRows,
    /// The page is full. It has considered all positions up to `at`.
    Full { at: Position },
    /// The limit of the read is reached.
    Limit { at: Position },
}

/// Adds the events of rows to a page until it is full. `decode` returns `None` for an event that is
/// left out.
fn fill(
    events: &mut Vec<RecordedEvent>,
    mut rows: Rows<'_>,
    limit: Option<u64>,
    mut decode: impl FnMut(&Row<'_>) -> Result<Option<RecordedEvent>, Failure>,
) -> Result<PageEnd, Failure> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut at = Position::START;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if events.len() == PAGE_EVENTS || bytes >= PAGE_BYTES {
            return Ok(PageEnd::Full { at });
        }
        at = Position::from_i64(row.get(0)?);
        if let Some(event) = decode(row)? {
            bytes += event.size();
            events.push(event);
        }
        if events.len() == limit {
            return Ok(PageEnd::Limit { at });
        }
    }
    Ok(PageEnd::NoMoreRows)
}
