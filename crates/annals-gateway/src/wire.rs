//! Conversions of events, ids, positions and times between the store and the wire.

use std::time::SystemTime;

use annals_core::{ContentKind, NewEvent, Payload, RecordedEvent};
use annals_eventstoredb_proto::header;
use bytes::Bytes;
use prost_types::Timestamp;
use tonic::Status;
use uuid::Uuid;

use crate::{
    names::{to_wire, type_from_wire},
    proto::{
        shared::{
            AllStreamPosition, Empty, ReadEvent, StreamIdentifier, Uuid as WireUuid, UuidOption,
            read_event, uuid as wire_uuid, uuid_option,
        },
        streams::ProposedMessage,
    },
    status::metadata_missing,
    tombstones,
};

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";
/// The type of an event that is a link to another event.
pub(crate) const LINK: &str = "$>";

/// A recorded event as clients see it: with names as on the wire, and revisions from 0.
#[derive(Clone, Debug)]
pub(crate) struct WireEvent {
    pub(crate) id: Uuid,
    pub(crate) stream: String,
    pub(crate) revision: u64,
    pub(crate) position: u64,
    pub(crate) event_type: String,
    /// The time of recording, in units of 100 ns since 1970.
    pub(crate) created: i64,
    pub(crate) is_json: bool,
    pub(crate) metadata: Bytes,
    pub(crate) data: Bytes,
}

impl WireEvent {
    pub(crate) fn new(event: &RecordedEvent) -> Self {
        let event = Self::as_stored(event);
        tombstones::shown(&event).unwrap_or(event)
    }

    /// The event itself, also if it is the record of a tombstone.
    fn as_stored(event: &RecordedEvent) -> Self {
        Self {
            id: event.id,
            stream: to_wire(event.stream.as_str()).to_owned(),
            revision: event.version.get().saturating_sub(1),
            position: event.position.get(),
            event_type: to_wire(event.event_type.as_str()).to_owned(),
            created: event.recorded_at.timestamp_micros().saturating_mul(10),
            is_json: event.data.kind() == ContentKind::Json,
            metadata: event.metadata.bytes().clone(),
            data: event.data.bytes().clone(),
        }
    }

    /// The data of a link to this event.
    pub(crate) fn link_target(&self) -> String {
        format!("{}@{}", self.revision, self.stream)
    }
}

/// What a client gets for one event that was read: the event; or a link and the event that it leads
/// to; or only a link, if its event does not exist.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedEvent {
    pub(crate) event: Option<WireEvent>,
    pub(crate) link: Option<WireEvent>,
}

impl ResolvedEvent {
    pub(crate) fn unlinked(event: WireEvent) -> Self {
        Self { event: Some(event), link: None }
    }

    /// The bytes of its payloads.
    pub(crate) fn size(&self) -> usize {
        let size = |event: &WireEvent| event.data.len() + event.metadata.len();
        self.event.as_ref().map_or(0, size) + self.link.as_ref().map_or(0, size)
    }

    /// The event in the stream that was read: the link, if there is a link.
    pub(crate) fn original(&self) -> Option<&WireEvent> {
        self.link.as_ref().or(self.event.as_ref())
    }
}

/// The format in which a client wants ids: two integers, or text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum IdFormat {
    #[default]
    Structured,
    Text,
}

impl IdFormat {
    pub(crate) fn requested(option: Option<UuidOption>) -> Self {
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

pub(crate) fn uuid_from_wire(id: Option<WireUuid>) -> Result<Uuid, Status> {
    match id.and_then(|id| id.value) {
        Some(wire_uuid::Value::Structured(id)) => Ok(Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        )),
        Some(wire_uuid::Value::String(id)) => Uuid::try_parse(&id).map_err(|error| {
            Status::invalid_argument(format!("the id {id:?} is not a UUID: {error}"))
        }),
        None => Err(Status::invalid_argument("an id is missing")),
    }
}

/// The event that a client wants to append. Data that the client calls JSON is not parsed, as in
/// EventStoreDB: the store keeps the bytes and the content kind.
pub(crate) fn new_event(message: ProposedMessage) -> Result<NewEvent, Status> {
    let ProposedMessage { id, metadata: headers, custom_metadata, data } = message;
    let header = |name| headers.get(name).ok_or_else(|| metadata_missing(name));
    let event_type = type_from_wire(header("type")?)?;
    let is_json = header("content-type")? == JSON;
    let kind = if is_json { ContentKind::Json } else { ContentKind::Binary };
    let data = Payload::from_stored(kind, data);
    Ok(NewEvent::from_stored(
        uuid_from_wire(id)?,
        event_type,
        data,
        Payload::inferred(custom_metadata),
    ))
}

/// The headers of an event that was read.
pub(crate) fn headers(event_type: &str, is_json: bool, created: i64) -> Vec<Bytes> {
    let content_type = if is_json { JSON } else { BINARY };
    let created = created.to_string();
    [("type", event_type), ("content-type", content_type), ("created", &created)]
        .map(|(key, value)| header::encode(key, value))
        .into()
}

/// The present time.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// A position on the wire has two parts. The gateway sets both to the store's position.
pub(crate) fn wire_position(position: u64) -> AllStreamPosition {
    AllStreamPosition { commit_position: position, prepare_position: position }
}

/// The message for an event that was read. `retries` is set only for consumers of a group: how
/// often the event was given to a consumer before.
pub(crate) fn read_event(
    resolved: ResolvedEvent,
    ids: IdFormat,
    retries: Option<i32>,
) -> ReadEvent {
    let position = resolved.original().map(|event| event.position);
    let recorded = |event: WireEvent| {
        Box::new(read_event::RecordedEvent {
            id: Some(ids.write(event.id)),
            stream_identifier: Some(StreamIdentifier { stream_name: event.stream.into() }),
            stream_revision: event.revision,
            prepare_position: event.position,
            commit_position: event.position,
            metadata: headers(&event.event_type, event.is_json, event.created),
            custom_metadata: event.metadata,
            data: event.data,
        })
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
