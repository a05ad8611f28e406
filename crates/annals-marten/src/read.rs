//! Reads one stream.

use std::sync::Arc;

use annals_core::{
    Position, ReadStream, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use annals_postgres_shared::rows::Decoder;
use async_trait::async_trait;

use crate::database::Database;

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
        let mut settled = Position::START;
        if self.live {
            // Asked before the events are read, so that every event up to this position is visible
            // to the statement that reads them.
            settled = self.database.horizon.ask().await?.settled();
        }
        let sql = &self.database.sql;
        let texts = (&sql.stream_forwards, &sql.stream_backwards);
        let (pages, decoder) = (&self.database.pages, &mut self.decoder);
        let mut page = pages.of_stream(decoder, &self.stream, &mut self.options, texts).await?;
        if !page.more {
            page.considered = page.considered.max(settled);
        }
        Ok(page)
    }
}
