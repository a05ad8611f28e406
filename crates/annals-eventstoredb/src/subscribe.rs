//! Subscriptions: pages of the events that are there, and then of those that come.

use std::sync::Arc;

use annals_core::{
    Direction, Error, ErrorKind, Filter, Position, ReadAll, ReadStream, Result, Start, StreamId,
    Version,
    adapter::{Live, Page, Pages, Patient, Tail},
};
use async_trait::async_trait;

use crate::{
    codec::{position, version_of},
    doorbell::Doorbell,
    filter::ServerFilter,
    read::{AllPages, StreamPages},
    reader::{ReadFrom, has_event_after, last_position, read_last, read_one},
    server::Server,
    wire::ReadReq,
};

pub(crate) fn follow_all(server: &Arc<Server>, filter: Filter, after: Position) -> impl Tail {
    let request = ReadReq::all(ServerFilter::new(&filter, &server.names).as_ref());
    let options = ReadAll::default().with_filter(filter).after(after);
    let pages = AllPages::new(server.clone(), options);
    let tail = AllTail {
        server: server.clone(),
        pages,
        considered: after,
        live: false,
        caught_up: false,
        without_events: after,
    };
    live(server, tail, request)
}

pub(crate) fn follow_stream(
    server: &Arc<Server>,
    stream: StreamId,
    after: Version,
    at: Position,
) -> impl Tail {
    let request = ReadReq::stream(&server.names.stream(&stream));
    let options = ReadStream::default().with_from(after.plus(1));
    let pages = StreamPages::new(server.clone(), stream, &options);
    live(server, StreamTail { pages, considered: at }, request)
}

/// Reads pages again while the server cannot be reached, and waits for more at a doorbell.
fn live(server: &Server, pages: impl Pages, request: ReadReq) -> impl Tail {
    let transient =
        |error: &Error| matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable);
    let poll_interval = server.options.poll_interval;
    let doorbell = Doorbell::new(server.doorbells.clone(), request, poll_interval);
    Live::new(Patient::new(pages, transient), doorbell)
}

/// The version after which a subscription to a stream begins, and the position that belongs to it.
pub(crate) async fn start_in(
    server: &Arc<Server>,
    stream: &StreamId,
    start: Start,
) -> Result<(Version, Position)> {
    let name = || server.names.stream(stream);
    match start {
        // A time has become a version before this call.
        Start::Beginning | Start::At(_) | Start::AfterVersion(Version::NONE) => {
            Ok((Version::NONE, Position::START))
        }
        Start::AfterVersion(version) => {
            let revision = i64::try_from(version.minus(1).get()).unwrap_or(i64::MAX);
            let from = ReadFrom::Revision(revision.unsigned_abs());
            let before = read_one(server, name(), Direction::Backwards, from).await?;
            Ok((version, before.as_ref().map_or(Position::START, position)))
        }
        Start::After(after) => Ok((version_at(server, stream, after).await?, after)),
        Start::End => Ok(match read_last(server, name()).await? {
            Some(last) => (version_of(last.revision), position(&last)),
            None => (Version::NONE, Position::START),
        }),
    }
}

/// The version that a stream had at a position. Positions rise with revisions, so this is a binary
/// search: about as many requests as the version has binary digits.
pub(crate) async fn version_at(
    server: &Arc<Server>,
    stream: &StreamId,
    at: Position,
) -> Result<Version> {
    if at == Position::START {
        return Ok(Version::NONE);
    }
    let name = || server.names.stream(stream);
    let Some(last) = read_last(server, name()).await? else { return Ok(Version::NONE) };
    if position(&last) <= at {
        return Ok(version_of(last.revision));
    }
    // Events before the revision `from` are at or before the position; the event at the revision
    // `to` is after it.
    let (mut from, mut to) = (0, last.revision);
    while from < to {
        let middle = from + (to - from) / 2;
        let read = ReadFrom::Revision(middle);
        match read_one(server, name(), Direction::Forwards, read).await? {
            // If the event at `middle` was removed, this is the first event behind it.
            Some(found) if position(&found) <= at => from = found.revision + 1,
            _ => to = middle,
        }
    }
    Ok(Version::new(from))
}

/// Pages of all streams, which also tell how far the server looked when its filter left events out.
struct AllTail {
    server: Arc<Server>,
    pages: AllPages,
    considered: Position,
    /// True if the last page ended at the end of `$all`.
    live: bool,
    /// True if a page ended at the end of `$all` before.
    caught_up: bool,
    /// From `considered` up to here the server has only events of its own, and records.
    without_events: Position,
}

impl AllTail {
    /// How far to say that the subscription has looked, if it has looked up to `end`.
    ///
    /// Checkpoints, leases and snapshots are events of the server, too. If a live subscriber were told
    /// of them, a checkpoint that it saves would lead to the next one, for ever. So nothing is told
    /// until there is an event of an application.
    async fn considered_at(&mut self, end: Position) -> Result<Position> {
        let from = self.considered.max(self.without_events);
        if !self.caught_up || end <= from {
            return Ok(if self.caught_up { self.considered } else { end });
        }
        let has_events = has_event_after(&self.server, from).await?;
        self.without_events = end;
        Ok(if has_events { end } else { self.considered })
    }
}

#[async_trait]
impl Pages for AllTail {
    async fn next_page(&mut self) -> Result<Page> {
        loop {
            let node = self.server.connection.node_changes();
            // The server does not tell how far it looked when its filter leaves events out. So ask
            // for the end of `$all` before reading the page: if the page comes to the end,
            // everything up to there was considered. Skip this while live, since it delays events
            // by a request.
            let end = if self.live { None } else { Some(last_position(&self.server).await?) };
            let Page { events, considered, more } = self.pages.next_page().await?;
            self.considered = self.considered.max(considered);
            self.live = !more;
            match end {
                _ if more => {}
                // The page may come from another node, which lags behind the one that told the end.
                Some(_) if self.server.connection.node_changes() != node => {
                    self.live = false;
                    return Ok(Page { events, considered: self.considered, more: true });
                }
                Some(end) => {
                    let considered = self.considered_at(end).await?;
                    self.considered = self.considered.max(considered);
                    self.caught_up = true;
                }
                None if events.is_empty() => {
                    self.live = false;
                    continue;
                }
                None => {}
            }
            return Ok(Page { events, considered: self.considered, more });
        }
    }
}

/// Pages of one stream.
struct StreamTail {
    pages: StreamPages,
    considered: Position,
}

#[async_trait]
impl Pages for StreamTail {
    async fn next_page(&mut self) -> Result<Page> {
        let page = self.pages.next_page().await?;
        self.considered = self.considered.max(page.considered);
        Ok(Page { considered: self.considered, ..page })
    }
}
