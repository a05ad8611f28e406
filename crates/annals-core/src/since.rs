//! From a time to a place: the last event before which everything was recorded earlier.

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;

use crate::{
    Direction, EventStore, EventStream, Position, ReadAll, ReadStream, RecordedEvent, Result,
    StreamId, Version,
};

/// By how much an event may have an earlier record time than an event before it, in the worst case:
/// the clocks of two writers, or of a server and its successor, disagree by less than this.
pub(crate) const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);

/// A search by halves ends when this many numbers are left; the rest is read.
const FEW: u64 = 64;

/// The position after which a reader finds every event of the store that was recorded at `time` or
/// later.
pub(crate) async fn position_before<S>(store: &S, time: DateTime<Utc>) -> Result<Position>
where
    S: EventStore + ?Sized,
{
    Places { store, stream: None }.before(time).await.map(Position::new)
}

/// The same in one stream.
pub(crate) async fn version_before<S>(
    store: &S,
    stream: &StreamId,
    time: DateTime<Utc>,
) -> Result<Version>
where
    S: EventStore + ?Sized,
{
    Places { store, stream: Some(stream) }.before(time).await.map(Version::new)
}

/// The places of the events of a stream, which are their versions, or else of the store.
struct Places<'a, S: ?Sized> {
    store: &'a S,
    stream: Option<&'a StreamId>,
}

impl<S: EventStore + ?Sized> Places<'_, S> {
    /// The place of the last event such that it and every event before it was recorded before
    /// `time`; 0 if there is none.
    async fn before(&self, time: DateTime<Utc>) -> Result<u64> {
        // Everything before an event that was recorded before `early` was recorded before `time`.
        let early = time.checked_sub_signed(CLOCK_SKEW).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let Some(last) = self.backwards(Some(1)).try_next().await? else { return Ok(0) };
        if last.recorded_at < early {
            return Ok(self.place(&last));
        }
        // Everything up to `low` was recorded before `time`, and the first event from `high` on not
        // before `early`.
        let (mut low, mut high) = (0, self.place(&last));
        while high - low > FEW {
            let middle = low + (high - low) / 2;
            match self.after(middle, Some(1)).try_next().await {
                Ok(Some(event)) if event.recorded_at < early && self.place(&event) < high => {
                    low = self.place(&event);
                }
                Ok(_) => high = middle,
                Err(error) if error.is_retryable() => return Err(error),
                // Some servers read only from positions that they gave. So look at what was
                // recorded from `early` on, from the end.
                Err(_) => return self.before_from_the_end(time, early).await,
            }
        }
        let mut events = self.after(low, None);
        while let Some(event) = events.try_next().await? {
            if event.recorded_at >= time {
                break;
            }
            low = self.place(&event);
        }
        Ok(low)
    }

    async fn before_from_the_end(&self, time: DateTime<Utc>, early: DateTime<Utc>) -> Result<u64> {
        let mut found = None;
        let mut events = self.backwards(None);
        while let Some(event) = events.try_next().await? {
            if event.recorded_at >= time {
                found = None;
            } else {
                found.get_or_insert(self.place(&event));
            }
            if event.recorded_at < early {
                break;
            }
        }
        Ok(found.unwrap_or(0))
    }

    fn place(&self, event: &RecordedEvent) -> u64 {
        match self.stream {
            Some(_) => event.version.get(),
            None => event.position.get(),
        }
    }

    fn after(&self, place: u64, limit: Option<u64>) -> EventStream {
        let from = (place > 0).then_some(place);
        match self.stream {
            Some(stream) => {
                let from = from.map(|version| Version::new(version).plus(1));
                self.store.read_stream(stream, ReadStream { from, limit, ..ReadStream::default() })
            }
            None => {
                let from = from.map(Position::new);
                self.store.read_all(ReadAll { from, limit, ..ReadAll::default() })
            }
        }
    }

    fn backwards(&self, limit: Option<u64>) -> EventStream {
        let direction = Direction::Backwards;
        match self.stream {
            Some(stream) => {
                let options = ReadStream { direction, limit, ..ReadStream::default() };
                self.store.read_stream(stream, options)
            }
            None => self.store.read_all(ReadAll { direction, limit, ..ReadAll::default() }),
        }
    }
}
