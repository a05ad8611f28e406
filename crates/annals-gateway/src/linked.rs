//! The streams that the system projections of EventStoreDB make: they hold links to other streams'
//! events. The gateway makes them when they are read: such a stream is a read of all events, with a
//! filter. The revision of a link is the position of its event, which rises, has gaps and never changes.

use annals_core::{Category, EventType, Filter};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    names::type_from_wire,
    tombstones,
    wire::{LINK, WireEvent},
};

/// The type of the events that name a stream.
const STREAM_REFERENCE: &str = "$@";

/// A stream of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkedStream {
    /// `$ce-order`: the events of the category `order`.
    Category(Category),
    /// `$et-OrderPlaced`: the events of the type `OrderPlaced`. With the type's name in the store.
    Type(String, EventType),
    /// `$bc-1`: the events whose metadata has the correlation id `1`. The store has no index for it, so
    /// this reads all events.
    Correlation(String),
    /// `$streams`: the first event of each stream. This reads all events.
    Streams,
    /// `$category-order`: the names of the streams of the category `order`.
    StreamsOfCategory(Category),
}

impl LinkedStream {
    /// `None` if this is the name of another stream.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name == "$streams" {
            return Some(Self::Streams);
        }
        let (projection, of) = name.split_once('-')?;
        Some(match projection {
            "$ce" => Self::Category(Category::new(of).ok()?),
            "$category" => Self::StreamsOfCategory(Category::new(of).ok()?),
            "$et" => Self::Type(of.to_owned(), type_from_wire(of).ok()?),
            "$bc" if !of.is_empty() => Self::Correlation(of.to_owned()),
            _ => return None,
        })
    }

    /// The name that clients use.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Category(category) => format!("$ce-{category}"),
            Self::Type(event_type, _) => format!("$et-{event_type}"),
            Self::Correlation(id) => format!("$bc-{id}"),
            Self::Streams => "$streams".to_owned(),
            Self::StreamsOfCategory(category) => format!("$category-{category}"),
        }
    }

    /// The part of the selection that the store makes.
    pub(crate) fn filter(&self) -> Filter {
        match self {
            Self::Category(category) | Self::StreamsOfCategory(category) => {
                Filter::default().with_category(category.clone())
            }
            Self::Type(_, event_type) => Filter::default().with_event_types([event_type.clone()]),
            Self::Correlation(_) | Self::Streams => Filter::default(),
        }
    }

    /// The link to an event. `None` if the stream has none to this one.
    pub(crate) fn link_to(&self, event: &WireEvent) -> Option<WireEvent> {
        let is_first = event.revision == 0 && !tombstones::is_own(&event.stream);
        let (version, event_type, data) = match self {
            Self::Streams if is_first => ("1:-1:1:4", LINK, event.link_target()),
            Self::StreamsOfCategory(_) if is_first => {
                ("2:-1:1:4", STREAM_REFERENCE, event.stream.clone())
            }
            Self::Category(_) => ("3:-1:1:4", LINK, event.link_target()),
            Self::Type(..) => ("4:-1:1:4", LINK, event.link_target()),
            Self::Correlation(id) if correlation_id(event).as_ref() == Some(id) => {
                ("5:-1:1:4", LINK, event.link_target())
            }
            _ => return None,
        };
        Some(WireEvent {
            id: Uuid::from_u128(event.id.as_u128() ^ u128::from(u64::MAX)),
            stream: self.name(),
            revision: event.position,
            position: event.position,
            event_type: event_type.to_owned(),
            created: event.created,
            is_json: false,
            metadata: self.metadata(version, event),
            data: data.into(),
        })
    }

    /// The metadata of a link, as EventStoreDB writes it.
    fn metadata(&self, version: &str, event: &WireEvent) -> Bytes {
        let mut parts = vec![
            ("$v", json!(version)),
            ("$c", json!(event.position)),
            ("$p", json!(event.position)),
        ];
        if let Self::Category(_) = self {
            parts.push(("$o", json!(event.stream)));
        }
        parts.push(("$causedBy", json!(event.id)));
        if let Some(correlation) = correlation_id(event) {
            parts.push(("$correlationId", json!(correlation)));
        }
        if let Self::Correlation(_) = self {
            let time = DateTime::from_timestamp_micros(event.created / 10).unwrap_or_default();
            let time = time.to_rfc3339_opts(SecondsFormat::Micros, true);
            parts.push(("$eventTimestamp", json!(time)));
        }
        // By hand, since the order of the parts is that of EventStoreDB.
        let parts: Vec<_> =
            parts.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", parts.join(",")).into()
    }
}

fn correlation_id(event: &WireEvent) -> Option<String> {
    let metadata: Map<String, Value> = serde_json::from_slice(&event.metadata).ok()?;
    Some(metadata.get("$correlationId")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_of_projections_are_made() {
        for name in [
            "$ce-order",
            "$et-OrderPlaced",
            "$et-$metadata",
            "$bc-1-2",
            "$streams",
            "$category-order",
        ] {
            assert_eq!(LinkedStream::parse(name).unwrap().name(), name);
        }
        for name in
            ["$ce-", "$ce-a-b", "$et-", "$bc-", "$ce", "$streams-x", "ce-order", "$projections-x"]
        {
            assert_eq!(LinkedStream::parse(name), None, "{name}");
        }
    }
}
