//! Reads one stream or `$all` event by event. A lost connection does not end the read: the next
//! request begins after the last event that arrived.

use std::sync::Arc;

use annals_core::{Direction, ErrorKind, Filter, Position, Result};
use kurrentdb::{
    Position as ServerPosition, ReadAllOptions, ReadStream, ReadStreamOptions,
    RecordedEvent as ServerEvent, StreamPosition,
};

use crate::{
    codec::{position, server_event},
    error::Failure,
    filter::ServerFilter,
    names::Names,
    server::Server,
};

/// What is read.
#[derive(Clone, Debug)]
pub(crate) enum ReadSource {
    /// `$all`, with the part of a filter that the server applies.
    All(Option<ServerFilter>),
    /// A stream, by its name on the server.
    Stream(String),
}

/// Where a read begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadFrom {
    /// With the first event in the direction of the read.
    First,
    /// After a position of `$all`, in the direction of the read. The server may send the event at
    /// this position again; the reader skips it.
    AfterPosition(ServerPosition),
    /// With a revision of a stream.
    Revision(u64),
    /// Nowhere: a backwards read has returned the stream's first event.
    Exhausted,
}

pub(crate) struct Reader {
    server: Arc<Server>,
    source: ReadSource,
    direction: Direction,
    from: ReadFrom,
    request: Option<ReadRequest>,
}

/// A request whose answer is being read.
struct ReadRequest {
    events: ReadStream,
    /// The number of events that the request asks for.
    count: u64,
    received: u64,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub(crate) enum ReadItem {
    Event(ServerEvent),
    /// The request returned as many events as it asked for. There may be more.
    CountReached,
    /// There are no more events for now.
    End,
}

impl Reader {
    pub(crate) fn new(
        server: Arc<Server>,
        source: ReadSource,
        direction: Direction,
        from: ReadFrom,
    ) -> Self {
        Self { server, source, direction, from, request: None }
    }

    /// Ends the current request. The next call of [`next`](Self::next) sends another, which begins
    /// after the last event that was returned.
    pub(crate) fn close(&mut self) {
        self.request = None;
    }

    /// The next event. If this takes a new request, it asks for `count` events.
    pub(crate) async fn next(&mut self, count: u64) -> Result<ReadItem> {
        let mut retries = self.server.connection.retries();
        loop {
            let failure = match self.step(count).await {
                Ok(Some(item)) => return Ok(item),
                Ok(None) => continue,
                Err(failure) => failure,
            };
            self.request = None;
            if matches!(self.source, ReadSource::Stream(_))
                && (failure.is_not_found() || failure.is_deleted())
            {
                return Ok(ReadItem::End);
            }
            self.server.connection.answer_failed(&failure);
            if !(failure.is_transient() && retries.pause_after(&failure).await) {
                return Err(failure.into_error());
            }
        }
    }

    /// Takes one message of the answer. `None` if it was an event that had been returned before.
    async fn step(&mut self, count: u64) -> Result<Option<ReadItem>, Failure> {
        let request = match &mut self.request {
            Some(request) => request,
            None if matches!(self.from, ReadFrom::Exhausted) => return Ok(Some(ReadItem::End)),
            None => {
                // The first event may be the one at the position, which is skipped.
                let count = match self.from {
                    ReadFrom::AfterPosition(_) => count.saturating_add(1),
                    _ => count,
                };
                let events = self.send(count).await?;
                self.request.insert(ReadRequest { events, count, received: 0 })
            }
        };
        let next = request.events.next();
        let Some(event) = self.server.connection.within_deadline(next).await? else {
            let more = request.received >= request.count;
            self.request = None;
            return Ok(Some(if more { ReadItem::CountReached } else { ReadItem::End }));
        };
        request.received += 1;
        let Some(event) = server_event(event) else { return Ok(None) };
        Ok(self.advance(&event).then(|| ReadItem::Event(event)))
    }

    /// Moves the start of the next request behind this event. False if the event is not after all
    /// events that were returned before.
    fn advance(&mut self, event: &ServerEvent) -> bool {
        match &self.source {
            ReadSource::All(_) => {
                let at = event.position;
                let seen = |last: &ServerPosition| match self.direction {
                    Direction::Forwards => at <= *last,
                    Direction::Backwards => at >= *last,
                };
                if let ReadFrom::AfterPosition(last) = &self.from
                    && seen(last)
                {
                    return false;
                }
                self.from = ReadFrom::AfterPosition(at);
            }
            ReadSource::Stream(_) => {
                let next = match self.direction {
                    Direction::Forwards => Some(event.revision.saturating_add(1)),
                    Direction::Backwards => event.revision.checked_sub(1),
                };
                self.from = next.map_or(ReadFrom::Exhausted, ReadFrom::Revision);
            }
        }
        true
    }

    async fn send(&mut self, count: u64) -> Result<ReadStream, Failure> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let connection = &self.server.connection;
        match &self.source {
            ReadSource::All(filter) => {
                let options = self.all_options(filter.as_ref()).max_count(count);
                let options = connection.authenticated(options);
                connection.send(|client| async move { client.read_all(&options).await }).await
            }
            ReadSource::Stream(name) => {
                let options = connection.authenticated(self.stream_options()).max_count(count);
                let name = name.clone();
                connection
                    .send(|client| async move { client.read_stream(name, &options).await })
                    .await
            }
        }
    }

    fn all_options(&self, filter: Option<&ServerFilter>) -> ReadAllOptions {
        let position = match self.from {
            ReadFrom::AfterPosition(at) => StreamPosition::Position(at),
            _ => self.outermost(),
        };
        let options = ReadAllOptions::default().position(position);
        let options = match self.direction {
            Direction::Forwards => options.forwards(),
            Direction::Backwards => options.backwards(),
        };
        match filter {
            Some(filter) => options.filter(filter.for_client()),
            None => options,
        }
    }

    fn stream_options(&self) -> ReadStreamOptions {
        let position = match self.from {
            ReadFrom::Revision(revision) => StreamPosition::Position(revision),
            _ => self.outermost(),
        };
        let options = ReadStreamOptions::default().position(position);
        match self.direction {
            Direction::Forwards => options.forwards(),
            Direction::Backwards => options.backwards(),
        }
    }

    fn outermost<T>(&self) -> StreamPosition<T> {
        match self.direction {
            Direction::Forwards => StreamPosition::Start,
            Direction::Backwards => StreamPosition::End,
        }
    }
}

/// Reads one event of a stream, named as on the server: the first in this direction, from `from`
/// on.
pub(crate) async fn read_one(
    server: &Arc<Server>,
    name: String,
    direction: Direction,
    from: ReadFrom,
) -> Result<Option<ServerEvent>> {
    let mut reader = Reader::new(server.clone(), ReadSource::Stream(name), direction, from);
    match reader.next(1).await? {
        ReadItem::Event(event) => Ok(Some(event)),
        ReadItem::CountReached | ReadItem::End => Ok(None),
    }
}

/// The last event of a stream, named as on the server.
pub(crate) async fn read_last(server: &Arc<Server>, name: String) -> Result<Option<ServerEvent>> {
    read_one(server, name, Direction::Backwards, ReadFrom::First).await
}

/// The position of the last event of `$all`, in whatever namespace it is.
pub(crate) async fn last_position(server: &Arc<Server>) -> Result<Position> {
    let source = ReadSource::All(None);
    let mut reader = Reader::new(server.clone(), source, Direction::Backwards, ReadFrom::First);
    match reader.next(1).await? {
        ReadItem::Event(event) => Ok(position(&event)),
        ReadItem::CountReached | ReadItem::End => Ok(Position::START),
    }
}

/// The greatest position that the server has given. A deletion and a clean-up leave the end of `$all`
/// where it is, since the server writes their own events behind it. If this user may not read `$all`,
/// the greatest number: then no position counts as beyond the end.
pub(crate) async fn greatest_position(server: &Arc<Server>) -> Result<Position> {
    match last_position(server).await {
        Err(error) if error.kind() == ErrorKind::Denied => Ok(Position::new(u64::MAX)),
        last => last,
    }
}

/// Whether `$all` has an event after a position that is not the server's own and no record of this
/// crate, in whatever namespace it is.
pub(crate) async fn has_event_after(server: &Arc<Server>, after: Position) -> Result<bool> {
    let source = ReadSource::All(ServerFilter::new(&Filter::default(), &Names::default()));
    let position = after.to_i64().unsigned_abs();
    let from = ReadFrom::AfterPosition(ServerPosition { commit: position, prepare: position });
    let mut reader = Reader::new(server.clone(), source, Direction::Forwards, from);
    Ok(matches!(reader.next(1).await?, ReadItem::Event(_)))
}
