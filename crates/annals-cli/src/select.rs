//! The options that select streams and events.

use annals::{
    Category, Error, EventType, Filter, RecordedEvent, StreamId, StreamPrefix, SubscriberId,
};
use chrono::{DateTime, Utc};
use clap::Args;

use crate::lines::parse_time;

/// Selects the streams that match any of these options; without an option, all streams.
#[derive(Args, Clone, Debug, Default)]
// Without this, the group would have the name of the struct, and clash with a subcommand.
#[group(skip)]
pub(crate) struct SelectStreams {
    /// Only this stream. May be repeated.
    #[arg(long = "stream", value_name = "ID", value_parser = stream)]
    pub(crate) ids: Vec<StreamId>,
    /// Only streams of this category, which is the part of the id before its first `-`. May be
    /// repeated.
    #[arg(long = "category", value_name = "NAME", value_parser = category)]
    pub(crate) categories: Vec<Category>,
    /// Only streams whose ids begin with this text.
    #[arg(long, value_name = "TEXT", value_parser = prefix)]
    pub(crate) prefix: Option<StreamPrefix>,
}

/// Selects events by the time at which they were recorded.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(crate) struct SelectTimes {
    /// Only events recorded at this time or later, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Only events recorded before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<DateTime<Utc>>,
}

/// Selects events by stream, time and type.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(crate) struct Select {
    #[command(flatten)]
    pub(crate) streams: SelectStreams,
    #[command(flatten)]
    pub(crate) times: SelectTimes,
    /// Only events of this type. May be repeated.
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    pub(crate) types: Vec<EventType>,
}

impl SelectStreams {
    pub(crate) fn is_everything(&self) -> bool {
        self.ids.is_empty() && self.categories.is_empty() && self.prefix.is_none()
    }

    pub(crate) fn matches(&self, stream: &StreamId) -> bool {
        self.is_everything()
            || self.ids.contains(stream)
            || self.categories.iter().any(|c| stream.category_str() == Some(c.as_str()))
            || self.prefix.as_ref().is_some_and(|p| stream.as_str().starts_with(p.as_str()))
    }

    /// The part of the selection that the store can filter. [`SelectStreams::matches`] does the
    /// rest on the events that the store returns.
    pub(crate) fn filter(&self) -> Filter {
        match (self.ids.as_slice(), self.categories.as_slice(), &self.prefix) {
            ([one], [], None) => match StreamPrefix::new(one.as_str()) {
                Ok(prefix) => Filter::default().with_prefix(prefix),
                Err(_) => Filter::default(),
            },
            ([], [one], None) => Filter::default().with_category(one.clone()),
            ([], [], Some(prefix)) => Filter::default().with_prefix(prefix.clone()),
            _ => Filter::default(),
        }
    }
}

impl SelectTimes {
    pub(crate) fn is_everything(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    pub(crate) fn matches(&self, at: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

impl Select {
    pub(crate) fn of(streams: SelectStreams, times: SelectTimes) -> Self {
        Self { streams, times, types: Vec::new() }
    }

    pub(crate) fn matches(&self, event: &RecordedEvent) -> bool {
        self.streams.matches(&event.stream)
            && self.times.matches(event.recorded_at)
            && (self.types.is_empty() || self.types.contains(&event.event_type))
    }

    pub(crate) fn filter(&self) -> Filter {
        self.streams.filter().with_event_types(self.types.clone())
    }
}

pub(crate) fn stream(text: &str) -> Result<StreamId, Error> {
    StreamId::new(text)
}

pub(crate) fn event_type(text: &str) -> Result<EventType, Error> {
    EventType::new(text)
}

pub(crate) fn subscriber(text: &str) -> Result<SubscriberId, Error> {
    SubscriberId::new(text)
}

fn category(text: &str) -> Result<Category, Error> {
    Category::new(text)
}

fn prefix(text: &str) -> Result<StreamPrefix, Error> {
    StreamPrefix::new(text)
}
