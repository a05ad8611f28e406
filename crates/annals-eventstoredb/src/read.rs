//! Pages of events: of one stream, and of all.

use std::sync::Arc;

use annals_core::{
    Direction, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use kurrentdb::{Position as ServerPosition, RecordedEvent as ServerEvent};

use crate::{
    codec::{position, recorded},
    error::corrupt,
    filter::{FilterSubject, ServerFilter},
    reader::{ReadFrom, ReadItem, ReadSource, Reader},
    server::Server,
};

/// The most events of a page. A page is one request, and this is enough to make its round trip
/// negligible. No request stays open between two pages: one that is open and not read would take
/// flow-control window from the connection, and so hold up appends.
const PAGE_EVENTS: u64 = 1_024;
/// A page ends with the event that makes it this large, so that memory stays bounded.
const PAGE_BYTES: usize = 1 << 20;

/// The greatest number that the server takes as a revision or a position.
const GREATEST: u64 = i64::MAX.unsigned_abs();

/// Reads the next page. `wanted` converts an event, or leaves it out; `left` is the number of
/// events that the caller still wants.
async fn next_page(
    reader: &mut Reader,
    count: u64,
    left: &mut Option<u64>,
    mut wanted: impl FnMut(ServerEvent) -> Result<Option<RecordedEvent>>,
) -> Result<Page> {
    let (mut events, mut bytes, mut considered) = (Vec::new(), 0, Position::START);
    let more = loop {
        if *left == Some(0) {
            break false;
        }
        if bytes >= PAGE_BYTES {
            break true;
        }
        match reader.next(count).await? {
            ReadItem::End => break false,
            ReadItem::CountReached => break true,
            ReadItem::Event(event) => {
                bytes += event.data.len() + event.custom_metadata.len();
                considered = position(&event);
                if let Some(event) = wanted(event)? {
                    events.push(event);
                    *left = left.map(|left| left.saturating_sub(1));
                }
            }
        }
    };
    reader.close();
    Ok(Page { events, considered, more })
}

/// Pages of all streams.
pub(crate) struct AllPages {
    reader: Reader,
    server: Arc<Server>,
    filter: Filter,
    /// True if the server applies the whole filter.
    exact: bool,
    left: Option<u64>,
    /// Events of this page whose names annals does not allow.
    unnamable: u64,
}

impl AllPages {
    pub(crate) fn new(server: Arc<Server>, options: ReadAll) -> Self {
        let ReadAll { filter, from, direction, limit, .. } = options;
        let server_filter = ServerFilter::new(&filter, &server.names);
        let exact = match &server_filter {
            Some(on_server) => {
                let types =
                    on_server.subject == FilterSubject::EventType || filter.event_types.is_empty();
                types && (filter.category.is_none() || filter.prefix.is_none())
            }
            None => true,
        };
        let from = match (from.map(Position::get), direction) {
            (Some(0), Direction::Backwards) => ReadFrom::Exhausted,
            (Some(0) | None, _) => ReadFrom::First,
            // Not every server accepts a position beyond its last one.
            (Some(GREATEST..), Direction::Backwards) => ReadFrom::First,
            (Some(position), _) => {
                let position = position.min(GREATEST - 1);
                ReadFrom::AfterPosition(ServerPosition { commit: position, prepare: position })
            }
        };
        let source = ReadSource::All(server_filter);
        let reader = Reader::new(server.clone(), source, direction, from);
        Self { reader, server, filter, exact, left: limit, unnamable: 0 }
    }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Self { reader, server, filter, exact, left, unnamable } = self;
        let count = left.filter(|_| *exact).map_or(PAGE_EVENTS, |left| left.min(PAGE_EVENTS));
        let page = next_page(reader, count, left, |event| {
            let event = recorded(event, &server.names);
            if event.is_none() {
                *unnamable += 1;
            }
            Ok(event.filter(|event| filter.matches(&event.stream, &event.event_type)))
        });
        let page = page.await?;
        if *unnamable > 0 {
            let events = std::mem::take(unnamable);
            tracing::warn!(
                events,
                "left out events whose stream or type has a name annals forbids"
            );
        }
        Ok(page)
    }
}

/// Pages of one stream.
pub(crate) struct StreamPages {
    reader: Reader,
    server: Arc<Server>,
    stream: StreamId,
    left: Option<u64>,
}

impl StreamPages {
    pub(crate) fn new(server: Arc<Server>, stream: StreamId, options: &ReadStream) -> Self {
        let direction = options.direction;
        let from = match (options.from, direction) {
            (None, _) => ReadFrom::First,
            (Some(Version::NONE), Direction::Backwards) => ReadFrom::Exhausted,
            (Some(version), _) => match (version.minus(1).get(), direction) {
                (0..=GREATEST, _) => ReadFrom::Revision(version.minus(1).get()),
                (_, Direction::Forwards) => ReadFrom::Exhausted,
                (_, Direction::Backwards) => ReadFrom::First,
            },
        };
        let source = ReadSource::Stream(server.names.stream(&stream));
        let reader = Reader::new(server.clone(), source, direction, from);
        Self { reader, server, stream, left: options.limit }
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Self { reader, server, stream, left } = self;
        let count = left.map_or(PAGE_EVENTS, |left| left.min(PAGE_EVENTS));
        let converted = |event: ServerEvent| {
            let (revision, event_type) = (event.revision, event.event_type.clone());
            let unnamable = || {
                corrupt(format!(
                    "the event at revision {revision} has the type {event_type:?}, which is not a \
                     valid name in annals"
                ))
                .with_stream(stream)
            };
            recorded(event, &server.names).ok_or_else(unnamable).map(Some)
        };
        next_page(reader, count, left, converted).await
    }
}
