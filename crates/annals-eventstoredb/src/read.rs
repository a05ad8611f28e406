//! Reads: of one stream, of all, page by page.

use std::sync::Arc;

use annals_core::{
    Direction, EventStream, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId,
    Version,
    adapter::{self, Page, Pages},
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use kurrentdb::{Position as At, RecordedEvent as Stored};

use crate::{
    codec::{position, recorded},
    error::corrupt,
    filter::{On, ServerFilter},
    reader::{From, Next, Reader, What},
    store::Shared,
};

/// The most events of a page, which is one request: enough that its round trip does not count. What
/// is open and not read takes from what the connection may have under way, for appends as well, so
/// that nothing stays open between two pages.
const PAGE_EVENTS: u64 = 1_024;
/// A page ends with the event that makes it this large, so that memory stays bounded.
const PAGE_BYTES: usize = 1 << 20;

pub(crate) fn nothing() -> EventStream {
    stream::empty().boxed()
}

pub(crate) fn read_stream(
    shared: Arc<Shared>,
    stream: &StreamId,
    options: &ReadStream,
) -> EventStream {
    // Revisions count from 0; the greatest that the server knows is less than half of ours.
    let revision = |version: Version| {
        let revision = version.minus(1).get();
        if i64::try_from(revision).is_ok() { Some(revision) } else { None }
    };
    let from = match (options.from.map(|v| (v, revision(v))), options.direction) {
        (None, _) | (Some((_, None)), Direction::Backwards) => From::First,
        (Some((Version::NONE, _)), Direction::Backwards)
        | (Some((_, None)), Direction::Forwards) => return nothing(),
        (Some((_, Some(revision))), _) => From::Revision(revision),
    };
    if options.limit == Some(0) {
        return nothing();
    }
    let pages = StreamPages::new(shared, stream, options.direction, from, options.limit);
    adapter::read(pages)
}

pub(crate) fn read_all(shared: Arc<Shared>, options: ReadAll) -> EventStream {
    let ReadAll { filter, from, direction, limit, .. } = options;
    let backwards = direction == Direction::Backwards;
    if limit == Some(0) || (backwards && from == Some(Position::START)) {
        return nothing();
    }
    adapter::read(AllPages::new(shared, filter, direction, from, limit))
}

/// The events of a page, and what is known with them.
pub(crate) struct Batch {
    pub(crate) events: Vec<RecordedEvent>,
    /// The position of the last event that was considered, where there is one.
    pub(crate) last: Option<Position>,
    /// Whether there may be more already.
    pub(crate) more: bool,
}

/// Reads towards a page the events that are wanted, and as many as are left.
async fn fill(
    reader: &mut Reader,
    count: u64,
    left: &mut Option<u64>,
    mut wanted: impl FnMut(Stored) -> Result<Option<RecordedEvent>>,
) -> Result<Batch> {
    let (mut events, mut bytes, mut last) = (Vec::new(), 0, None);
    let more = loop {
        if *left == Some(0) {
            break false;
        }
        if bytes >= PAGE_BYTES {
            break true;
        }
        match reader.next(count).await? {
            Next::End => break false,
            Next::Enough => break true,
            Next::Event(event) => {
                bytes += event.data.len() + event.custom_metadata.len();
                last = Some(position(&event));
                if let Some(event) = wanted(event)? {
                    events.push(event);
                    *left = left.map(|left| left.saturating_sub(1));
                }
            }
        }
    };
    reader.close();
    Ok(Batch { events, last, more })
}

/// All streams.
pub(crate) struct AllPages {
    reader: Reader,
    shared: Arc<Shared>,
    filter: Filter,
    /// Whether the server leaves out all that has to be left out.
    exact: bool,
    left: Option<u64>,
    /// Events whose names annals does not have.
    foreign: u64,
}

impl AllPages {
    pub(crate) fn new(
        shared: Arc<Shared>,
        filter: Filter,
        direction: Direction,
        from: Option<Position>,
        limit: Option<u64>,
    ) -> Self {
        let on_server = ServerFilter::new(&filter, &shared.names);
        let exact = match &on_server {
            Some(filter_on_server) => {
                let types = filter_on_server.on == On::EventType || filter.event_types.is_empty();
                types && (filter.category.is_none() || filter.prefix.is_none())
            }
            None => true,
        };
        let from = match from.map(Position::get) {
            // Not every server takes a position that is beyond all.
            Some(beyond) if i64::try_from(beyond).is_err() || beyond == i64::MAX as u64 => {
                match direction {
                    Direction::Forwards => From::Beyond(at(i64::MAX as u64 - 1)),
                    Direction::Backwards => From::First,
                }
            }
            Some(0) | None => From::First,
            Some(position) => From::Beyond(at(position)),
        };
        let reader = Reader::new(shared.clone(), What::All(on_server), direction, from);
        Self { reader, shared, filter, exact, left: limit, foreign: 0 }
    }

    pub(crate) async fn batch(&mut self) -> Result<Batch> {
        let Self { reader, shared, filter, exact, left, foreign } = self;
        let count = left.filter(|_| *exact).map_or(PAGE_EVENTS, |left| left.min(PAGE_EVENTS));
        let batch = fill(reader, count, left, |event| {
            let event = recorded(event, &shared.names);
            if event.is_none() {
                *foreign += 1;
            }
            Ok(event.filter(|event| filter.matches(&event.stream, &event.event_type)))
        });
        let batch = batch.await?;
        if *foreign > 0 {
            let events = std::mem::take(foreign);
            tracing::warn!(events, "left out: other applications gave them names annals lacks");
        }
        Ok(batch)
    }
}

fn at(position: u64) -> At {
    At { commit: position, prepare: position }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Batch { events, last, more } = self.batch().await?;
        Ok(Page { events, considered: last.unwrap_or_default(), more })
    }
}

/// One stream.
pub(crate) struct StreamPages {
    reader: Reader,
    shared: Arc<Shared>,
    stream: StreamId,
    left: Option<u64>,
}

impl StreamPages {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: &StreamId,
        direction: Direction,
        from: From,
        limit: Option<u64>,
    ) -> Self {
        let what = What::Stream(shared.names.stream(stream));
        let reader = Reader::new(shared.clone(), what, direction, from);
        Self { reader, shared, stream: stream.clone(), left: limit }
    }

    pub(crate) async fn batch(&mut self) -> Result<Batch> {
        let Self { reader, shared, stream, left } = self;
        let count = left.map_or(PAGE_EVENTS, |left| left.min(PAGE_EVENTS));
        let own = |event: Stored| {
            let (revision, event_type) = (event.revision, event.event_type.clone());
            let unnamed = || {
                let what =
                    format!("revision {revision} has the type {event_type:?}, which is no name");
                corrupt(what).with_stream(stream)
            };
            recorded(event, &shared.names).ok_or_else(unnamed).map(Some)
        };
        fill(reader, count, left, own).await
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Batch { events, last, more } = self.batch().await?;
        Ok(Page { events, considered: last.unwrap_or_default(), more })
    }
}

/// The first event of a stream in a direction, from a revision on if one is given.
pub(crate) async fn one_of(
    shared: &Arc<Shared>,
    name: String,
    direction: Direction,
    from: From,
) -> Result<Option<Stored>> {
    let mut reader = Reader::new(shared.clone(), What::Stream(name), direction, from);
    match reader.next(1).await? {
        Next::Event(event) => Ok(Some(event)),
        Next::Enough | Next::End => Ok(None),
    }
}

/// The position of the last event of `$all`, whosever it is.
pub(crate) async fn last_position(shared: &Arc<Shared>) -> Result<Position> {
    let mut reader =
        Reader::new(shared.clone(), What::All(None), Direction::Backwards, From::First);
    match reader.next(1).await? {
        Next::Event(event) => Ok(position(&event)),
        Next::Enough | Next::End => Ok(Position::START),
    }
}
