//! The pages of reads and subscriptions. Each page takes the lock anew, so that no reader holds it
//! for long.

use annals_core::{
    Direction, Position, ReadAll, ReadStream, Result, StreamId,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::state::SharedState;

/// The most events of a page: many enough to make up for taking the lock, few enough to copy while
/// the lock is held.
const PAGE: usize = 512;
/// The most positions that a page looks at, if its filter leaves most events out.
const CONSIDERED: u64 = 16 * PAGE as u64;

/// The events of one stream, in version order.
#[derive(Debug)]
pub(crate) struct StreamPages {
    pub(crate) state: SharedState,
    pub(crate) stream: StreamId,
    /// What is left to read.
    pub(crate) options: ReadStream,
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let state = self.state.read();
        let ReadStream { from, direction, limit, .. } = &mut self.options;
        let info = state.info(&self.stream);
        let mut page = Page { events: Vec::new(), considered: state.last_position(), more: false };
        let Some(first) = info.first_version else { return Ok(page) };
        let count = limit.unwrap_or(u64::MAX).min(PAGE as u64);
        // The versions of this page, both inclusive.
        let (low, high) = match direction {
            Direction::Forwards => {
                let low = from.map_or(first, |from| from.max(first));
                (low, low.plus(count).minus(1).min(info.version))
            }
            Direction::Backwards => {
                let high = from.map_or(info.version, |from| from.min(info.version));
                (high.plus(1).minus(count).max(first), high)
            }
        };
        if count == 0 || low > high {
            return Ok(page);
        }
        let versions = low.get()..=high.get();
        page.events =
            versions.filter_map(|v| state.event(&self.stream, v.into()).cloned()).collect();
        *limit = limit.map(|limit| limit - page.events.len() as u64);
        match direction {
            Direction::Forwards => {
                page.more = high < info.version;
                if let Some(last) = page.events.last().filter(|_| page.more) {
                    page.considered = last.position;
                }
                *from = Some(high.plus(1));
            }
            Direction::Backwards => {
                page.more = low > first;
                page.events.reverse();
                *from = Some(low.minus(1));
            }
        }
        Ok(page)
    }
}

/// The events of all streams, in position order.
#[derive(Debug)]
pub(crate) struct AllPages {
    pub(crate) state: SharedState,
    /// What is left to read.
    pub(crate) options: ReadAll,
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let state = self.state.read();
        let ReadAll { filter, from, direction, limit, .. } = &mut self.options;
        let last = state.last_position();
        let mut at = match direction {
            Direction::Forwards => from.unwrap_or(Position::START),
            Direction::Backwards => from.unwrap_or(last.plus(1)).min(last.plus(1)),
        };
        let mut events = Vec::new();
        let mut considered = 0;
        let more = loop {
            let is_end = match direction {
                Direction::Forwards => at >= last,
                Direction::Backwards => at <= Position::new(1),
            };
            if is_end || *limit == Some(0) {
                break false;
            }
            if events.len() == PAGE || considered == CONSIDERED {
                break true;
            }
            at = match direction {
                Direction::Forwards => at.plus(1),
                Direction::Backwards => at.minus(1),
            };
            considered += 1;
            let event = state.event_at(at);
            if let Some(event) = event.filter(|e| filter.matches(&e.stream, &e.event_type)) {
                events.push(event.clone());
                *limit = limit.map(|limit| limit - 1);
            }
        };
        *from = Some(at);
        Ok(Page { events, considered: at, more })
    }
}
