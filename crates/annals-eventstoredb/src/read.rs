//! Pages of events: of one stream, and of all.

use std::sync::Arc;

use annals_core::{
    Direction, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::{
    codec::{recorded, recorded_in},
    connection::Target,
    error::corrupt,
    filter::{FilterSubject, ServerFilter},
    message::GREATEST,
    message::ServerEvent,
    reader::{Place, ReadItem, Reader},
    rpc::ReadSource,
    server::Server,
};

/// The most events of a page. All pages of a read come from one request, so small ones cost nothing, and
/// stay in the cache of the processor.
pub(crate) const PAGE_EVENTS: usize = 128;
/// A page ends with the event that makes it this large, so that memory stays bounded.
pub(crate) const PAGE_BYTES: usize = 1 << 20;

/// What a page has to be filled with.
struct Filling<'a> {
    reader: &'a mut Reader,
    /// The most events that a request may ask for.
    count: u64,
    /// The events that the caller still wants.
    left: &'a mut Option<u64>,
    /// True if a page with an event is not to wait for more.
    at_hand: bool,
}

/// Reads the next page. `wanted` converts an event, or leaves it out.
async fn next_page(
    server: &Server,
    filling: Filling<'_>,
    mut wanted: impl FnMut(ServerEvent) -> Result<Option<RecordedEvent>>,
) -> Result<Page> {
    let Filling { reader, count, left, at_hand } = filling;
    let (mut events, mut bytes, mut considered) = (Vec::new(), 0, Position::START);
    let more = loop {
        if *left == Some(0) {
            break false;
        }
        if bytes >= PAGE_BYTES || events.len() >= PAGE_EVENTS {
            break true;
        }
        let item = if at_hand && !events.is_empty() {
            match reader.next_at_hand(count) {
                Some(item) => item?,
                None => break true,
            }
        } else {
            reader.next(count).await?
        };
        match item {
            ReadItem::End => break false,
            ReadItem::CountReached => break true,
            ReadItem::Event(event) => {
                bytes += event.data.len() + event.metadata.len();
                considered = event.position;
                if let Some(event) = wanted(event)? {
                    events.push(event);
                    *left = left.map(|left| left.saturating_sub(1));
                }
            }
        }
    };
    server.note_seen(events.iter().map(|event| event.position).max().unwrap_or(Position::START));
    Ok(Page { events, considered, more })
}

/// Pages of all streams.
pub(crate) struct AllPages {
    reader: Reader,
    server: Arc<Server>,
    filter: Filter,
    /// True if the server applies the whole filter.
    exact: bool,
    /// True if the server applies a part of it.
    filtered: bool,
    left: Option<u64>,
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
        let place = match (from.map(Position::get), direction) {
            (Some(0), Direction::Backwards) => Place::Exhausted,
            (Some(0) | None, _) => Place::First,
            // Not every server accepts a position beyond its last one.
            (Some(GREATEST..), Direction::Backwards) => Place::First,
            (Some(position), _) => Place::AfterPosition(Position::new(position.min(GREATEST - 1))),
        };
        let filtered = server_filter.is_some();
        let source = ReadSource::All(server_filter);
        let backwards = direction == Direction::Backwards;
        let reader = Reader::new(server.clone(), source, Target::Events, backwards, place);
        Self { reader, server, filter, exact, filtered, left: limit }
    }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Self { reader, server, filter, exact, filtered, left } = self;
        let count = left.filter(|_| *exact).unwrap_or(GREATEST);
        let filling = Filling { reader, count, left, at_hand: *filtered };
        let mut unnamable = 0_u64;
        let page = next_page(server, filling, |event| {
            let event = recorded(event, &server.names);
            if event.is_none() {
                unnamable += 1;
            }
            Ok(event.filter(|event| filter.matches(&event.stream, &event.event_type)))
        });
        let page = page.await?;
        warn_of_unnamable(unnamable);
        Ok(page)
    }
}

/// Says that events were left out of a page.
pub(crate) fn warn_of_unnamable(events: u64) {
    if events > 0 {
        tracing::warn!(events, "left out events whose stream or type has a name annals forbids");
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
        let place = match (options.from, direction) {
            (None, _) => Place::First,
            (Some(Version::NONE), Direction::Backwards) => Place::Exhausted,
            (Some(version), _) => match (version.minus(1).get(), direction) {
                (0..=GREATEST, _) => Place::Revision(version.minus(1).get()),
                (_, Direction::Forwards) => Place::Exhausted,
                (_, Direction::Backwards) => Place::First,
            },
        };
        let source = ReadSource::Stream(server.names.stream(&stream));
        let backwards = direction == Direction::Backwards;
        let reader = Reader::new(server.clone(), source, Target::Events, backwards, place);
        Self { reader, server, stream, left: options.limit }
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Self { reader, server, stream, left } = self;
        let count = left.unwrap_or(GREATEST);
        let filling = Filling { reader, count, left, at_hand: false };
        let convert = |event: ServerEvent| in_stream(event, stream).map(Some);
        next_page(server, filling, convert).await
    }
}

/// Converts an event of a stream that is read by itself.
pub(crate) fn in_stream(event: ServerEvent, stream: &StreamId) -> Result<RecordedEvent> {
    let (revision, event_type) = (event.revision, event.event_type.clone());
    recorded_in(stream.clone(), event).ok_or_else(|| {
        let event_type = String::from_utf8_lossy(&event_type);
        corrupt(format!(
            "the event at revision {revision} has the type {event_type:?}, which is not a valid \
             name in annals"
        ))
        .with_stream(stream)
    })
}
