//! Pages of events. Each page is a read transaction of its own, so that no reader holds one for long.

use std::sync::Arc;

use annals_core::{
    Direction, Filter, Result, StreamId,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::tables::{EVENTS, Fault, File, NUMBERS, PLACES, corrupt, event, last_position};

/// The most events of a page.
const PAGE: u64 = 256;
/// The most events that a page looks at, where its filter leaves most of them out.
const CONSIDERED: usize = 4_096;

/// The events of one stream, in version order, or of all streams, in position order.
pub(crate) struct EventPages {
    pub(crate) file: Arc<File>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) filter: Filter,
    /// The first version or position that is left to read.
    pub(crate) from: Option<u64>,
    pub(crate) direction: Direction,
    pub(crate) limit: Option<u64>,
}

#[async_trait]
impl Pages for EventPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Self { stream, filter, from, direction, limit, .. } = self;
        let (stream, filter, limit) = (stream.clone(), filter.clone(), limit.unwrap_or(u64::MAX));
        let forwards = *direction == Direction::Forwards;
        let (low, high) = match forwards {
            true => (from.unwrap_or(0), u64::MAX),
            false => (0, from.unwrap_or(u64::MAX)),
        };
        let read = self.file.read(move |transaction| {
            let events = transaction.open_table(EVENTS)?;
            let places = transaction.open_table(PLACES)?;
            let last = last_position(&transaction.open_table(NUMBERS)?)?;
            let mut all = events.range(low..=high)?;
            let name = stream.as_ref().map_or("", StreamId::as_str);
            let mut of_stream = places.range((name, low)..=(name, high))?;
            let mut next = || -> Result<_, Fault> {
                if stream.is_none() {
                    let entry = if forwards { all.next() } else { all.next_back() };
                    let Some((position, record)) = entry.transpose()? else { return Ok(None) };
                    return Ok(Some(event(position.value(), record.value())?));
                }
                let entry = if forwards { of_stream.next() } else { of_stream.next_back() };
                let Some((_, place)) = entry.transpose()? else { return Ok(None) };
                let (position, _) = place.value();
                let record = events.get(position)?;
                let record = record.ok_or_else(|| corrupt("a stream lacks an event"))?;
                Ok(Some(event(position, record.value())?))
            };
            let mut page = Page { events: Vec::new(), considered: last, more: false };
            let mut looked_at = None;
            for _ in 0..CONSIDERED {
                if page.events.len() as u64 == limit.min(PAGE) {
                    break;
                }
                // Without another event, everything up to the last position was looked at.
                let Some(event) = next()? else { return Ok((page, looked_at)) };
                looked_at = Some((event.position, event.version));
                if filter.matches(&event.stream, &event.event_type) {
                    page.events.push(event);
                }
            }
            page.more = (page.events.len() as u64) < limit;
            page.considered = looked_at.map_or(last, |(position, _)| position);
            Ok((page, looked_at))
        });
        let (page, looked_at) = read.await?;
        self.limit = self.limit.map(|left| left - page.events.len() as u64);
        if let Some((position, version)) = looked_at {
            let place = if self.stream.is_some() { version.get() } else { position.get() };
            self.from = Some(if forwards { place + 1 } else { place - 1 });
        }
        Ok(page)
    }
}
