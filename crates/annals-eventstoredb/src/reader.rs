//! Reads one stream or `$all` event by event, by one request whose answer the server sends as fast as
//! it is read. A lost connection does not end the read: the next request begins after the last event
//! that arrived.

use std::sync::Arc;

use annals_core::{ErrorKind, Position, Result};
use futures::FutureExt;

use crate::{
    connection::Target,
    error::Failure,
    message::{GREATEST, ServerEvent},
    rpc::{Messages, ReadFrom, ReadMessage, ReadRequest, ReadSource},
    server::Server,
};

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// With the first event in the direction of the read.
    First,
    /// After a position of `$all`, in the direction of the read. The server may send the event at
    /// this position again; the reader skips it.
    AfterPosition(Position),
    /// With a revision of a stream.
    Revision(u64),
    /// Nowhere: a backwards read has returned the stream's first event.
    Exhausted,
}

pub(crate) struct Reader {
    server: Arc<Server>,
    source: ReadSource,
    target: Target,
    backwards: bool,
    place: Place,
    open: Option<Open>,
    end: Option<End>,
}

/// A request whose answer is being read.
struct Open {
    messages: Messages,
    /// The number of events that the request asks for.
    count: u64,
    received: u64,
}

/// How a read of a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After the last event, if there is any that can be read.
    Last,
    /// The stream does not exist, or was deleted.
    Missing,
    Tombstoned,
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
        target: Target,
        backwards: bool,
        place: Place,
    ) -> Self {
        Self { server, source, target, backwards, place, open: None, end: None }
    }

    /// The next event. If this takes a new request, it asks for `count` events.
    pub(crate) async fn next(&mut self, count: u64) -> Result<ReadItem> {
        // Only made if something fails: it reads the clock.
        let mut retries = None;
        loop {
            let failure = match self.step(count).await {
                Ok(Some(item)) => return Ok(item),
                Ok(None) => continue,
                Err(failure) => failure,
            };
            if let Some(open) = self.open.take() {
                self.server.connection.note(open.messages.node(), &failure);
            }
            if let ReadSource::Stream(name) = &self.source
                && failure.is_deleted(name)
            {
                self.end = Some(End::Tombstoned);
                return Ok(ReadItem::End);
            }
            if let (Place::AfterPosition(at), true) = (self.place, failure.is_unforeseen()) {
                self.place = self.boundary(at, failure).await?;
                continue;
            }
            let retries = retries.get_or_insert_with(|| self.server.connection.retries());
            if !(failure.is_transient() && retries.pause_after(&failure).await) {
                return Err(failure.into_error());
            }
        }
    }

    /// The place to begin at for a number at which no event stands, where the server cannot begin.
    async fn boundary(&mut self, at: Position, failure: Failure) -> Result<Place> {
        let (before, after) = Box::pin(neighbours(&self.server, self.target, at)).await?;
        let found = if self.backwards { after } else { before };
        if found == Some(at) {
            return Err(failure.into_error());
        }
        Ok(found.map_or(Place::First, Place::AfterPosition))
    }

    /// The next event, if it is there already. `None` if it has to be waited for.
    pub(crate) fn next_at_hand(&mut self, count: u64) -> Option<Result<ReadItem>> {
        // A new request would be lost with the future.
        self.open.as_ref()?;
        self.next(count).now_or_never()
    }

    /// Takes one message of the answer. `None` if it was no event, or one that was returned before.
    async fn step(&mut self, count: u64) -> Result<Option<ReadItem>, Failure> {
        let open = match &mut self.open {
            Some(open) => open,
            None if self.place == Place::Exhausted => return Ok(Some(ReadItem::End)),
            None => {
                // The first event may be the one at the position, which is skipped.
                let count = match self.place {
                    Place::AfterPosition(_) => count.saturating_add(1),
                    _ => count,
                };
                let request = self.request(count);
                let messages = self.server.connection.read(self.target, &request).await?;
                self.open.insert(Open { messages, count, received: 0 })
            }
        };
        let next = open.messages.next();
        let message = if matches!(&self.source, ReadSource::All(Some(_))) {
            // The server sends nothing until an event matches, however long that takes.
            next.await?
        } else {
            self.server.connection.within_deadline(next).await?
        };
        match message {
            None => {
                let more = open.received >= open.count;
                self.open = None;
                if !more {
                    self.end.get_or_insert(End::Last);
                }
                Ok(Some(if more { ReadItem::CountReached } else { ReadItem::End }))
            }
            Some(ReadMessage::NotFound) => {
                self.end = Some(End::Missing);
                Ok(None)
            }
            Some(ReadMessage::Event(event)) => {
                open.received += 1;
                // The server's note that a stream was tombstoned is no event of the stream.
                Ok((self.advance(&event) && !event.is_tombstone())
                    .then_some(ReadItem::Event(event)))
            }
            Some(_) => Ok(None),
        }
    }

    /// How the read came to its end. `None` before that.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Moves the start of the next request behind this event. False if the event is not after all
    /// events that were returned before.
    fn advance(&mut self, event: &ServerEvent) -> bool {
        match &self.source {
            ReadSource::All(_) => {
                let at = event.position;
                if let Place::AfterPosition(last) = self.place
                    && (if self.backwards { at >= last } else { at <= last })
                {
                    return false;
                }
                self.place = Place::AfterPosition(at);
            }
            ReadSource::Stream(_) => {
                let next = if self.backwards {
                    event.revision.checked_sub(1)
                } else {
                    Some(event.revision.saturating_add(1))
                };
                self.place = next.map_or(Place::Exhausted, Place::Revision);
            }
        }
        true
    }

    fn request(&self, count: u64) -> ReadRequest {
        let from = match self.place {
            Place::AfterPosition(at) => ReadFrom::At(at.get()),
            Place::Revision(revision) => ReadFrom::At(revision.min(GREATEST)),
            _ if self.backwards => ReadFrom::End,
            _ => ReadFrom::Start,
        };
        let (source, backwards) = (self.source.clone(), self.backwards);
        ReadRequest { source, from, backwards, count: Some(count), window: 1_000 }
    }
}

/// The last position before a number, or at it, and the first one at it or behind it. `None` if there is
/// none.
///
/// The server cannot tell them, so this reads `$all` backwards from its end. A number at which no event
/// stands was made up, or comes from elsewhere: this store gives out none.
pub(crate) async fn neighbours(
    server: &Arc<Server>,
    target: Target,
    at: Position,
) -> Result<(Option<Position>, Option<Position>)> {
    tracing::debug!(%at, "a position of no event; the log is searched for its neighbours");
    let source = ReadSource::All(None);
    let mut reader = Reader::new(server.clone(), source, target, true, Place::First);
    let mut after = None;
    loop {
        match reader.next(GREATEST).await? {
            ReadItem::Event(event) if event.position < at => {
                return Ok((Some(event.position), after));
            }
            ReadItem::Event(event) => {
                after = Some(event.position);
                if event.position == at {
                    return Ok((after, after));
                }
            }
            ReadItem::CountReached => {}
            ReadItem::End => return Ok((None, after)),
        }
    }
}

/// What a look at an end of a stream shows.
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub(crate) enum Seen {
    Event(ServerEvent),
    /// The stream exists, and no event of it can be read.
    Nothing,
    /// The stream does not exist, or was deleted.
    Missing,
    Tombstoned,
}

impl Seen {
    pub(crate) fn event(self) -> Option<ServerEvent> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }
}

/// Looks at one event of a stream, named as on the server: the first in this direction, from `place`
/// on.
pub(crate) async fn look(
    server: &Arc<Server>,
    target: Target,
    name: String,
    backwards: bool,
    place: Place,
) -> Result<Seen> {
    let source = ReadSource::Stream(name);
    let mut reader = Reader::new(server.clone(), source, target, backwards, place);
    if let ReadItem::Event(event) = reader.next(1).await? {
        return Ok(Seen::Event(event));
    }
    Ok(match reader.end() {
        Some(End::Missing) => Seen::Missing,
        Some(End::Tombstoned) => Seen::Tombstoned,
        _ => Seen::Nothing,
    })
}

/// Looks at the last event of a stream, named as on the server, at the leader.
pub(crate) async fn look_at_last(server: &Arc<Server>, name: String) -> Result<Seen> {
    look(server, Target::Leader, name, true, Place::First).await
}

/// The last event of a stream, named as on the server, at the leader.
pub(crate) async fn read_last(server: &Arc<Server>, name: String) -> Result<Option<ServerEvent>> {
    Ok(look_at_last(server, name).await?.event())
}

/// The position of the last event of `$all`, in whatever namespace it is.
pub(crate) async fn last_position(server: &Arc<Server>) -> Result<Position> {
    let source = ReadSource::All(None);
    let mut reader = Reader::new(server.clone(), source, Target::Leader, true, Place::First);
    loop {
        match reader.next(1).await? {
            ReadItem::Event(event) => {
                server.note_seen(event.position);
                return Ok(event.position);
            }
            // The last event is the note of a tombstone: its position counts as well.
            ReadItem::CountReached => {}
            ReadItem::End => return Ok(Position::START),
        }
        if let Place::AfterPosition(at) = reader.place {
            server.note_seen(at);
            return Ok(at);
        }
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
