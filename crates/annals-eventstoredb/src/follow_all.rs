//! Subscriptions to all streams.
//!
//! The events come from a subscription on the server, which sends them as fast as they are read. While
//! it catches up, the server says after every 1,000 events that a filter leaves out how far it has
//! looked. So a subscription that is lost goes on from there, and a filter that matches rarely gets
//! through. Once it has caught up, the server says so after each event: a subscriber learns of each
//! position that is behind it.
//!
//! A live subscriber is not told of the server's own events, among which are the records of this crate.
//! If it were, a checkpoint that it saves would lead to the next one, for ever. The server does not say
//! what its filter left out. So the filter of a live subscription lets the server's own events through,
//! and what it leaves out is an event of an application.

use std::sync::Arc;

use annals_core::{
    Filter, Position, RecordedEvent, Result,
    adapter::{Page, Pages, Tail},
};
use async_trait::async_trait;
use tokio::time::timeout;

use crate::{
    codec::recorded,
    connection::{Node, Target},
    error::Failure,
    filter::ServerFilter,
    message::ServerEvent,
    read::{PAGE_BYTES, PAGE_EVENTS, warn_of_unnamable},
    reader::{Place, ReadItem, Reader, neighbours},
    rpc::{ReadFrom, ReadMessage, ReadRequest, ReadSource},
    server::Server,
    subscription::{Incoming, Source},
};

/// After how many events that a filter leaves out the server says how far it has looked: while a
/// subscription catches up, and when it has.
const WINDOWS: (u32, u32) = (1_000, 1);

/// A page ends after so many messages that gave the subscriber no event, so that it learns how far the
/// server has looked.
const PAGE_LEFT_OUT: usize = 64;

pub(crate) fn follow_all(server: &Arc<Server>, filter: Filter, after: Position) -> impl Tail {
    AllTail {
        source: Source::new(server.clone()),
        server_filter: ServerFilter::new(&filter, &server.names),
        filter,
        at: after,
        considered: after,
        end: None,
        live: false,
        is_settled: false,
    }
}

struct AllTail {
    source: Source,
    filter: Filter,
    server_filter: Option<ServerFilter>,
    /// Where the next subscription begins: everything up to here was looked at.
    at: Position,
    /// How far the subscriber may be told that the subscription has looked. Below `at` if there is
    /// nothing in between but records, of which a subscriber is not told.
    considered: Position,
    /// The end of `$all` when the subscription began, until it has come there.
    end: Option<Position>,
    /// True if the subscription has caught up.
    live: bool,
    /// True if the server was asked for a place where it can begin.
    is_settled: bool,
}

/// A page that is being filled.
#[derive(Default)]
struct Filled {
    page: Vec<RecordedEvent>,
    bytes: usize,
    unnamable: u64,
    /// How many messages gave the subscriber no event.
    left_out: usize,
}

impl Filled {
    fn has_room(&self) -> bool {
        self.page.len() < PAGE_EVENTS && self.bytes < PAGE_BYTES && self.left_out < PAGE_LEFT_OUT
    }
}

impl AllTail {
    /// Subscribes from where the last subscription ended. False if it has to be tried again.
    async fn subscribe(&mut self) -> Result<bool, Failure> {
        let Some(node) = self.source.node().await? else { return Ok(false) };
        let (catch_up, follow) = WINDOWS;
        let (window, filter) = match &self.server_filter {
            Some(filter) if self.live && self.tells_of_applications() => {
                (follow, Some(filter.with_system()))
            }
            filter => (catch_up, filter.clone()),
        };
        if !self.live {
            let end = self.end_at(&node).await;
            let Some(end) = self.source.or_pause(end).await? else { return Ok(false) };
            self.end = Some(end);
        }
        let from = match self.at {
            Position::START => ReadFrom::Start,
            at => ReadFrom::At(at.get()),
        };
        let source = ReadSource::All(filter);
        let request = ReadRequest { source, from, backwards: false, count: None, window };
        self.source.subscribe(&node, &request).await
    }

    /// The position of the last event of `$all` at this node. If the subscription comes there,
    /// everything up to it was considered.
    async fn end_at(&mut self, node: &Arc<Node>) -> Result<Position, Failure> {
        let connection = &self.source.server.connection;
        let (source, from) = (ReadSource::All(None), ReadFrom::End);
        let request = ReadRequest { source, from, backwards: true, count: Some(1), window: 1 };
        let mut messages = connection.read_from(node, Target::Events, &request).await?;
        let next = connection.within_deadline(messages.next()).await;
        match next.inspect_err(|failure| connection.note(node, failure))? {
            Some(ReadMessage::Event(event)) => Ok(event.position),
            _ => Ok(Position::START),
        }
    }

    fn take(&mut self, message: ReadMessage, filled: &mut Filled) {
        match message {
            ReadMessage::Event(event) => {
                // From a position beyond its end, a server goes on at its end.
                if event.position <= self.at && self.at > Position::START {
                    return;
                }
                self.at = event.position;
                if is_of_server(&event) && !self.filter.include_system {
                    filled.left_out += 1;
                    return;
                }
                self.considered = self.considered.max(self.at);
                if event.is_tombstone() {
                    return;
                }
                filled.bytes += event.data.len() + event.metadata.len();
                match recorded(event, &self.source.server.names) {
                    Some(event) if self.filter.matches(&event.stream, &event.event_type) => {
                        filled.page.push(event);
                    }
                    Some(_) => {}
                    None => filled.unnamable += 1,
                }
            }
            ReadMessage::Checkpoint(at) => {
                filled.left_out += 1;
                // The server says this also after an event that it has given.
                let is_new = at > self.at;
                self.at = self.at.max(at);
                if is_new && (!self.live || self.tells_of_applications()) {
                    self.considered = self.considered.max(self.at);
                }
            }
            ReadMessage::CaughtUp => self.caught_up(),
            ReadMessage::NotFound | ReadMessage::Other => {}
        }
        if self.end.is_some_and(|end| self.at >= end) {
            self.caught_up();
        }
    }

    fn caught_up(&mut self) {
        let Some(end) = self.end.take() else { return };
        self.live = true;
        self.at = self.at.max(end);
        self.considered = self.considered.max(self.at);
        if self.tells_of_applications() {
            // The next one says more often how far it has looked, and of what.
            self.source.close();
        }
    }

    /// Looks whether the subscription has caught up with a server that does not say so: servers do
    /// from 23.10 on.
    async fn ask_whether_caught_up(&mut self) -> Result<()> {
        let place = match self.at {
            Position::START => Place::First,
            at => Place::AfterPosition(at),
        };
        let source = ReadSource::All(self.server_filter.clone());
        let server = self.source.server.clone();
        let patience = server.options.poll_interval;
        let mut reader = Reader::new(server, source, Target::Events, false, place);
        // A filter may match rarely, and the server look for long. Then it has not caught up.
        if let Ok(read) = timeout(patience, reader.next(1)).await
            && matches!(read?, ReadItem::End)
        {
            self.caught_up();
        }
        Ok(())
    }

    /// True if the filter leaves out events of applications. Then those are all that the filter of a
    /// live subscription leaves out.
    fn tells_of_applications(&self) -> bool {
        self.server_filter.as_ref().is_some_and(|filter| !filter.leaves_out_system_only())
    }

    /// Begins again at the event before a number at which no event stands, where the server cannot
    /// begin.
    async fn settle(&mut self, failure: Failure) -> Result<()> {
        if !failure.is_unforeseen() || self.at == Position::START || self.is_settled {
            return Err(failure.into_error());
        }
        let server = self.source.server.clone();
        let (before, _) = neighbours(&server, Target::Events, self.at).await?;
        self.at = before.unwrap_or(Position::START);
        self.is_settled = true;
        self.source.close();
        Ok(())
    }

    /// Subscribes if there is no subscription. False if it has to be tried again.
    async fn is_open(&mut self) -> Result<bool> {
        if self.source.is_open() {
            return Ok(true);
        }
        match self.subscribe().await {
            Ok(open) => Ok(open),
            Err(failure) => self.settle(failure).await.map(|()| false),
        }
    }
}

/// True for an event of the server, or a record of this crate, of whatever namespace.
fn is_of_server(event: &ServerEvent) -> bool {
    event.stream.starts_with(b"$")
}

#[async_trait]
impl Pages for AllTail {
    async fn next_page(&mut self) -> Result<Page> {
        while !self.is_open().await? {}
        let mut filled = Filled::default();
        // It may begin at the end.
        if self.end.is_some_and(|end| self.at >= end) {
            self.caught_up();
        } else if !self.live {
            let patience = self.source.server.options.poll_interval;
            let next = self.source.next(Some(patience)).await;
            match next {
                Ok(Incoming::Message(message)) => self.take(message, &mut filled),
                Ok(Incoming::Silence) => self.ask_whether_caught_up().await?,
                Ok(Incoming::Lost) => {}
                Err(failure) => self.settle(failure).await?,
            }
        }
        while filled.has_room() {
            let was_open = self.source.is_open();
            let message = match self.source.at_hand().await {
                Ok(message) => message,
                Err(failure) => {
                    self.settle(failure).await?;
                    None
                }
            };
            let Some(message) = message else {
                // A subscription that is lost has to catch up again.
                self.live &= self.source.is_open() == was_open;
                break;
            };
            self.take(message, &mut filled);
        }
        warn_of_unnamable(filled.unnamable);
        self.source.server.note_seen(self.considered);
        Ok(Page { events: filled.page, considered: self.considered, more: !self.live })
    }
}

#[async_trait]
impl Tail for AllTail {
    async fn changed(&mut self) -> Result<()> {
        while self.live {
            match self.is_open().await {
                Ok(true) => {}
                Ok(false) => continue,
                // The next page will fail in the same way.
                Err(_) => return Ok(()),
            }
            if let Err(failure) = self.source.wait().await {
                self.settle(failure).await?;
            }
            self.live = self.source.is_open();
            break;
        }
        Ok(())
    }
}
