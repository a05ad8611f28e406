//! Checks of what reads and subscriptions give.

use std::{collections::HashMap, sync::Arc};

use annals_core::{
    Direction, EventStream, Message, Position, ReadAll, ReadStream, RecordedEvent, Result, Source,
    Start, StreamId, Subscribe, Subscription, Version,
};
use futures::StreamExt;

use super::ledger::Ledger;

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
            assert!(follows(position.get(), last.get()), "position {last}, then {position}");
        }
        self.position = Some(*position);
        let last = self.versions.get(stream).copied();
        if let Some(last) = last {
            assert!(follows(version.get(), last.get()), "version {last}, then {version}");
        }
        self.versions.insert(stream.clone(), *version);
        last
    }
}

/// Checks each item, and that none follows an error.
fn checked(
    items: EventStream,
    mut limit: Option<u64>,
    mut check: impl FnMut(&RecordedEvent) + Send + 'static,
) -> EventStream {
    let mut failed = false;
    let checked = move |item: Result<RecordedEvent>| {
        assert!(!failed, "after an error, a read gave {item:?}");
        match &item {
            Ok(event) => {
                assert_ne!(limit, Some(0), "a read gave more events than its limit");
                limit = limit.map(|limit| limit - 1);
                check(event);
            }
            Err(_) => failed = true,
        }
        item
    };
    items.map(checked).boxed()
}

pub(super) fn of_stream(
    events: EventStream,
    ledger: Arc<Ledger>,
    ordered: bool,
    stream: StreamId,
    options: &ReadStream,
) -> EventStream {
    let (began, from) = (ledger.undisturbed(), options.from);
    let mut order = Order::new(ordered, options.direction);
    checked(events, options.limit, move |event| {
        ledger.saw(event, ordered);
        assert_eq!(event.stream, stream, "the read of {stream:?} gave {event:?}");
        let version = event.version;
        let last = order.next(event);
        let bounds =
            from.is_none_or(|at| if order.backwards { version <= at } else { version >= at });
        assert!(bounds, "the read from version {from:?} gave {version}");
        if let Some(last) = last
            && ledger.is_undisturbed(began)
        {
            assert_eq!(version.get().abs_diff(last.get()), 1, "{last}, then {version}: a gap");
        }
    })
}

pub(super) fn of_all(
    events: EventStream,
    ledger: Arc<Ledger>,
    ordered: bool,
    options: &ReadAll,
) -> EventStream {
    let (filter, from) = (options.filter.clone(), options.from);
    let mut order = Order::new(ordered, options.direction);
    checked(events, options.limit, move |event| {
        ledger.saw(event, ordered);
        assert!(filter.matches(&event.stream, &event.event_type), "{filter:?} gave {event:?}");
        order.next(event);
        let at = event.position;
        let bounds = from.is_none_or(|from| if order.backwards { at < from } else { at > from });
        assert!(bounds, "the read from position {from:?} gave {at}");
    })
}

pub(super) fn of_subscription(
    messages: Subscription,
    ledger: Arc<Ledger>,
    ordered: bool,
    options: Subscribe,
) -> Subscription {
    let Subscribe { source, start, .. } = options;
    let began = ledger.undisturbed();
    let mut order = Order::new(ordered, Direction::Forwards);
    let mut told = match start {
        Start::After(position) => position,
        _ => Position::START,
    };
    let first_after = match start {
        Start::AfterVersion(version) => version,
        _ => Version::NONE,
    };
    let mut check = move |message: &Message| {
        let position = message.position();
        let Message::Event(event) = message else {
            assert!(position >= told, "{message:?}, after {told} was told");
            told = position;
            if ordered {
                ledger.promised(position);
            }
            return;
        };
        ledger.saw(event, ordered);
        assert!(source.matches(event), "{source:?} gave {event:?}");
        assert!(!ordered || position > told, "everything up to {told} was told before {event:?}");
        told = position;
        let last = order.next(event);
        if let Source::Stream(_) = source {
            assert!(event.version > first_after, "{start:?} gave {event:?}");
            if let Some(last) = last
                && ledger.is_undisturbed(began)
            {
                assert_eq!(event.version, last.plus(1), "{last}, then {}: a gap", event.version);
            }
        }
    };
    Subscription::new(messages.map(move |message| {
        if let Ok(message) = &message {
            check(message);
        }
        message
    }))
}
