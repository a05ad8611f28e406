//! Events, and the words around them, between the store and the wire.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use annals_core::{ContentKind, NewEvent, Payload, RecordedEvent};
use bytes::Bytes;
use prost_types::Timestamp;
use tonic::Status;
use uuid::Uuid;

use crate::{
    names::{identifier, out, type_in},
    proto::{
        shared::{
            AllStreamPosition, Empty, ReadEvent, Uuid as WireUuid, UuidOption,
            read_event::{self, RecordedEvent as WireEvent},
            uuid as wire_uuid, uuid_option,
        },
        streams::ProposedMessage,
    },
    status::metadata_missing,
};

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";
/// The type of an event that is a link to another.
pub(crate) const LINK: &str = "$>";

/// An event as clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) id: Uuid,
    pub(crate) stream: String,
    pub(crate) revision: u64,
    pub(crate) position: u64,
    pub(crate) event_type: String,
    /// In 100 ns since 1970.
    created: i64,
    is_json: bool,
    pub(crate) metadata: Bytes,
    pub(crate) data: Bytes,
}

impl Recorded {
    pub(crate) fn new(event: &RecordedEvent) -> Self {
        Self {
            id: event.id,
            stream: out(event.stream.as_str()).to_owned(),
            revision: event.version.get().saturating_sub(1),
            position: event.position.get(),
            event_type: out(event.event_type.as_str()).to_owned(),
            created: event.recorded_at.timestamp_micros().saturating_mul(10),
            is_json: event.data.kind() == ContentKind::Json,
            metadata: event.metadata.bytes().clone(),
            data: event.data.bytes().clone(),
        }
    }

    /// The link to this event in the stream of its category. The store keeps none: its revision is
    /// the event's position, which stays what it is whatever is removed.
    pub(crate) fn category_link(&self, stream: String) -> Self {
        Self {
            id: Uuid::from_u128(self.id.as_u128() ^ u128::from(u64::MAX)),
            stream,
            revision: self.position,
            event_type: LINK.to_owned(),
            is_json: false,
            metadata: Bytes::new(),
            data: self.link().into(),
            ..*self
        }
    }

    /// The data of an event that is a link to this one.
    pub(crate) fn link(&self) -> String {
        format!("{}@{}", self.revision, self.stream)
    }

    fn headers(&self) -> HashMap<String, String> {
        let content_type = if self.is_json { JSON } else { BINARY };
        HashMap::from([
            ("type".to_owned(), self.event_type.clone()),
            ("content-type".to_owned(), content_type.to_owned()),
            ("created".to_owned(), self.created.to_string()),
        ])
    }
}

/// What was read: an event, a link and the event that it leads to, or a link that leads nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) event: Option<Recorded>,
    pub(crate) link: Option<Recorded>,
}

impl Resolved {
    pub(crate) fn event(event: Recorded) -> Self {
        Self { event: Some(event), link: None }
    }

    /// What stands in the stream that is read.
    pub(crate) fn original(&self) -> Option<&Recorded> {
        self.link.as_ref().or(self.event.as_ref())
    }
}

/// How clients want ids.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Ids {
    #[default]
    Structured,
    Text,
}

impl Ids {
    pub(crate) fn asked(option: Option<UuidOption>) -> Self {
        match option {
            Some(UuidOption { content: Some(uuid_option::Content::String(_)) }) => Self::Text,
            _ => Self::Structured,
        }
    }

    pub(crate) fn write(self, id: Uuid) -> WireUuid {
        let value = match self {
            Self::Text => wire_uuid::Value::String(id.to_string()),
            Self::Structured => {
                let (most, least) = id.as_u64_pair();
                wire_uuid::Value::Structured(wire_uuid::Structured {
                    most_significant_bits: most.cast_signed(),
                    least_significant_bits: least.cast_signed(),
                })
            }
        };
        WireUuid { value: Some(value) }
    }
}

pub(crate) fn read_id(id: Option<WireUuid>) -> Result<Uuid, Status> {
    match id.and_then(|id| id.value) {
        Some(wire_uuid::Value::Structured(id)) => Ok(Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        )),
        Some(wire_uuid::Value::String(id)) => Uuid::try_parse(&id)
            .map_err(|error| Status::invalid_argument(format!("the id {id:?}: {error}"))),
        None => Err(Status::invalid_argument("an id is missing")),
    }
}

/// An event that a client sends. What it calls JSON is not looked into, since EventStoreDB does not
/// either: the bytes and what they are called are kept.
pub(crate) fn proposed(message: ProposedMessage) -> Result<NewEvent, Status> {
    let ProposedMessage { id, metadata: headers, custom_metadata, data } = message;
    let header = |name| headers.get(name).ok_or_else(|| metadata_missing(name));
    let event_type = type_in(header("type")?)?;
    let is_json = header("content-type")? == JSON;
    let kind = if is_json { ContentKind::Json } else { ContentKind::Binary };
    let data = Payload::from_stored(kind, data);
    Ok(NewEvent::from_stored(read_id(id)?, event_type, data, Payload::inferred(custom_metadata)))
}

/// Now.
pub(crate) fn timestamp() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = i32::try_from(now.subsec_nanos()).unwrap_or_default();
    Timestamp { seconds: i64::try_from(now.as_secs()).unwrap_or_default(), nanos }
}

/// A position: both parts are the same here.
pub(crate) fn at(position: u64) -> AllStreamPosition {
    AllStreamPosition { commit_position: position, prepare_position: position }
}

/// What was read, for a client; in a group with how often it was tried before.
pub(crate) fn read_event(resolved: Resolved, ids: Ids, retries: Option<i32>) -> ReadEvent {
    let position = resolved.original().map(|event| event.position);
    let recorded = |event: Recorded| WireEvent {
        id: Some(ids.write(event.id)),
        stream_identifier: Some(identifier(&event.stream)),
        stream_revision: event.revision,
        prepare_position: event.position,
        commit_position: event.position,
        metadata: event.headers(),
        custom_metadata: event.metadata,
        data: event.data,
    };
    ReadEvent {
        event: resolved.event.map(recorded),
        link: resolved.link.map(recorded),
        position: Some(match position {
            Some(position) => read_event::Position::CommitPosition(position),
            None => read_event::Position::NoPosition(Empty {}),
        }),
        count: retries.map(read_event::Count::RetryCount),
    }
}
