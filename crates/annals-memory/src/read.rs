//! Reads and subscriptions, a page at a time, so that no reader holds the lock for long.

use std::sync::Arc;

use annals_core::{
    Direction, Error, ErrorKind, Position, ReadAll, ReadStream, Result, StreamId,
    adapter::{Page, Pages, Tail},
};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::store::Shared;

/// Enough to make the lock cheap, little enough to copy at once.
const PAGE: usize = 512;
/// How many events a filter may leave out before the lock is let go.
const CONSIDERED: u64 = 16 * PAGE as u64;

/// One stream, from a version on.
pub(crate) struct StreamPages {
    shared: Arc<Shared>,
    stream: StreamId,
    options: ReadStream,
}

impl StreamPages {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, options: ReadStream) -> Self {
        Self { shared, stream, options }
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let state = self.shared.read();
        let info = state.info(&self.stream);
        let considered = state.last_position();
        let mut page = Page { events: Vec::new(), considered, more: false };
        let Some(first) = info.first_version else { return Ok(page) };
        let left = self.options.limit.unwrap_or(u64::MAX);
        let count = left.min(PAGE as u64);
        let from = self.options.from;
        let (low, high) = match self.options.direction {
            Direction::Forwards => {
                let low = from.map_or(first, |from| from.max(first));
                (low, low.plus(count).minus(1).min(info.version))
            }
            Direction::Backwards => {
                let high = from.map_or(info.version, |from| from.min(info.version));
                (first.max(high.plus(1).minus(count)), high)
            }
        };
        if count == 0 || low > high {
            return Ok(page);
        }
        page.events = (low.get()..=high.get())
            .filter_map(|version| state.event(&self.stream, version.into()).cloned())
            .collect();
        self.options.limit = self.options.limit.map(|limit| limit - page.events.len() as u64);
        match self.options.direction {
            Direction::Forwards => {
                page.more = high < info.version;
                if let Some(last) = page.events.last().filter(|_| page.more) {
                    page.considered = last.position;
                }
                self.options.from = Some(high.plus(1));
            }
            Direction::Backwards => {
                page.more = low > first;
                page.events.reverse();
                self.options.from = Some(low.minus(1));
            }
        }
        Ok(page)
    }
}

/// The whole store from one position on, itself excluded.
pub(crate) struct AllPages {
    shared: Arc<Shared>,
    options: ReadAll,
}

impl AllPages {
    pub(crate) fn new(shared: Arc<Shared>, options: ReadAll) -> Self {
        Self { shared, options }
    }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let state = self.shared.read();
        let last = state.last_position().get();
        let forwards = self.options.direction == Direction::Forwards;
        let from = self.options.from.map(Position::get);
        let mut at = if forwards {
            from.unwrap_or(0)
        } else {
            from.map_or(last + 1, |from| from.min(last + 1))
        };
        let mut left = self.options.limit.unwrap_or(u64::MAX);
        let mut events = Vec::new();
        let mut considered = 0;
        let more = loop {
            let end = if forwards { at >= last } else { at <= 1 };
            if end || left == 0 {
                break false;
            }
            if events.len() == PAGE || considered == CONSIDERED {
                break true;
            }
            at = if forwards { at + 1 } else { at - 1 };
            considered += 1;
            let filter = &self.options.filter;
            if let Some(event) = state.at(at).filter(|e| filter.matches(&e.stream, &e.event_type)) {
                events.push(event.clone());
                left -= 1;
            }
        };
        self.options.limit = self.options.limit.map(|_| left);
        self.options.from = Some(at.into());
        Ok(Page { events, considered: at.into(), more })
    }
}

/// A subscription's pages: those of a read, and then whatever comes.
pub(crate) struct Live<P> {
    pages: P,
    appended: watch::Receiver<Position>,
}

impl<P: Pages> Live<P> {
    pub(crate) fn new(appended: watch::Receiver<Position>, pages: P) -> Self {
        Self { pages, appended }
    }
}

#[async_trait]
impl<P: Pages> Pages for Live<P> {
    async fn next_page(&mut self) -> Result<Page> {
        // Marked as seen before the page is read: what comes in between wakes the next call.
        self.appended.borrow_and_update();
        self.pages.next_page().await
    }
}

#[async_trait]
impl<P: Pages> Tail for Live<P> {
    async fn changed(&mut self) -> Result<()> {
        self.appended
            .changed()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the store is gone").with_source(e))
    }
}
