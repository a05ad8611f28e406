//! Checks of what reads and subscriptions give.

use std::{collections::HashMap, sync::Arc, task::Poll};

use annals_core::{
    Direction, EventStream, Message, Position, ReadAll, ReadStream, RecordedEvent, Result, Source,
    Start, StreamId, Subscribe, Subscription, Version,
};
use futures::{StreamExt, ready, stream};

use super::{
    blame::Call,
    ledger::{Ledger, Moment, Placed, Undisturbed},
};

/// The order of the events of a read or a subscription.
#[derive(Debug, Default)]
struct Order {
    ordered: bool,
    backwards: bool,
    position: Option<Position>,
    versions: HashMap<StreamId, Version>,
}

impl Order {
    fn new(ordered: bool, direction: Direction) -> Self {
        let backwards = direction == Direction::Backwards;
        Self { ordered, backwards, ..Self::default() }
    }

    /// Checks that the event follows the last one, and returns the version of the last one in its
    /// stream.
    #[track_caller]
    fn next(&mut self, event: &RecordedEvent) -> Option<Version> {
        let RecordedEvent { stream, version, position, .. } = event;
        let follows = |next, last| if self.backwards { next < last } else { next > last };
        if let Some(last) = self.position.filter(|_| self.ordered) {
            assert!(
                follows(position.get(), last.get()),
                "after the event at position {last} came version {version} of {stream:?} at \
                 position {position}: out of order"
            );
        }
        self.position = Some(*position);
        let last = self.versions.get(stream).copied();
        if let Some(last) = last {
            assert!(
                follows(version.get(), last.get()),
                "after version {last} of {stream:?} came its version {version}: out of order"
            );
        }
        self.versions.insert(stream.clone(), *version);
        last
    }
}

/// What a read is checked for.
trait Check: Send + 'static {
    fn event(&mut self, event: &RecordedEvent);
    /// The read has ended without an error, and before its limit.
    fn end(&mut self);
}

/// Checks each item, and that none follows an error.
fn checked(
    mut items: EventStream,
    mut limit: Option<u64>,
    mut check: impl Check + Unpin,
) -> EventStream {
    let (mut failed, mut ended) = (false, false);
    let checked = move |cx: &mut std::task::Context<'_>| {
        if ended {
            return Poll::Ready(None);
        }
        let item = ready!(items.poll_next_unpin(cx));
        assert!(item.is_none() || !failed, "after an error, a read gave {item:?}");
        match &item {
            Some(Ok(event)) => {
                assert_ne!(limit, Some(0), "a read gave more events than its limit: {event:?}");
                limit = limit.map(|limit| limit - 1);
                check.event(event);
            }
            Some(Err(_)) => failed = true,
            None => {
                ended = true;
                if !failed && limit != Some(0) {
                    check.end();
                }
            }
        }
        Poll::Ready(item)
    };
    stream::poll_fn(checked).boxed()
}

struct OfStream {
    ledger: Arc<Ledger>,
    ordered: bool,
    stream: StreamId,
    from: Option<Version>,
    order: Order,
    began: Undisturbed,
    /// The version of the stream that was known when the read began.
    known: Version,
    first: Option<Version>,
    last: Option<Version>,
}

impl Check for OfStream {
    fn event(&mut self, event: &RecordedEvent) {
        let Self { stream, from, order, .. } = self;
        self.ledger.saw(event, self.ordered);
        assert_eq!(event.stream, *stream, "the read of {stream:?} gave {event:?}");
        let version = event.version;
        let last = order.next(event);
        let backwards = order.backwards;
        let bounds = from.is_none_or(|at| if backwards { version <= at } else { version >= at });
        assert!(bounds, "the read of {stream:?} from version {from:?} gave version {version}");
        if let Some(last) = last
            && self.ledger.is_undisturbed(self.began)
        {
            assert!(
                version.get().abs_diff(last.get()) == 1,
                "the read of {stream:?} gave version {last} and then {version}: a gap"
            );
        }
        self.first.get_or_insert(version);
        self.last = Some(version);
    }

    /// Checks that the read reached from end to end of the versions that are known to be there.
    fn end(&mut self) {
        let Self { stream, from, known, first, last, .. } = &*self;
        let (_, gone) = self.ledger.versions(stream);
        if gone >= *known || !self.ledger.is_undisturbed(self.began) {
            return;
        }
        let oldest = gone.plus(1);
        let is_complete = match (from, self.order.backwards) {
            (Some(from), false) if *from > *known => return,
            (Some(from), true) if *from <= gone => return,
            (from, false) => {
                first.is_some_and(|first| first <= from.unwrap_or(oldest).max(oldest))
                    && last.is_some_and(|last| last >= *known)
            }
            (from, true) => {
                first.is_some_and(|first| first >= from.unwrap_or(*known).min(*known))
                    && last.is_some_and(|last| last <= oldest)
            }
        };
        let way = if self.order.backwards { "backwards" } else { "forwards" };
        assert!(
            is_complete,
            "the read of {stream:?} {way} from version {from:?} is incomplete: versions {oldest} to \
             {known} are there, but it began with {first:?} and ended with {last:?}"
        );
    }
}

pub(super) fn of_stream(
    events: EventStream,
    ledger: Arc<Ledger>,
    ordered: bool,
    stream: StreamId,
    options: &ReadStream,
) -> EventStream {
    let check = OfStream {
        began: ledger.undisturbed(),
        known: ledger.versions(&stream).0,
        from: options.from,
        order: Order::new(ordered, options.direction),
        ledger,
        ordered,
        stream,
        first: None,
        last: None,
    };
    checked(events, options.limit, check)
}

struct OfAll {
    ledger: Arc<Ledger>,
    ordered: bool,
    options: ReadAll,
    order: Order,
    /// When the read began.
    moment: Moment,
    /// Every event between here and the beginning of the read was given.
    at: Position,
}

impl OfAll {
    /// Checks that no event was left out between the last one and a place.
    #[track_caller]
    fn check_to(&mut self, place: Position) {
        let (after, to) = if self.order.backwards {
            (place, self.at.minus(1))
        } else {
            (self.at, place.minus(1))
        };
        let ReadAll { filter, from, .. } = &self.options;
        let wanted = |event: &Placed| filter.matches(&event.stream, &event.event_type);
        if let Some(missing) = self.ledger.find(after, to, self.moment, wanted) {
            let way = if self.order.backwards { "backwards" } else { "forwards" };
            panic!(
                "the read of all {way} from {from:?}, with {filter:?}, has left out {missing}: it \
                 went from position {} to {place}",
                self.at
            );
        }
        self.at = place;
    }
}

impl Check for OfAll {
    fn event(&mut self, event: &RecordedEvent) {
        let ReadAll { filter, from, .. } = &self.options;
        self.ledger.saw(event, self.ordered);
        assert!(filter.matches(&event.stream, &event.event_type), "{filter:?} gave {event:?}");
        self.order.next(event);
        let (at, backwards) = (event.position, self.order.backwards);
        let bounds = from.is_none_or(|from| if backwards { at < from } else { at > from });
        assert!(bounds, "the read from position {from:?} gave the event at {at}");
        if self.ordered && !event.stream.is_system() {
            self.check_to(at);
        }
    }

    fn end(&mut self) {
        if self.ordered {
            let end = if self.order.backwards { Position::START } else { u64::MAX.into() };
            self.check_to(end);
        }
    }
}

pub(super) fn of_all(
    events: EventStream,
    ledger: Arc<Ledger>,
    ordered: bool,
    options: &ReadAll,
) -> EventStream {
    let order = Order::new(ordered, options.direction);
    let end = if order.backwards { u64::MAX.into() } else { Position::START };
    let check = OfAll {
        moment: ledger.moment(),
        at: options.from.unwrap_or(end),
        options: options.clone(),
        ledger,
        ordered,
        order,
    };
    checked(events, options.limit, check)
}

/// What a subscription has said so far.
struct Followed {
    ledger: Arc<Ledger>,
    ordered: bool,
    source: Source,
    start: Start,
    /// The greatest position that was known when the subscription was asked for.
    known: Position,
    began: Undisturbed,
    order: Order,
    told: Position,
    /// Every event up to here was delivered or left out. `None` as long as it is not known where the
    /// subscription began.
    complete_to: Option<Position>,
    caught_up: bool,
}

impl Followed {
    /// Whether the subscription has to deliver an event that lies behind its start.
    fn wants(&self, event: &Placed) -> bool {
        match &self.source {
            Source::Stream(stream) => {
                let after = match self.start {
                    Start::AfterVersion(version) => version,
                    _ => Version::NONE,
                };
                event.stream == *stream && event.version > after
            }
            Source::All(filter) => filter.matches(&event.stream, &event.event_type),
        }
    }

    /// Checks that every event up to a position was delivered.
    #[track_caller]
    fn check_to(&mut self, to: Position, message: &Message) {
        let Some(after) = self.complete_to.replace(to) else { return };
        let wanted = |event: &Placed| self.wants(event);
        if let Some(missing) = self.ledger.find(after, to, Moment::NOW, wanted) {
            let Self { source, start, .. } = self;
            panic!(
                "the subscription to {source:?} from {start:?} has left out {missing}: everything \
                 up to {after} was delivered before, and then came {message:?}"
            );
        }
        self.complete_to = Some(after.max(to));
    }

    #[track_caller]
    fn check(&mut self, message: &Message) {
        let position = message.position();
        let Message::Event(event) = message else {
            let told = self.told;
            assert!(position >= told, "{message:?} came after {told} was told: it went back");
            self.told = position;
            if self.ordered {
                self.ledger.promised(position);
                self.check_to(position, message);
                if matches!(message, Message::CaughtUp(_)) && !self.caught_up {
                    self.caught_up = true;
                    // What was there before the subscription belongs to its history.
                    self.check_to(position.max(self.known), message);
                    self.complete_to = Some(position);
                }
            }
            return;
        };
        self.ledger.saw(event, self.ordered);
        let Self { source, start, told, known, .. } = &*self;
        assert!(source.matches(event), "the subscription to {source:?} gave {event:?}");
        if self.ordered {
            assert!(position > *told, "everything up to {told} was told before {event:?} came");
            assert!(
                !matches!(start, Start::End) || position > *known,
                "the subscription began at the end, when {known} was known, and gave {event:?}"
            );
            self.check_to(position.minus(1), message);
            self.complete_to = Some(position);
        }
        self.told = position;
        self.check_version(event);
    }

    #[track_caller]
    fn check_version(&mut self, event: &RecordedEvent) {
        let RecordedEvent { stream, version, .. } = event;
        let last = self.order.next(event);
        let has_whole_streams = match &self.source {
            Source::Stream(_) => true,
            Source::All(filter) => filter.event_types.is_empty(),
        };
        if let Start::AfterVersion(after) = self.start {
            assert!(
                *version > after,
                "the subscription began after version {after}, gave {event:?}"
            );
        }
        if let Some(last) = last.filter(|_| has_whole_streams)
            && self.ledger.is_undisturbed(self.began)
        {
            assert!(
                *version == last.plus(1),
                "the subscription gave version {last} of {stream:?} and then {version}: a gap"
            );
        }
    }
}

pub(super) fn of_subscription(
    messages: Subscription,
    ledger: Arc<Ledger>,
    ordered: bool,
    options: Subscribe,
    known: Position,
    call: Call,
) -> Subscription {
    let Subscribe { source, start, .. } = options;
    let (told, complete_to) = match start {
        Start::After(position) => (position, Some(position)),
        Start::Beginning | Start::AfterVersion(_) => (Position::START, Some(Position::START)),
        Start::At(_) | Start::End => (Position::START, None),
    };
    let mut followed = Followed {
        began: ledger.undisturbed(),
        order: Order::new(ordered, Direction::Forwards),
        caught_up: complete_to.is_none(),
        ledger,
        ordered,
        source,
        start,
        known,
        told,
        complete_to,
    };
    Subscription::new(messages.map(move |message: Result<Message>| {
        if let Ok(message) = &message {
            followed.check(message);
        }
        call.answer(message)
    }))
}
