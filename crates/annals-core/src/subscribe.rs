//! Subscriptions: first the events that the store already has, then new ones.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, stream::BoxStream};

use crate::{
    Category, Error, ErrorKind, Filter, Position, RecordedEvent, Result, StreamId, Version,
};

/// Which events a subscription delivers. The enum is exhaustive, so that no store can overlook a
/// source.
///
/// ```
/// use annals_core::{Category, EventType, Filter, Source, StreamId};
/// let one_order = Source::from(StreamId::new("order-42")?);
/// let all_orders = Source::category(Category::new("order")?);
/// let payments = Filter::default().with_event_types([EventType::new("OrderPaid")?]);
/// let all_payments = Source::from(payments);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The events of the whole store that the filter lets through, such as those of a category.
    All(Filter),
    /// The events of one stream.
    Stream(StreamId),
}

impl Source {
    /// The events of one category.
    #[must_use]
    pub fn category(category: Category) -> Self {
        Self::All(Filter::default().with_category(category))
    }

    /// Whether an event belongs to this source.
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

/// Where a subscription begins. The enum is exhaustive, so that no store can overlook a start.
///
/// ```
/// use annals_core::{Position, Start, Subscribe};
/// /// Goes on after the position that the subscriber has stored, or begins with the oldest event.
/// fn resume(checkpoint: Option<Position>) -> Subscribe {
///     Subscribe::default().with_start(checkpoint.map_or(Start::Beginning, Start::After))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// At the first event that can be read.
    #[default]
    Beginning,
    /// After this position, such as the checkpoint of the subscriber. A position above every one
    /// that the store has given is [`BeyondEnd`](ErrorKind::BeyondEnd).
    After(Position),
    /// After this version. Only for a subscription to one stream. A version that the stream never
    /// had is [`BeyondEnd`](ErrorKind::BeyondEnd).
    AfterVersion(Version),
    /// At the first event that was recorded at this time or later. Where the clocks of writers
    /// disagree, the subscription begins early enough to deliver every such event, and delivers
    /// some that were recorded before: see
    /// [`EventStoreExt::position_before`](crate::EventStoreExt::position_before).
    At(DateTime<Utc>),
    /// After the last event that the store has now: everything that is appended after `subscribe`
    /// has returned is delivered.
    End,
}

/// What to subscribe to, and where to begin: by default everything from the beginning.
///
/// ```
/// use annals_core::{Category, EventStore, Message, Position, Result, Source, Subscribe};
///
/// async fn follow(store: &dyn EventStore, checkpoint: Position) -> Result<()> {
///     let orders = Source::category(Category::new("order")?);
///     let mut subscription = store.subscribe(Subscribe::to(orders).after(checkpoint)).await?;
///     loop {
///         match subscription.next().await? {
///             Message::Event(event) => println!("{} {}", event.stream, event.event_type),
///             Message::CaughtUp(position) => println!("all events up to {position} delivered"),
///             _ => {}
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Subscribe {
    /// Which events are delivered.
    pub source: Source,
    /// Where the subscription begins.
    pub start: Start,
}

impl Subscribe {
    /// A subscription to one stream, to all events that a filter lets through, or to a [`Source`],
    /// from the beginning.
    pub fn to(source: impl Into<Source>) -> Self {
        Self { source: source.into(), start: Start::Beginning }
    }

    /// Begins after this position, such as a checkpoint.
    #[must_use]
    pub fn after(mut self, position: impl Into<Position>) -> Self {
        self.start = Start::After(position.into());
        self
    }

    /// Sets where the subscription begins.
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
}

/// What a subscription tells its subscriber.
///
/// ```
/// use annals_core::{Message, Position, Result, Subscription};
///
/// /// Counts the events that the store has now. Returns the position from which to count on.
/// async fn count(mut subscription: Subscription) -> Result<(u64, Position)> {
///     let mut events = 0;
///     loop {
///         match subscription.next().await? {
///             Message::Event(_) => events += 1,
///             Message::CaughtUp(position) => return Ok((events, position)),
///             _ => {} // a checkpoint: the filter left out the events up to it
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The next matching event.
    Event(RecordedEvent),
    /// Every matching event up to this position was delivered. A subscriber can store the position
    /// as its progress, even if the filter lets few events through. A subscription that has caught up
    /// says this soon after each event that its filter leaves out.
    Checkpoint(Position),
    /// Every matching event up to this position was delivered, and the store has no more for now:
    /// the next events are new ones. Said again each time the subscription has fallen behind and
    /// caught up.
    CaughtUp(Position),
}

impl Message {
    /// The position after which another subscription must begin to deliver what this one has not
    /// delivered yet.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Checkpoint(position) | Self::CaughtUp(position) => *position,
        }
    }

    /// The event, if this message is one.
    #[must_use]
    pub fn into_event(self) -> Option<RecordedEvent> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }
}

/// Delivers every matching event exactly once and in order: first those that the store already has,
/// then new ones (contract, rules 15 to 20). Dropping the subscription ends it. It is also a
/// [`Stream`] of messages.
///
/// [`Subscription::next`] is cancel-safe, so it can stand in a `select!`:
///
/// ```
/// # use std::future::Future;
/// use annals_core::{EventStore, Result, Subscribe};
///
/// async fn follow(store: &dyn EventStore, stop: impl Future<Output = ()>) -> Result<()> {
///     let mut subscription = store.subscribe(Subscribe::default()).await?;
///     let mut stop = std::pin::pin!(stop);
///     loop {
///         tokio::select! {
///             () = &mut stop => return Ok(()),
///             event = subscription.next_event() => println!("{}", event?.event_type),
///         }
///     }
/// }
/// ```
pub struct Subscription {
    pages: BoxStream<'static, Told>,
    /// The events of the last page that were not delivered yet.
    events: vec::IntoIter<RecordedEvent>,
    /// The message to deliver after these events.
    then: Option<Result<Message>>,
    ended: bool,
}

/// The events of a page, and the message to deliver after them.
pub(crate) type Told = (Vec<RecordedEvent>, Option<Result<Message>>);

impl Subscription {
    /// For adapters: a subscription from a stream of messages. The stream must keep its state inside
    /// itself between two polls, so that [`Subscription::next`] is cancel-safe.
    pub fn new(messages: impl Stream<Item = Result<Message>> + Send + 'static) -> Self {
        Self::in_pages(messages.map(|message| (Vec::new(), Some(message))))
    }

    /// A subscription from pages. This moves each event once; a stream of messages moves it twice.
    pub(crate) fn in_pages(pages: impl Stream<Item = Told> + Send + 'static) -> Self {
        let events = Vec::new().into_iter();
        Self { pages: pages.boxed(), events, then: None, ended: false }
    }

    /// Waits for the next message. Cancel-safe: if the future is dropped, no message is lost.
    ///
    /// # Errors
    /// The error that ended the subscription, once; after that [`ErrorKind::Unavailable`].
    pub async fn next(&mut self) -> Result<Message> {
        StreamExt::next(self).await.unwrap_or_else(|| Err(ended()))
    }

    /// Waits for the next event, and skips the other messages. Cancel-safe.
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
            // A subscription ends only with an error that says why (contract, rule 19), so an end of
            // the pages becomes one.
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
