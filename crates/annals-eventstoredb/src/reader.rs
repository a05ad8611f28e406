//! One read of the server, event by event, which goes on where it was when the connection is lost.

use std::sync::Arc;

use annals_core::{Direction, Result};
use kurrentdb::{
    Position as At, ReadAllOptions, ReadStream, ReadStreamOptions, RecordedEvent as Stored,
    StreamPosition,
};

use crate::{codec::stored, error::Failure, filter::ServerFilter, store::Shared};

/// What is read.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// `$all`, as much of it as the server's filter lets through.
    All(Option<ServerFilter>),
    /// A stream, by its name on the server.
    Stream(String),
}

/// Where a read begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// With the first event there is in this direction.
    First,
    /// Beyond a position of `$all`. The server begins with it or beyond it, as the direction is.
    Beyond(At),
    /// With a revision of a stream.
    Revision(u64),
    /// Nowhere: the first event of a stream was read, backwards.
    Nowhere,
}

pub(crate) struct Reader {
    shared: Arc<Shared>,
    what: What,
    direction: Direction,
    from: From,
    open: Option<Open>,
}

struct Open {
    stream: ReadStream,
    asked: u64,
    got: u64,
}

/// What a read comes to.
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub(crate) enum Next {
    /// An event.
    Event(Stored),
    /// All that was asked for, and there may be more.
    Enough,
    /// The end, for now.
    End,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, what: What, direction: Direction, from: From) -> Self {
        Self { shared, what, direction, from, open: None }
    }

    /// Ends the request that is under way. The next one goes on where it was.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// The next event; where a request has to be sent for it, it asks for this many.
    pub(crate) async fn next(&mut self, count: u64) -> Result<Next> {
        let mut patience = self.shared.connection.patience();
        loop {
            let failure = match self.step(count).await {
                Ok(Some(next)) => return Ok(next),
                Ok(None) => continue,
                Err(failure) => failure,
            };
            self.open = None;
            if matches!(self.what, What::Stream(_))
                && (failure.is_not_found() || failure.is_deleted())
            {
                return Ok(Next::End);
            }
            self.shared.connection.broke_off(&failure);
            if !(failure.is_passing() && patience.again(&failure).await) {
                return Err(failure.into_error());
            }
        }
    }

    /// Nothing where the event is one that was there before.
    async fn step(&mut self, count: u64) -> Result<Option<Next>, Failure> {
        let open = match &mut self.open {
            Some(open) => open,
            None if matches!(self.from, From::Nowhere) => return Ok(Some(Next::End)),
            None => {
                // The first may be one that is left out here.
                let asked = match self.from {
                    From::Beyond(_) => count.saturating_add(1),
                    _ => count,
                };
                let stream = self.send(asked).await?;
                self.open.insert(Open { stream, asked, got: 0 })
            }
        };
        let Some(event) = self.shared.connection.watched(open.stream.next()).await? else {
            let more = open.got >= open.asked;
            self.open = None;
            return Ok(Some(if more { Next::Enough } else { Next::End }));
        };
        open.got += 1;
        let Some(event) = stored(event) else { return Ok(None) };
        Ok(self.advance(&event).then(|| Next::Event(event)))
    }

    /// Whether this event is beyond all that came before.
    fn advance(&mut self, event: &Stored) -> bool {
        match &self.what {
            What::All(_) => {
                let at = event.position;
                let before = |last: &At| match self.direction {
                    Direction::Forwards => at <= *last,
                    Direction::Backwards => at >= *last,
                };
                if let From::Beyond(last) = &self.from
                    && before(last)
                {
                    return false;
                }
                self.from = From::Beyond(at);
            }
            What::Stream(_) => {
                let next = match self.direction {
                    Direction::Forwards => Some(event.revision.saturating_add(1)),
                    Direction::Backwards => event.revision.checked_sub(1),
                };
                self.from = next.map_or(From::Nowhere, From::Revision);
            }
        }
        true
    }

    async fn send(&mut self, count: u64) -> Result<ReadStream, Failure> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let connection = &self.shared.connection;
        match &self.what {
            What::All(filter) => {
                let options = self.all_options(filter.as_ref()).max_count(count);
                let options = connection.identify(options);
                connection.once(|client| async move { client.read_all(&options).await }).await
            }
            What::Stream(name) => {
                let options = connection.identify(self.stream_options()).max_count(count);
                let name = name.clone();
                connection
                    .once(|client| async move { client.read_stream(name, &options).await })
                    .await
            }
        }
    }

    fn all_options(&self, filter: Option<&ServerFilter>) -> ReadAllOptions {
        let position = match self.from {
            From::Beyond(at) => StreamPosition::Position(at),
            _ => self.outermost(),
        };
        let options = ReadAllOptions::default().position(position);
        let options = match self.direction {
            Direction::Forwards => options.forwards(),
            Direction::Backwards => options.backwards(),
        };
        match filter {
            Some(filter) => options.filter(filter.of_client()),
            None => options,
        }
    }

    fn stream_options(&self) -> ReadStreamOptions {
        let position = match self.from {
            From::Revision(revision) => StreamPosition::Position(revision),
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
