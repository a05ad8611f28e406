//! What the caller of a read asks for.

use futures::stream::BoxStream;

use crate::{
    Category, EventType, Position, RecordedEvent, Result, StreamId, StreamPrefix, Version,
};

/// The events of a read, one after another. If the stream of events ends without an error, the
/// read is complete; an error is always the last item. Nothing is read before the first poll, and
/// the store never reads more than a page ahead of the polls: memory stays bounded (contract,
/// rule 14).
///
/// ```
/// use annals_core::{EventStore, ReadAll, Result, TryStreamExt};
/// async fn print_all(store: &dyn EventStore) -> Result<()> {
///     let mut events = store.read_all(ReadAll::default());
///     while let Some(event) = events.try_next().await? {
///         println!("{} {} {}", event.position, event.stream, event.event_type);
///     }
///     Ok(())
/// }
/// ```
pub type EventStream = BoxStream<'static, Result<RecordedEvent>>;

/// The order in which events are read: from old to new, or from new to old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// From old to new.
    #[default]
    Forwards,
    /// From new to old.
    Backwards,
}

/// Which events of one stream to read: by default all of them, from old to new.
///
/// ```
/// use annals_core::ReadStream;
/// // The last ten events, the newest first.
/// let options = ReadStream::default().backwards().with_limit(10);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReadStream {
    /// The version to begin with (inclusive); by default the first event in this direction. If no
    /// event has this version, the read begins with the next one in its direction: a backwards
    /// read from 100 of a stream with 3 events begins with version 3.
    pub from: Option<Version>,
    /// The order of the events.
    pub direction: Direction,
    /// The most events to read; by default no limit.
    pub limit: Option<u64>,
}

impl ReadStream {
    /// Sets the version to begin with (inclusive).
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

    /// Sets the most events to read.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Which events of the whole store to read, in position order: by default all of them, from old to
/// new.
///
/// ```
/// use annals_core::{Category, Filter, Position, ReadAll};
/// // At most 100 events of the category `order` that were appended after a known position.
/// let options = ReadAll::default()
///     .with_filter(Filter::default().with_category(Category::new("order")?))
///     .after(Position::new(17))
///     .with_limit(100);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReadAll {
    /// Which events are wanted.
    pub filter: Filter,
    /// The position after which to begin or, backwards, before which to begin (exclusive); by
    /// default the read begins with the first event in its direction. A position above every one
    /// that the store has given is [`BeyondEnd`](crate::ErrorKind::BeyondEnd).
    pub from: Option<Position>,
    /// The order of the events.
    pub direction: Direction,
    /// The most events to read; by default no limit.
    pub limit: Option<u64>,
}

impl ReadAll {
    /// Sets which events are wanted.
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

    /// Sets the most events to read.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Which events of the whole store are wanted: by default all except those in the backend's own
/// streams, whose ids begin with `$`. If several conditions are set, an event must fulfil all of
/// them. Filters run in the database if the database can do that.
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
    /// Only streams whose id begins with this prefix.
    pub prefix: Option<StreamPrefix>,
    /// Only events of one of these types. An empty list means any type.
    pub event_types: Vec<EventType>,
    /// Whether events in streams whose id begins with `$` are wanted too.
    pub include_system: bool,
}

impl Filter {
    /// Only streams of this category.
    #[must_use]
    pub fn with_category(mut self, category: Category) -> Self {
        self.category = Some(category);
        self
    }

    /// Only streams whose id begins with this prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: StreamPrefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Only events of one of these types. No types at all means any type.
    #[must_use]
    pub fn with_event_types(mut self, event_types: impl IntoIterator<Item = EventType>) -> Self {
        self.event_types = event_types.into_iter().collect();
        self
    }

    /// Adds the streams whose id begins with `$`.
    #[must_use]
    pub fn including_system(mut self) -> Self {
        self.include_system = true;
        self
    }

    /// Whether the filter lets an event of this type in this stream through.
    #[must_use]
    pub fn matches(&self, stream: &StreamId, event_type: &EventType) -> bool {
        self.matches_stream(stream)
            && (self.event_types.is_empty() || self.event_types.contains(event_type))
    }

    /// Whether the filter lets events of this stream through, if they have a wanted type.
    #[must_use]
    pub fn matches_stream(&self, stream: &StreamId) -> bool {
        (self.include_system || !stream.is_system())
            && self.category.as_ref().is_none_or(|c| stream.category_str() == Some(c.as_str()))
            && self.prefix.as_ref().is_none_or(|p| stream.as_str().starts_with(p.as_str()))
    }
}
