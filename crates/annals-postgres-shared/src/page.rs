//! Reads one page of events: one statement, so that an open read keeps no connection, no
//! transaction and no snapshot.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_core::{
    Direction, Position, ReadStream, RecordedEvent, Result, StreamId, Version, adapter::Page,
};
use futures::{TryStreamExt, stream::BoxStream};
use sqlx::postgres::PgRow;

use crate::{
    connections::Connections,
    error::{Failure, driver},
    rows::Decoder,
    session::Pooling,
    sql::{Statement, query},
};

/// The most events of a page.
const PAGE_EVENTS: usize = 1_000;
/// A page ends with the event that brings its payloads to this many bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// How many pages are limited by the server after one that was larger.
const LIMITED_PAGES: usize = 100;

/// Runs statements that read events, and limits how much each of them gives.
#[derive(Debug)]
pub struct PageReader {
    connections: Arc<Connections>,
    /// For how many more pages the server limits the bytes. Otherwise it sends as many events as it
    /// was asked for, however large they are, and only closing the connection stops it. The server has
    /// to add up sizes for that, so it does it only for stores that have large events.
    limited: AtomicUsize,
}

/// The events that one statement gave, as many as go into a page.
pub struct PageRows {
    pub events: Vec<RecordedEvent>,
    /// The number of rows, including system events that were left out.
    count: usize,
    /// The bytes of the payloads of these rows.
    bytes: usize,
    /// The position of the last row, even if its event was left out.
    pub last: Option<Position>,
    /// Whether the statement may have found more than the page holds.
    pub more: bool,
    /// Whether the answer was not read to its end.
    is_cut: bool,
}

impl PageReader {
    pub fn new(connections: Arc<Connections>) -> Self {
        Self { connections, limited: AtomicUsize::new(0) }
    }

    /// Runs a statement, which is bound with the most rows to ask for, and makes events of its rows:
    /// of `stream`, or of the streams that the rows name.
    pub async fn fetch<'q>(
        &self,
        decoder: &mut Decoder,
        stream: Option<&StreamId>,
        limit: Option<u64>,
        include_system: bool,
        text: &Arc<str>,
        bind: impl Fn(Statement<'q>, i64) -> Statement<'q>,
    ) -> Result<PageRows> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let most = PAGE_EVENTS.min(limit);
        let fewer = |pages: usize| pages.checked_sub(1);
        // In a transaction of several statements, the answer has to be read to its end.
        let is_limited = matches!(self.connections.pooling, Pooling::Transactions { .. })
            || self.limited.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok();
        let text = if is_limited { limited(text) } else { text.clone() };
        let most_rows = i64::try_from(most).unwrap_or(i64::MAX);
        let mut connection = self.connections.get().await.map_err(driver)?;
        loop {
            let mut page = PageRows {
                events: Vec::new(),
                count: 0,
                bytes: 0,
                last: None,
                more: false,
                is_cut: false,
            };
            let taken = async {
                connection.begin().await?;
                let rows =
                    connection.prepared(bind(query(&text), most_rows)).fetch(&mut *connection);
                let taken = page.take(rows, decoder, stream, include_system, is_limited).await;
                connection.end(taken).await
            };
            match self.connections.with_timeout(taken).await {
                Ok(()) => {}
                Err(Failure::Driver(error)) => {
                    connection = connection.replace_after(error).await.map_err(driver)?;
                    continue;
                }
                Err(Failure::InvalidAnswer(error)) => return Err(error),
            }
            page.more = page.count == most || page.bytes >= PAGE_BYTES;
            if page.bytes >= PAGE_BYTES && page.count < most {
                self.limited.store(LIMITED_PAGES, Ordering::Relaxed);
            }
            if page.is_cut && page.count < most {
                // The server may still be sending rows that go beyond the page.
                connection.close();
            } else {
                connection.give_back();
            }
            return Ok(page);
        }
    }
}

impl PageReader {
    /// Reads the next page of a stream, by one of two statements, which are bound with the stream, the
    /// version from which to read, and the most rows. `options` then begin after the page, and
    /// `considered` is its last position.
    pub async fn of_stream(
        &self,
        decoder: &mut Decoder,
        stream: &StreamId,
        options: &mut ReadStream,
        (forwards, backwards): (&Arc<str>, &Arc<str>),
    ) -> Result<Page> {
        let mut page = Page { events: Vec::new(), considered: Position::START, more: false };
        if options.limit == Some(0) {
            return Ok(page);
        }
        let is_forwards = options.direction == Direction::Forwards;
        let (text, start) = if is_forwards { (forwards, 0) } else { (backwards, i64::MAX) };
        let from = options.from.map_or(start, Version::to_i64);
        let rows = self
            .fetch(decoder, Some(stream), options.limit, true, text, |statement, most| {
                statement.bind(stream.as_str()).bind(from).bind(most)
            })
            .await?;
        (page.events, page.more) = (rows.events, rows.more);
        let Some(last) = page.events.last() else { return Ok(page) };
        page.considered = last.position;
        let next = if is_forwards { last.version.plus(1) } else { last.version.minus(1) };
        options.from = Some(next);
        options.limit = options.limit.map(|limit| limit.saturating_sub(page.events.len() as u64));
        page.more &= options.limit != Some(0) && (is_forwards || last.version > Version::FIRST);
        Ok(page)
    }
}

/// The statement, so that the server sends no row after those that fill a page.
fn limited(text: &Arc<str>) -> Arc<str> {
    format!(
        "SELECT * FROM (SELECT page.*, pg_catalog.sum( \
             pg_catalog.octet_length(data) + pg_catalog.octet_length(metadata) \
         ) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM ({text}) AS page) AS sized \
         WHERE before IS NULL OR before < {PAGE_BYTES}"
    )
    .into()
}

impl PageRows {
    /// Takes rows until the page is full. Each row is decoded when it arrives: that is faster than
    /// `fetch_all`, since the server makes the next row meanwhile, and the read buffer is used
    /// again (`docs/adr/0004-sqlx.md`).
    async fn take(
        &mut self,
        mut rows: BoxStream<'_, sqlx::Result<PgRow>>,
        decoder: &mut Decoder,
        stream: Option<&StreamId>,
        include_system: bool,
        is_limited: bool,
    ) -> Result<(), Failure> {
        while let Some(row) = rows.try_next().await? {
            let event = decoder.event(&row, stream)?;
            self.count += 1;
            self.bytes += event.data.len() + event.metadata.len();
            self.last = Some(event.position);
            // A store writes no stream that begins with `$`, but another program may have.
            if include_system || !event.stream.is_system() {
                self.events.push(event);
            }
            if self.bytes >= PAGE_BYTES && !is_limited {
                self.is_cut = true;
                break;
            }
        }
        Ok(())
    }
}
