//! Reads one page of events: one statement, so that an open read keeps no connection, no
//! transaction and no snapshot.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_core::{Position, RecordedEvent, Result, StreamId};
use futures::{TryStreamExt, stream::BoxStream};
use sqlx::postgres::PgRow;

use crate::{
    connections::Connections,
    error::{Failure, driver},
    rows::Decoder,
    sql::Statement,
};

/// The most events of a page.
const PAGE_EVENTS: usize = 1_000;
/// A page ends with the event that brings its payloads to this many bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Runs statements that read events, and limits how much each of them gives.
#[derive(Debug)]
pub(crate) struct PageReader {
    connections: Arc<Connections>,
    /// How many events to ask for at once. The server sends what it was asked for, however large
    /// the events are, and only closing the connection stops it. So fewer are asked for if the
    /// events of the last page were large.
    size: AtomicUsize,
}

/// The events that one statement gave, as many as go into a page.
pub(crate) struct PageRows {
    pub(crate) events: Vec<RecordedEvent>,
    /// The number of rows, including system events that were left out.
    count: usize,
    /// The bytes of the payloads of these rows.
    bytes: usize,
    /// The position of the last row, even if its event was left out.
    pub(crate) last: Option<Position>,
    /// Whether the statement may have found more than the page holds.
    pub(crate) more: bool,
}

impl PageReader {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        Self { connections, size: AtomicUsize::new(PAGE_EVENTS) }
    }

    /// Runs a statement, which is given the most rows to ask for, and makes events of its rows: of
    /// `stream`, or of the streams that the rows name.
    pub(crate) async fn fetch<'q>(
        &self,
        decoder: &mut Decoder,
        stream: Option<&StreamId>,
        limit: Option<u64>,
        include_system: bool,
        statement: impl Fn(i64) -> Statement<'q>,
    ) -> Result<PageRows> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let most = self.size.load(Ordering::Relaxed).min(limit);
        let most_rows = i64::try_from(most).unwrap_or(i64::MAX);
        let mut connection = self.connections.get().await.map_err(driver)?;
        loop {
            let rows = statement(most_rows).fetch(&mut *connection);
            let mut page =
                PageRows { events: Vec::new(), count: 0, bytes: 0, last: None, more: false };
            let taken = page.take(rows, decoder, stream, include_system);
            match self.connections.with_timeout(taken).await {
                Ok(()) => {}
                Err(Failure::Driver(error)) => {
                    connection = connection.replace_after(error).await.map_err(driver)?;
                    continue;
                }
                Err(Failure::InvalidAnswer(error)) => return Err(error),
            }
            if page.count > 0 {
                self.adapt(&page);
            }
            page.more = page.count == most;
            if page.bytes >= PAGE_BYTES && !page.more {
                // The server may still be sending rows that go beyond the page.
                page.more = true;
                connection.close();
            } else {
                connection.give_back();
            }
            return Ok(page);
        }
    }

    /// Asks for as many events next time as would fill a page if they are as large as these.
    fn adapt(&self, page: &PageRows) {
        let fitting = PAGE_BYTES.saturating_mul(page.count) / page.bytes.max(1);
        self.size.store(fitting.clamp(1, PAGE_EVENTS), Ordering::Relaxed);
    }
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
            if self.bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(())
    }
}
