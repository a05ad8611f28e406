//! A subscription over a connection that can be cut. It is correct but for the bug of its handle.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use annals_core::{
    Error, ErrorKind, EventStore, EventStoreExt, Message, Position, ReadAll, RecordedEvent, Result,
    Source, Start, Subscribe, Subscription, TryStreamExt,
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::{broadcast, watch};

use crate::{bug::Bug, store::Handle};

/// Wakes the subscribers after an append, as far as the handle's bug lets it.
pub(crate) fn wake(handle: &Handle) {
    handle.server.waiters.send_modify(|appends| *appends = (appends.0 + 1, handle.number));
    if handle.has(Bug::ImportsWakeNobody) {
        handle.server.in_flight.store(0, Ordering::SeqCst);
    }
    if handle.has(Bug::WakesOnlyOne) {
        handle.server.turn.notify_one();
    }
}

pub(crate) async fn subscribe(handle: &Handle, mut options: Subscribe) -> Result<Subscription> {
    if let Some(subscription) = handle.begin_subscription(&mut options).await? {
        return Ok(subscription);
    }
    let begins_after = matches!(options.start, Start::After(after) if after > Position::START);
    match options.start {
        Start::End if handle.has(Bug::EndIsLazy) => {
            let handle = handle.clone();
            let lazily = async move {
                match connect(&handle, options).await {
                    Ok(messages) => messages.boxed(),
                    Err(error) => stream::iter([Err(error)]).boxed(),
                }
            };
            return Ok(Subscription::new(stream::once(lazily).flatten()));
        }
        // Look for the end now: the stream connects again later, when the end may be elsewhere.
        Start::End => options.start = Start::After(handle.store().last_position().await?),
        Start::At(time) if handle.has(Bug::BeginsAfterTheTime) => {
            options.start = Start::At(time + chrono::TimeDelta::microseconds(1));
        }
        Start::At(_) if handle.has(Bug::TakesATimeForTheBeginning) => {
            options.start = Start::Beginning;
        }
        Start::At(time) if handle.has(Bug::TrustsClocks) => {
            let earlier = |event: &RecordedEvent| std::future::ready(event.recorded_at < time);
            let events = handle.store().read_all(ReadAll::default().backwards());
            let mut events = events.try_filter(earlier);
            let last = events.try_next().await?.map_or(Position::START, |event| event.position);
            options.start = Start::After(last);
        }
        Start::After(after) if handle.has(Bug::ResumesAt) => {
            options.start = Start::After(after.minus(1));
        }
        _ => {}
    }
    if handle.has(Bug::GapBeforeLive) {
        return with_gap(handle, options).await;
    }
    let last = handle.store().last_position().await?;
    let messages = connect(handle, options).await?;
    Ok(match handle.bug {
        Some(Bug::ResumesTooLate) if begins_after => {
            let mut skipped = false;
            Subscription::new(messages.filter(move |message| {
                let skip = !skipped && matches!(message, Ok(Message::Event(_)));
                skipped |= skip;
                std::future::ready(!skip)
            }))
        }
        Some(Bug::CaughtUpTooEarly) => {
            let early = Ok(Message::CaughtUp(Position::START));
            Subscription::new(stream::iter([early]).chain(messages))
        }
        Some(Bug::TellsMoreThanItGave) => {
            Subscription::new(messages.map(|message| match message {
                Ok(Message::CaughtUp(at)) => Ok(Message::CaughtUp(at.plus(5))),
                other => other,
            }))
        }
        Some(Bug::TellsLessThanItsStart) if begins_after => {
            Subscription::new(messages.map(|message| match message {
                Ok(Message::CaughtUp(at)) => Ok(Message::CaughtUp(at.minus(1))),
                other => other,
            }))
        }
        Some(Bug::CheckpointsAreAhead) => {
            Subscription::new(stream::iter([Ok(Message::Checkpoint(last))]).chain(messages))
        }
        Some(Bug::DropsForTheSlow) => Subscription::new(buffered(messages)),
        Some(Bug::CancellingLosesAnEvent) => Subscription::new(Lossy::new(messages.boxed())),
        _ => Subscription::new(messages),
    })
}

struct Connection {
    handle: Handle,
    /// What to subscribe to after the connection was cut.
    options: Subscribe,
    messages: Subscription,
    cuts: watch::Receiver<u64>,
    appends: watch::Receiver<(u64, u64)>,
    live: bool,
    told_caught_up: bool,
    again: Option<Message>,
    greatest_ticket: u64,
    ended: bool,
}

async fn connect(
    handle: &Handle,
    options: Subscribe,
) -> Result<impl Stream<Item = Result<Message>> + Send + 'static + use<>> {
    let connection = Connection {
        messages: handle.store().subscribe(inner(handle, &options)).await?,
        cuts: handle.server.cuts.subscribe(),
        appends: handle.server.waiters.subscribe(),
        handle: handle.clone(),
        options,
        live: false,
        told_caught_up: false,
        again: None,
        greatest_ticket: 0,
        ended: false,
    };
    Ok(stream::unfold(connection, |mut connection| async {
        let message = connection.next().await?;
        connection.ended = message.is_err();
        Some((message, connection))
    }))
}

fn inner(handle: &Handle, options: &Subscribe) -> Subscribe {
    let mut options = options.clone();
    if let Source::Stream(stream) = &options.source {
        options.source = Source::Stream(handle.inner_id(stream));
    }
    options
}

impl Connection {
    async fn next(&mut self) -> Option<Result<Message>> {
        if self.ended {
            return None;
        }
        if let Some(again) = self.again.take() {
            return Some(Ok(again));
        }
        loop {
            if self.live {
                self.wait().await;
            }
            let message = tokio::select! {
                biased;
                _ = self.cuts.changed() => match self.reconnect().await {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                },
                message = self.messages.next() => message,
            };
            let message = match message {
                Ok(Message::Event(event)) => self.handle.shape(event).map(Message::Event),
                other => other,
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => return Some(Err(self.blame(error))),
            };
            self.options.start = Start::After(message.position());
            if self.passes(&message) {
                return Some(Ok(message));
            }
        }
    }

    /// Keeps a live subscription from delivering an event, as its bug says.
    async fn wait(&mut self) {
        match self.handle.bug {
            Some(Bug::PollsOnceAnHour) => tokio::time::sleep(Duration::from_secs(3600)).await,
            Some(Bug::WakesOnlyItself) => loop {
                let _ = self.appends.changed().await;
                if self.appends.borrow_and_update().1 == self.handle.number {
                    return;
                }
            },
            // An import has set the count, and only an append resets it.
            Some(Bug::ImportsWakeNobody) => {
                while self.handle.server.in_flight.load(Ordering::SeqCst) > 0 {
                    let _ = self.appends.changed().await;
                }
            }
            Some(Bug::WakesOnlyOne) => self.handle.server.turn.notified().await,
            Some(Bug::WaitsInTurn) => {
                let _turn = self.handle.server.lock.acquire().await;
                let _ = self.appends.changed().await;
            }
            _ => {}
        }
    }

    /// Adds to an error which call it belongs to.
    fn blame(&self, error: Error) -> Error {
        let error = self.handle.context("subscribe")(error);
        match &self.options.source {
            Source::Stream(stream) => error.with_stream(stream),
            Source::All(_) => error,
        }
    }

    async fn reconnect(&mut self) -> Result<()> {
        let mut options = self.options.clone();
        match self.handle.bug {
            Some(Bug::EndsWithTheConnection) => {
                let error = Error::new(ErrorKind::Unavailable, "the connection was lost");
                return Err(self.blame(error));
            }
            Some(Bug::ReconnectsAtTheEnd) => options.start = Start::End,
            Some(Bug::ReconnectsAtTheBeginning) => options.start = Start::Beginning,
            _ => {}
        }
        self.messages = self.handle.store().subscribe(inner(&self.handle, &options)).await?;
        Ok(())
    }

    /// Whether the subscriber is given this message.
    fn passes(&mut self, message: &Message) -> bool {
        let bug = self.handle.bug;
        match message {
            Message::Event(event) => {
                if self.live && bug == Some(Bug::DeliversTwice) {
                    self.again = Some(message.clone());
                }
                if bug == Some(Bug::SkipsLateCommits) {
                    let tickets = self.handle.server.tickets.lock().unwrap();
                    let ticket = tickets.get(&event.position).copied().unwrap_or_default();
                    if ticket < self.greatest_ticket {
                        return false;
                    }
                    self.greatest_ticket = ticket;
                }
                true
            }
            Message::CaughtUp(_) => {
                self.live = true;
                // The inner subscription says it again after each cut. The subscriber hears it
                // once, and afterwards as a checkpoint.
                let first = !std::mem::replace(&mut self.told_caught_up, true);
                bug != Some(Bug::NeverCaughtUp) && (first || bug != Some(Bug::NoCheckpoints))
            }
            Message::Checkpoint(position) if bug == Some(Bug::CheckpointsAreRare) => {
                position.get() % 1_000 == 0
            }
            _ => bug != Some(Bug::NoCheckpoints),
        }
    }
}

/// Gives the history, and then only events that are appended after the subscriber has read all of
/// it.
async fn with_gap(handle: &Handle, options: Subscribe) -> Result<Subscription> {
    let mut past = handle.store().subscribe(inner(handle, &options)).await?;
    let mut history = Vec::new();
    loop {
        let message = past.next().await?;
        let caught_up = matches!(message, Message::CaughtUp(_));
        history.push(Ok(message));
        if caught_up {
            break;
        }
    }
    let (handle, end) = (handle.clone(), options.with_start(Start::End));
    let live = async move {
        match handle.store().subscribe(inner(&handle, &end)).await {
            // Leave out the message that the subscription has caught up: the history ended with
            // one.
            Ok(live) => live.skip(1).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    };
    Ok(Subscription::new(stream::iter(history).chain(stream::once(live).flatten())))
}

/// A buffer of 64 messages. If it is full, a new message replaces the oldest.
fn buffered(
    messages: impl Stream<Item = Result<Message>> + Send + 'static,
) -> impl Stream<Item = Result<Message>> + Send + 'static {
    let (sender, receiver) = broadcast::channel(64);
    tokio::spawn(async move {
        let mut messages = std::pin::pin!(messages);
        while let Some(Ok(message)) = messages.next().await {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async {
        loop {
            match receiver.recv().await {
                Ok(message) => return Some((Ok(message), receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

/// Loses the next event if it is polled again without having been woken: that is what happens when
/// a `next` is cancelled while it waits.
struct Lossy {
    messages: Pin<Box<dyn Stream<Item = Result<Message>> + Send>>,
    signal: Arc<Signal>,
    waiting: bool,
    cancelled: bool,
}

#[derive(Default)]
struct Signal {
    woken: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Lossy {
    fn new(messages: Pin<Box<dyn Stream<Item = Result<Message>> + Send>>) -> Self {
        Self { messages, signal: Arc::default(), waiting: false, cancelled: false }
    }
}

impl Stream for Lossy {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let woken = self.signal.woken.swap(false, Ordering::SeqCst);
        self.cancelled |= self.waiting && !woken;
        *self.signal.waker.lock().unwrap() = Some(cx.waker().clone());
        let waker = Waker::from(self.signal.clone());
        loop {
            let polled = self.messages.poll_next_unpin(&mut Context::from_waker(&waker));
            self.waiting = polled.is_pending();
            let is_event = matches!(polled, Poll::Ready(Some(Ok(Message::Event(_)))));
            if is_event && std::mem::take(&mut self.cancelled) {
                continue;
            }
            return polled;
        }
    }
}
