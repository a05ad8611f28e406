//! Subscriptions: what was, then what comes.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use futures::{Stream, StreamExt, stream::BoxStream};

use crate::{
    Category, Error, ErrorKind, Filter, Position, RecordedEvent, Result, StreamId, Version,
};

/// What is subscribed to. Exhaustive, so that no store overlooks one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The whole store, or as much of it as the filter lets through: a category, say.
    All(Filter),
    /// One stream.
    Stream(StreamId),
}

impl Source {
    /// One category.
    #[must_use]
    pub fn category(category: Category) -> Self {
        Self::All(Filter::default().with_category(category))
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        match self {
            Self::All(filter) => filter.matches(&event.stream, &event.event_type),
            Self::Stream(stream) => event.stream == *stream,
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::All(Filter::default())
    }
}

impl From<StreamId> for Source {
    fn from(stream: StreamId) -> Self {
        Self::Stream(stream)
    }
}

impl From<Filter> for Source {
    fn from(filter: Filter) -> Self {
        Self::All(filter)
    }
}

/// Where a subscription begins. Exhaustive, so that no store overlooks one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// With the first event there is.
    #[default]
    Beginning,
    /// With the first event after this position: a checkpoint.
    After(Position),
    /// With the first event after this version. Only for one stream.
    AfterVersion(Version),
    /// With whatever is appended after `subscribe` has returned.
    End,
}

/// What to subscribe to, and from where: by default everything from the beginning.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Subscribe {
    /// What is subscribed to.
    pub source: Source,
    /// Where it begins.
    pub start: Start,
}

impl Subscribe {
    /// To one stream, to all that a filter lets through, or to a [`Source`].
    pub fn to(source: impl Into<Source>) -> Self {
        Self { source: source.into(), start: Start::Beginning }
    }

    /// Begins after this position.
    #[must_use]
    pub fn after(mut self, position: impl Into<Position>) -> Self {
        self.start = Start::After(position.into());
        self
    }

    /// Begins elsewhere.
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
}

/// What a subscription says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The next matching event.
    Event(RecordedEvent),
    /// Everything that matches up to this position was delivered; the filter left the rest out.
    Checkpoint(Position),
    /// The same, and that was all there is: from now on events are live. Said again whenever the
    /// subscription had fallen behind.
    CaughtUp(Position),
}

impl Message {
    /// Where a subscription has to begin to get all that this one has not delivered yet.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Checkpoint(position) | Self::CaughtUp(position) => *position,
        }
    }

    /// The event, where it is one.
    #[must_use]
    pub fn into_event(self) -> Option<RecordedEvent> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }
}

/// Every matching event exactly once, in order: first those already there, then live ones
/// (contract, rules 15 to 20). Dropping it ends it. It is also a [`Stream`].
pub struct Subscription {
    pages: BoxStream<'static, Told>,
    /// What is left of the last one.
    events: vec::IntoIter<RecordedEvent>,
    then: Option<Result<Message>>,
    ended: bool,
}

/// Events, and what there is to say after them.
pub(crate) type Told = (Vec<RecordedEvent>, Option<Result<Message>>);

impl Subscription {
    /// For adapters: a subscription from its messages. What the stream does between two polls, it
    /// must keep inside itself, which makes [`Subscription::next`] cancel-safe.
    pub fn new(messages: impl Stream<Item = Result<Message>> + Send + 'static) -> Self {
        Self::in_pages(messages.map(|message| (Vec::new(), Some(message))))
    }

    /// From pages, whose events are moved but once.
    pub(crate) fn in_pages(pages: impl Stream<Item = Told> + Send + 'static) -> Self {
        let events = Vec::new().into_iter();
        Self { pages: pages.boxed(), events, then: None, ended: false }
    }

    /// The next message. Cancel-safe: a call that is dropped loses nothing.
    ///
    /// # Errors
    /// Whatever ended the subscription, once; after that [`ErrorKind::Unavailable`].
    pub async fn next(&mut self) -> Result<Message> {
        StreamExt::next(self).await.unwrap_or_else(|| Err(ended()))
    }

    /// The next event, past everything else. Cancel-safe.
    ///
    /// # Errors
    /// As for [`Subscription::next`].
    pub async fn next_event(&mut self) -> Result<RecordedEvent> {
        loop {
            if let Message::Event(event) = self.next().await? {
                return Ok(event);
            }
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the subscription has ended; subscribe again")
        .with_operation("subscribe")
}

impl Stream for Subscription {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.events.next() {
                return Poll::Ready(Some(Ok(Message::Event(event))));
            }
            if let Some(message) = self.then.take() {
                self.ended = message.is_err();
                return Poll::Ready(Some(message));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            // It ends only with an error that says why (contract, rule 19).
            let page = std::task::ready!(self.pages.poll_next_unpin(cx));
            let (events, then) = page.unwrap_or_else(|| (Vec::new(), Some(Err(ended()))));
            (self.events, self.then) = (events.into_iter(), then);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("ended", &self.ended).finish_non_exhaustive()
    }
}
