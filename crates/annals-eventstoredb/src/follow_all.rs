//! Subscriptions to all streams.
//!
//! The events come from a subscription on the server, which sends them as fast as they are read. While
//! it catches up, the server says after every 1,000 events that a filter leaves out how far it has
//! looked. So a subscription that is lost goes on from there, and a filter that matches rarely gets
//! through. Once it has caught up, the server says so after each event: a subscriber learns of each
//! position that is behind it.

use std::{sync::Arc, time::Duration};

use annals_core::{
    ErrorKind, Filter, Position, RecordedEvent, Result,
    adapter::{Page, Pages, Tail},
};
use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    codec::recorded,
    connection::{Node, Target},
    error::Failure,
    filter::ServerFilter,
    read::{PAGE_BYTES, PAGE_EVENTS, warn_of_unnamable},
    reader::{Place, ReadItem, Reader, has_event_after, neighbours},
    rpc::{ReadFrom, ReadMessage, ReadRequest, ReadSource},
    server::Server,
    subscription::{Incoming, Source},
};

/// After how many events that a filter leaves out the server says how far it has looked: while a
/// subscription catches up, and when it has.
const WINDOWS: (u32, u32) = (1_000, 1);

/// A page ends after so many messages that say how far the server has looked, so that the subscriber
/// learns of it.
const PAGE_CHECKPOINTS: usize = 64;

/// While others write what a filter leaves out, the store asks at most so often whether it was events
/// of an application.
const QUESTIONS: Duration = Duration::from_millis(50);

pub(crate) fn follow_all(server: &Arc<Server>, filter: Filter, after: Position) -> impl Tail {
    AllTail {
        source: Source::new(server.clone()),
        server_filter: ServerFilter::new(&filter, &server.names),
        filter,
        at: after,
        considered: after,
        end: None,
        live: false,
        without_events: after,
        is_settled: false,
        next_question: Instant::now(),
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
    /// From `considered` up to here the server has only events of its own, and records.
    without_events: Position,
    /// True if the server was asked for a place where it can begin.
    is_settled: bool,
    /// When the store may ask again what it was that the filter left out.
    next_question: Instant,
}

/// A page that is being filled.
#[derive(Default)]
struct Filled {
    page: Vec<RecordedEvent>,
    bytes: usize,
    unnamable: u64,
    /// How often the server said how far it has looked.
    checkpoints: usize,
}

impl Filled {
    fn has_room(&self) -> bool {
        self.page.len() < PAGE_EVENTS
            && self.bytes < PAGE_BYTES
            && self.checkpoints < PAGE_CHECKPOINTS
    }
}

impl AllTail {
    /// Subscribes from where the last subscription ended. False if it has to be tried again.
    async fn subscribe(&mut self) -> Result<bool, Failure> {
        let Some(node) = self.source.node().await? else { return Ok(false) };
        let (catch_up, follow) = WINDOWS;
        let window = if self.live { follow } else { catch_up };
        if !self.live {
            let end = self.end_at(&node).await;
            let Some(end) = self.source.or_pause(end).await? else { return Ok(false) };
            self.end = Some(end);
        }
        let from = match self.at {
            Position::START => ReadFrom::Start,
            at => ReadFrom::At(at.get()),
        };
        let source = ReadSource::All(self.server_filter.clone());
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
                filled.checkpoints += 1;
                self.at = self.at.max(at);
                if !self.live {
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
        if self.server_filter.is_some() {
            // The next one says more often how far it has looked.
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

    /// True if the server has looked further than the subscriber may be told so far.
    fn has_question(&self) -> bool {
        self.live && self.at > self.considered.max(self.without_events)
    }

    /// Decides how far to say that a live subscription has looked.
    ///
    /// Checkpoints, leases and snapshots are events of the server, too. If a live subscriber were told
    /// of them, a checkpoint that it saves would lead to the next one, for ever. So nothing is told
    /// until there is an event of an application.
    async fn consider(&mut self) -> Result<()> {
        if !self.has_question() || Instant::now() < self.next_question {
            return Ok(());
        }
        self.next_question = Instant::now() + QUESTIONS;
        let (from, end) = (self.considered.max(self.without_events), self.at);
        match has_event_after(&self.source.server, from).await {
            Ok(true) => self.considered = end,
            Ok(false) => {}
            // The subscription itself finds out whether the server is gone.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.without_events = end;
        Ok(())
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
        self.consider().await?;
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
            let has_question = self.has_question();
            let waited = tokio::select! {
                waited = self.source.wait() => waited,
                () = sleep_until(self.next_question), if has_question => return Ok(()),
            };
            if let Err(failure) = waited {
                self.settle(failure).await?;
            }
            self.live = self.source.is_open();
            break;
        }
        Ok(())
    }
}
