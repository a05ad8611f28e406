//! Reads, a page at a time.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{Error, EventStream, Position, RecordedEvent, Result};

/// Events that were read together.
#[derive(Clone, Debug)]
pub struct Page {
    /// The next matching events. May be empty although more events follow: see `more`.
    pub events: Vec<RecordedEvent>,
    /// The read has looked at every position up to this one, and `events` has all that match.
    /// Only subscriptions use this number.
    pub considered: Position,
    /// Whether another page may be read at once. `false` ends a read, and makes a subscription
    /// wait for new events.
    pub more: bool,
}

/// A read that gives its events a page at a time.
#[async_trait]
pub trait Pages: Send + 'static {
    /// Reads the page that follows the last one.
    async fn next_page(&mut self) -> Result<Page>;
}

/// Makes a stream of events from pages. No page is read before the stream is polled for it.
pub fn read(pages: impl Pages) -> EventStream {
    stream::try_unfold(Some(pages), |pages| async {
        let Some(mut pages) = pages else { return Ok::<_, Error>(None) };
        let page = pages.next_page().await?;
        let events = stream::iter(page.events.into_iter().map(Ok));
        Ok(Some((events, page.more.then_some(pages))))
    })
    .try_flatten()
    .boxed()
}

/// A read whose first item is this error, and which has no other.
pub fn failed_read(error: Error) -> EventStream {
    stream::iter([Err(error)]).boxed()
}
