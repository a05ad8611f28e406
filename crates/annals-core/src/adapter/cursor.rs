//! Where a read goes on, for pages that look at one event after the other.

use std::{borrow::Cow, ops::RangeInclusive};

use super::Page;
use crate::{Direction, Filter, Position, ReadAll, ReadStream, RecordedEvent};

/// The most events of a page.
const PAGE: u64 = 256;
/// The most events that a page looks at, where its filter leaves most of them out.
const CONSIDERED: usize = 4_096;

/// What is left of a read: a range of versions of one stream, or of positions of the whole store.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// Both ends are inclusive.
    range: RangeInclusive<u64>,
    direction: Direction,
    limit: u64,
    of_stream: bool,
}

impl Cursor {
    /// The cursor of a read of one stream: its places are versions.
    #[must_use]
    pub fn of_stream(options: &ReadStream) -> Self {
        let from = options.from.map(|version| version.get());
        Self::new(from, options.direction, options.limit, true)
    }

    /// The cursor of a read of all streams: its places are positions.
    #[must_use]
    pub fn of_all(options: &ReadAll) -> Self {
        // The read begins after or before the position, not at it.
        let from = options.from.map(|position| match options.direction {
            Direction::Forwards => position.plus(1).get(),
            Direction::Backwards => position.minus(1).get(),
        });
        Self::new(from, options.direction, options.limit, false)
    }

    fn new(from: Option<u64>, direction: Direction, limit: Option<u64>, of_stream: bool) -> Self {
        let range = match direction {
            Direction::Forwards => from.unwrap_or(0)..=u64::MAX,
            Direction::Backwards => 0..=from.unwrap_or(u64::MAX),
        };
        Self { range, direction, limit: limit.unwrap_or(u64::MAX), of_stream }
    }

    /// The versions or positions that are left to look at.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<u64> {
        self.range.clone()
    }

    /// Fills a page from the events that have these versions or positions, in their order, and moves
    /// the cursor behind the last one that the page looked at. The page has at most 256 events, and
    /// looks at no more than 4,096. `end` is the position up to which `events` has all events. A borrowed
    /// event is copied only if the filter lets it through.
    ///
    /// # Errors
    /// The first error that `events` gives.
    pub fn page<'a, E>(
        &mut self,
        mut events: impl DoubleEndedIterator<Item = Result<Cow<'a, RecordedEvent>, E>>,
        filter: &Filter,
        end: Position,
    ) -> Result<Page, E> {
        let is_forwards = self.direction == Direction::Forwards;
        let mut page = Page { events: Vec::new(), considered: end, more: false };
        let most = self.limit.min(PAGE);
        for _ in 0..CONSIDERED {
            if page.events.len() as u64 == most {
                break;
            }
            let next = if is_forwards { events.next() } else { events.next_back() };
            let Some(event) = next.transpose()? else {
                // Everything up to the end was looked at.
                page.considered = end;
                self.limit -= page.events.len() as u64;
                return Ok(page);
            };
            let place = if self.of_stream { event.version.get() } else { event.position.get() };
            self.range = match is_forwards {
                true => place.saturating_add(1)..=u64::MAX,
                false => 0..=place.saturating_sub(1),
            };
            page.considered = event.position;
            if filter.matches(&event.stream, &event.event_type) {
                page.events.push(event.into_owned());
            }
        }
        self.limit -= page.events.len() as u64;
        page.more = self.limit > 0;
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::{Error, EventType, NewEvent, StreamId};

    const COUNT: u64 = 10_000;

    /// The events at these places of a stream whose every hundredth event has the type `b`.
    fn events(
        range: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = Result<Cow<'static, RecordedEvent>, Error>> {
        let range = *range.start().max(&1)..=*range.end().min(&COUNT);
        range.map(|n| {
            let name = if n % 100 == 0 { "b" } else { "a" };
            let event = NewEvent::new(EventType::new(name)?, crate::Payload::binary(vec![]));
            Ok(Cow::Owned(event.recorded(StreamId::new("s")?, n.into(), n.into(), Utc::now())))
        })
    }

    fn read(mut cursor: Cursor, filter: &Filter) -> (Vec<u64>, Vec<u64>) {
        let (mut read, mut considered) = (Vec::new(), Vec::new());
        loop {
            let page = cursor.page(events(cursor.range()), filter, COUNT.into()).unwrap();
            read.extend(page.events.iter().map(|event| event.position.get()));
            considered.push(page.considered.get());
            if !page.more {
                return (read, considered);
            }
        }
    }

    #[test]
    fn pages_give_every_event_once_and_say_how_far_they_looked() {
        let all = Filter::default();
        let forwards = (1..=COUNT).collect::<Vec<_>>();
        let mut backwards = forwards.clone();
        backwards.reverse();
        assert_eq!(read(Cursor::of_stream(&ReadStream::default()), &all).0, forwards);
        assert_eq!(read(Cursor::of_all(&ReadAll::default().backwards()), &all).0, backwards);

        let some = Filter::default().with_event_types([EventType::new("b").unwrap()]);
        let (found, considered) = read(Cursor::of_all(&ReadAll::default()), &some);
        assert_eq!(found, (1..=100).map(|n| n * 100).collect::<Vec<_>>());
        assert_eq!(considered, [4_096, 8_192, 10_000]);

        let options = ReadAll::default().after(9_998).with_limit(1);
        assert_eq!(read(Cursor::of_all(&options), &all), (vec![9_999], vec![9_999]));
        let options = ReadAll::default().before(2);
        assert_eq!(read(Cursor::of_all(&options), &all).0, [1]);
        let options = ReadStream::default().with_from(2).backwards().with_limit(600);
        assert_eq!(read(Cursor::of_stream(&options), &all).0, [2, 1]);
        assert!(read(Cursor::of_stream(&ReadStream::default().with_limit(0)), &all).0.is_empty());
    }
}
