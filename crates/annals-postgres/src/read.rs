//! Reads one stream.

use std::sync::Arc;

use annals_core::{
    Position, ReadStream, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::{
    database::Database,
    recent::{Subscribed, Touched},
    rows::Decoder,
};

/// The pages of one stream, from a version on.
pub(crate) struct StreamPages {
    database: Arc<Database>,
    stream: StreamId,
    options: ReadStream,
    /// For a subscription, which needs `Page::considered`.
    live: Option<LiveStream>,
    decoder: Decoder,
}

/// What a subscription to a stream knows.
struct LiveStream {
    /// Every event up to this position was looked at; `None` before the first page.
    looked: Option<Position>,
    /// The position of the last event that the subscriber has seen, as far as it is known.
    seen: Position,
    _counted: Subscribed,
}

impl StreamPages {
    pub(crate) fn new(database: Arc<Database>, stream: StreamId, options: ReadStream) -> Self {
        Self { database, stream, options, live: None, decoder: Decoder::default() }
    }

    /// The pages of a subscription, which begins after a version. `seen` is the position that the
    /// subscriber has named, if it has named one.
    pub(crate) fn live(
        database: Arc<Database>,
        stream: StreamId,
        after: Version,
        seen: Position,
    ) -> Self {
        let options = ReadStream::default().with_from(after.plus(1));
        let _counted = database.recent.subscribe();
        let live = LiveStream { looked: None, seen, _counted };
        Self { live: Some(live), ..Self::new(database, stream, options) }
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let mut settled = Position::START;
        if let Some(live) = &mut self.live {
            // Asked before the events are read, so that every event up to this position is visible
            // to the statement that reads them.
            let watermarks = self.database.horizon.ask().await?;
            settled = watermarks.settled();
            // If that event was lost, the stream may have other events at the same versions.
            self.database.horizon.check_place(live.seen)?;
            let is_ours = |event: &Touched| event.stream == self.stream;
            // Behind a gap there may be events of this stream, which need not wait for it to close.
            if !watermarks.has_gap()
                && let Some(looked) = live.looked
                && (looked == settled
                    || self.database.recent.has_none(looked, settled, is_ours).await)
            {
                live.looked = Some(settled);
                return Ok(Page { events: Vec::new(), considered: settled, more: false });
            }
        }
        let sql = &self.database.sql;
        let texts = (&sql.stream_forwards, &sql.stream_backwards);
        let (pages, decoder) = (&self.database.pages, &mut self.decoder);
        let mut page = pages.of_stream(decoder, &self.stream, &mut self.options, texts).await?;
        if let (Some(live), Some(event)) = (&mut self.live, page.events.last()) {
            live.seen = event.position;
        }
        if !page.more {
            page.considered = page.considered.max(settled);
            if let Some(live) = &mut self.live {
                live.looked = Some(settled);
            }
        }
        Ok(page)
    }
}
