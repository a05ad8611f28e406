//! Reads one stream.

use std::sync::Arc;

use annals_core::{
    Direction, Position, ReadStream, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use annals_postgres_shared::rows::Decoder;
use async_trait::async_trait;

use crate::{database::Database, sql::Sql};

/// The pages of one stream, from a version on.
pub(crate) struct StreamPages {
    database: Arc<Database>,
    stream: StreamId,
    options: ReadStream,
    /// Whether a subscription reads them, which needs `Page::considered`.
    live: bool,
    decoder: Decoder,
}

impl StreamPages {
    pub(crate) fn new(database: Arc<Database>, stream: StreamId, options: ReadStream) -> Self {
        Self { database, stream, options, live: false, decoder: Decoder::default() }
    }

    /// The pages of a subscription, which begins after a version.
    pub(crate) fn live(database: Arc<Database>, stream: StreamId, after: Version) -> Self {
        let options = ReadStream::default().with_from(after.plus(1));
        Self { live: true, ..Self::new(database, stream, options) }
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let mut page = Page { events: Vec::new(), considered: Position::START, more: false };
        if self.options.limit == Some(0) {
            return Ok(page);
        }
        if self.live {
            // Asked before the events are read, so that every event up to this position is visible
            // to the statement that reads them.
            page.considered = self.database.horizon.ask().await?.settled();
        }
        let forwards = self.options.direction == Direction::Forwards;
        let Sql { stream_forwards, stream_backwards, .. } = &*self.database.sql;
        let text = if forwards { stream_forwards } else { stream_backwards };
        let from = match self.options.from {
            Some(from) => from.to_i64(),
            None if forwards => 0,
            None => i64::MAX,
        };
        let (stream, limit) = (Some(&self.stream), self.options.limit);
        let pages = &self.database.pages;
        let rows = pages
            .fetch(&mut self.decoder, stream, limit, true, text, |statement, most| {
                statement.bind(self.stream.as_str()).bind(from).bind(most)
            })
            .await?;
        (page.events, page.more) = (rows.events, rows.more);
        let Some(last) = page.events.last() else { return Ok(page) };
        page.considered =
            if page.more { last.position } else { page.considered.max(last.position) };
        self.options.from =
            Some(if forwards { last.version.plus(1) } else { last.version.minus(1) });
        self.options.limit = limit.map(|limit| limit.saturating_sub(page.events.len() as u64));
        page.more &= self.options.limit != Some(0) && (forwards || last.version > Version::FIRST);
        Ok(page)
    }
}
