//! What a read asks for.

use futures::stream::BoxStream;

use crate::{
    Category, EventType, Position, RecordedEvent, Result, StreamId, StreamPrefix, Version,
};

/// Events as they are read. An error is the last item; an end without one is the end of what was
/// asked for. Nothing is read before the stream is polled, and no more than is being polled for,
/// give or take a page: memory stays bounded (contract, rule 14).
pub type EventStream = BoxStream<'static, Result<RecordedEvent>>;

/// From old to new, or from new to old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// From old to new.
    #[default]
    Forwards,
    /// From new to old.
    Backwards,
}

/// How to read one stream: by default all of it, from old to new.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReadStream {
    /// The version to begin with, itself included; by default the first there is in this
    /// direction. A version that does not exist is where it would be: reading backwards from 100 a
    /// stream of 3 begins with 3.
    pub from: Option<Version>,
    /// Which way.
    pub direction: Direction,
    /// At most this many events.
    pub limit: Option<u64>,
}

impl ReadStream {
    /// Sets the version to begin with, itself included.
    #[must_use]
    pub fn with_from(mut self, version: impl Into<Version>) -> Self {
        self.from = Some(version.into());
        self
    }

    /// Reads from new to old.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }

    /// Sets the greatest number of events.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// How to read over all streams, in position order: by default everything, from old to new.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReadAll {
    /// Which events.
    pub filter: Filter,
    /// The position after which (or, backwards, before which) to begin, itself excluded; by
    /// default the first there is in this direction.
    pub from: Option<Position>,
    /// Which way.
    pub direction: Direction,
    /// At most this many events.
    pub limit: Option<u64>,
}

impl ReadAll {
    /// Sets which events.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Reads from old to new, beginning after this position.
    #[must_use]
    pub fn after(mut self, position: impl Into<Position>) -> Self {
        self.from = Some(position.into());
        self.direction = Direction::Forwards;
        self
    }

    /// Reads from new to old, beginning before this position.
    #[must_use]
    pub fn before(mut self, position: impl Into<Position>) -> Self {
        self.from = Some(position.into());
        self.direction = Direction::Backwards;
        self
    }

    /// Reads from new to old.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }

    /// Sets the greatest number of events.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Which events of the whole store: by default all but those in streams of the backend's own.
/// Every condition that is set must hold. Filters run in the database wherever it can.
///
/// ```
/// use annals_core::{Category, EventType, Filter};
/// let filter = Filter::default()
///     .with_category(Category::new("order")?)
///     .with_event_types([EventType::new("OrderPlaced")?, EventType::new("OrderPaid")?]);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only streams of this category.
    pub category: Option<Category>,
    /// Only streams whose id begins with this.
    pub prefix: Option<StreamPrefix>,
    /// Only events of one of these types; empty means of any.
    pub event_types: Vec<EventType>,
    /// Whether streams whose id begins with `$` count as well.
    pub include_system: bool,
}

impl Filter {
    /// Only streams of this category.
    #[must_use]
    pub fn with_category(mut self, category: Category) -> Self {
        self.category = Some(category);
        self
    }

    /// Only streams whose id begins with this.
    #[must_use]
    pub fn with_prefix(mut self, prefix: StreamPrefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Only events of one of these types; none means of any.
    #[must_use]
    pub fn with_event_types(mut self, event_types: impl IntoIterator<Item = EventType>) -> Self {
        self.event_types = event_types.into_iter().collect();
        self
    }

    /// Also streams whose id begins with `$`.
    #[must_use]
    pub fn including_system(mut self) -> Self {
        self.include_system = true;
        self
    }

    /// Whether an event of this type in this stream is wanted.
    #[must_use]
    pub fn matches(&self, stream: &StreamId, event_type: &EventType) -> bool {
        self.matches_stream(stream)
            && (self.event_types.is_empty() || self.event_types.contains(event_type))
    }

    /// Whether events in this stream are wanted, if they are of the right type.
    #[must_use]
    pub fn matches_stream(&self, stream: &StreamId) -> bool {
        (self.include_system || !stream.is_system())
            && self.category.as_ref().is_none_or(|c| stream.category_str() == Some(c.as_str()))
            && self.prefix.as_ref().is_none_or(|p| stream.as_str().starts_with(p.as_str()))
    }
}
