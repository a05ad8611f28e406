//! The pages of reads and subscriptions. Each page takes the lock anew, so that no reader holds it
//! for long.

use std::borrow::Cow;

use annals_core::{
    Error, Filter, RecordedEvent, Result, StreamId,
    adapter::{Cursor, Page, Pages},
};
use async_trait::async_trait;

use crate::state::SharedState;

fn borrowed(event: &RecordedEvent) -> Result<Cow<'_, RecordedEvent>, Error> {
    Ok(Cow::Borrowed(event))
}

/// The events of one stream, in version order.
#[derive(Debug)]
pub(crate) struct StreamPages {
    pub(crate) state: SharedState,
    pub(crate) stream: StreamId,
    pub(crate) cursor: Cursor,
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let state = self.state.read();
        let info = state.info(&self.stream);
        let (low, high) = self.cursor.range().into_inner();
        let first = info.first_version.unwrap_or(info.version.plus(1));
        let versions = low.max(first.get())..=high.min(info.version.get());
        let events = versions.filter_map(|v| state.event(&self.stream, v.into()).map(borrowed));
        self.cursor.page(events, &Filter::default(), state.last_position())
    }
}

/// The events of all streams, in position order.
#[derive(Debug)]
pub(crate) struct AllPages {
    pub(crate) state: SharedState,
    pub(crate) filter: Filter,
    pub(crate) cursor: Cursor,
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let state = self.state.read();
        let (low, high) = self.cursor.range().into_inner();
        let positions = low.max(1)..=high.min(state.last_position().get());
        let events = positions.filter_map(|at| state.event_at(at.into()).map(borrowed));
        self.cursor.page(events, &self.filter, state.last_position())
    }
}
