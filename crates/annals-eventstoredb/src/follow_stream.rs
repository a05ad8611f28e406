//! Subscriptions to one stream. The events come from a subscription on the server, which sends them as
//! fast as they are read.

use std::{future::pending, sync::Arc};

use annals_core::{
    Position, Result, StreamId, Version,
    adapter::{Page, Pages, Tail},
};
use async_trait::async_trait;

use crate::{
    connection::{Node, Target},
    error::Failure,
    read::{PAGE_BYTES, PAGE_EVENTS, in_stream},
    rpc::{ReadFrom, ReadMessage, ReadRequest, ReadSource},
    server::Server,
    subscription::{Incoming, Source},
};

pub(crate) fn follow_stream(
    server: &Arc<Server>,
    stream: StreamId,
    after: Version,
    at: Position,
) -> impl Tail {
    StreamTail {
        source: Source::new(server.clone()),
        name: server.names.stream(&stream),
        stream,
        next: after.get(),
        considered: at,
        last: None,
        live: false,
        closed: false,
    }
}

struct StreamTail {
    source: Source,
    stream: StreamId,
    /// The stream's name on the server.
    name: String,
    /// The revision of the next event.
    next: u64,
    considered: Position,
    /// The last revision when the subscription began, until it has come there.
    last: Option<u64>,
    /// True if the subscription has caught up.
    live: bool,
    /// True if the stream was tombstoned: no event will come.
    closed: bool,
}

impl StreamTail {
    fn from(&self) -> ReadFrom {
        self.next.checked_sub(1).map_or(ReadFrom::Start, ReadFrom::At)
    }

    fn request(&self, from: ReadFrom, backwards: bool, count: Option<u64>) -> ReadRequest {
        let source = ReadSource::Stream(self.name.clone());
        ReadRequest { source, from, backwards, count, window: 1 }
    }

    /// Subscribes if there is no subscription. False if it has to be tried again.
    async fn is_open(&mut self) -> Result<bool> {
        if self.source.is_open() {
            return Ok(true);
        }
        match self.subscribe().await {
            Ok(open) => Ok(open),
            Err(failure) if failure.is_deleted(&self.name) => {
                self.close();
                Ok(true)
            }
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn subscribe(&mut self) -> Result<bool, Failure> {
        let Some(node) = self.source.node().await? else { return Ok(false) };
        if !self.live {
            let last = self.last_at(&node).await;
            let Some(last) = self.source.or_pause(last).await? else { return Ok(false) };
            self.last = last;
            self.look_whether_caught_up();
        }
        let request = self.request(self.from(), false, None);
        self.source.subscribe(&node, &request).await
    }

    /// The stream's last revision at this node. From the start of a stream without events the server
    /// does not say that the subscription has caught up.
    async fn last_at(&mut self, node: &Arc<Node>) -> Result<Option<u64>, Failure> {
        let connection = &self.source.server.connection;
        let request = self.request(ReadFrom::End, true, Some(1));
        let mut messages = connection.read_from(node, Target::Events, &request).await?;
        let next = connection.within_deadline(messages.next()).await;
        Ok(match next.inspect_err(|failure| connection.note(node, failure))? {
            Some(ReadMessage::Event(event)) => Some(event.revision),
            _ => None,
        })
    }

    fn look_whether_caught_up(&mut self) {
        if self.last.is_none_or(|last| self.next > last) {
            self.live = true;
        }
    }

    fn close(&mut self) {
        self.source.close();
        self.closed = true;
        self.live = true;
    }
}

#[async_trait]
impl Pages for StreamTail {
    async fn next_page(&mut self) -> Result<Page> {
        while !self.is_open().await? {}
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut first = None;
        if !self.live {
            let patience = self.source.server.options.poll_interval;
            match self.source.next(Some(patience)).await {
                Ok(Incoming::Message(message)) => first = Some(message),
                // The events that were the last ones may be gone. Servers before 23.10 do not say
                // that the subscription has caught up.
                Ok(Incoming::Silence) => self.source.close(),
                Ok(Incoming::Lost) => {}
                Err(failure) if failure.is_deleted(&self.name) => self.close(),
                Err(failure) => return Err(failure.into_error()),
            }
        }
        while !self.closed && events.len() < PAGE_EVENTS && bytes < PAGE_BYTES {
            let was_open = self.source.is_open();
            let message = match first.take() {
                Some(message) => Ok(Some(message)),
                None => self.source.at_hand().await,
            };
            match message {
                Ok(Some(ReadMessage::Event(event))) if event.is_tombstone() => {}
                Ok(Some(ReadMessage::Event(event))) if event.revision >= self.next => {
                    self.next = event.revision.saturating_add(1);
                    self.considered = self.considered.max(event.position);
                    bytes += event.data.len() + event.metadata.len();
                    events.push(in_stream(event, &self.stream)?);
                    if !self.live {
                        self.look_whether_caught_up();
                    }
                }
                Ok(Some(ReadMessage::CaughtUp)) => self.live = true,
                Ok(Some(_)) => {}
                Ok(None) => {
                    // A subscription that is lost has to catch up again.
                    self.live &= self.source.is_open() == was_open;
                    break;
                }
                Err(failure) if failure.is_deleted(&self.name) => self.close(),
                Err(failure) => return Err(failure.into_error()),
            }
        }
        self.source.server.note_seen(self.considered);
        Ok(Page { events, considered: self.considered, more: !self.live })
    }
}

#[async_trait]
impl Tail for StreamTail {
    async fn changed(&mut self) -> Result<()> {
        if self.closed {
            pending::<()>().await;
        }
        match self.source.wait().await {
            Ok(()) => self.live = self.source.is_open(),
            Err(failure) if failure.is_deleted(&self.name) => self.close(),
            Err(failure) => return Err(failure.into_error()),
        }
        if self.closed {
            pending::<()>().await;
        }
        Ok(())
    }
}
