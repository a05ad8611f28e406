//! What the calls of the protocol carry: events, ids, answers.

use annals_core::{Position, Version};
use annals_eventstoredb_proto::{
    header,
    shared::{ReadEvent, Uuid as WireUuid, uuid as wire_uuid},
    streams::ProposedMessage,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::error::Failure;

/// Versions count from 1, the server's revisions from 0.
pub(crate) fn version_of(revision: u64) -> Version {
    Version::new(revision.saturating_add(1))
}

/// The greatest number that the server takes as a revision or a position, or as the number of events
/// of a read.
pub(crate) const GREATEST: u64 = i64::MAX.unsigned_abs();

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// An event to write, in the protocol's form.
#[derive(Clone, Debug)]
pub(crate) struct EventData {
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) is_json: bool,
    pub(crate) data: Bytes,
    pub(crate) metadata: Bytes,
}

impl EventData {
    pub(crate) fn binary(event_type: &str, data: Bytes) -> Self {
        Self {
            id: Uuid::now_v7(),
            event_type: event_type.to_owned(),
            is_json: false,
            data,
            metadata: Bytes::new(),
        }
    }

    pub(crate) fn proposed(&self) -> ProposedMessage {
        let content_type = if self.is_json { JSON } else { BINARY };
        let headers = [("type", self.event_type.as_str()), ("content-type", content_type)];
        ProposedMessage {
            id: Some(structured(self.id)),
            metadata: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            custom_metadata: self.metadata.clone(),
            data: self.data.clone(),
        }
    }
}

/// An event that was read.
#[derive(Clone, Debug)]
pub(crate) struct ServerEvent {
    pub(crate) id: Uuid,
    /// The stream's name on the server, which need not be UTF-8.
    pub(crate) stream: Bytes,
    pub(crate) revision: u64,
    /// The commit position.
    pub(crate) position: Position,
    /// The type, which should be UTF-8.
    pub(crate) event_type: Bytes,
    pub(crate) is_json: bool,
    /// When it was recorded, in units of 100 ns since 1970.
    pub(crate) created: i64,
    pub(crate) data: Bytes,
    pub(crate) metadata: Bytes,
}

impl ServerEvent {
    /// A link is returned as the event that it is, not as the one that it points to.
    pub(crate) fn of(event: ReadEvent) -> Result<Option<Self>, Failure> {
        let Some(event) = event.link.or(event.event) else { return Ok(None) };
        let event = *event;
        let id = uuid(event.id).ok_or(Failure::Malformed("an event has no id"))?;
        let (mut event_type, mut is_json, mut created) = (None, false, None);
        for entry in &event.metadata {
            let Some((key, value)) = header::decode(entry) else {
                return Err(Failure::Malformed("a header of an event cannot be read"));
            };
            match key {
                b"type" => event_type = Some(entry.slice_ref(value)),
                b"content-type" => is_json = value == JSON.as_bytes(),
                b"created" => {
                    created = std::str::from_utf8(value).ok().and_then(|ticks| ticks.parse().ok());
                }
                _ => {}
            }
        }
        let event_type = event_type.ok_or(Failure::Malformed("an event has no type"))?;
        let stream = event.stream_identifier.map(|name| name.stream_name).unwrap_or_default();
        Ok(Some(Self {
            id,
            stream,
            revision: event.stream_revision,
            // Servers before 22.10 leave the position out when one stream is read.
            position: match event.commit_position {
                u64::MAX => Position::START,
                commit => Position::new(commit),
            },
            event_type,
            is_json,
            created: created.unwrap_or_default(),
            data: event.data,
            metadata: event.custom_metadata,
        }))
    }

    /// True for the event by which the server says that the stream was tombstoned.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.revision == GREATEST && self.event_type == "$streamDeleted"
    }
}

pub(crate) fn structured(id: Uuid) -> WireUuid {
    let (most, least) = id.as_u64_pair();
    WireUuid {
        value: Some(wire_uuid::Value::Structured(wire_uuid::Structured {
            most_significant_bits: most.cast_signed(),
            least_significant_bits: least.cast_signed(),
        })),
    }
}

pub(crate) fn uuid(id: Option<WireUuid>) -> Option<Uuid> {
    match id?.value? {
        wire_uuid::Value::Structured(id) => Some(Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        )),
        wire_uuid::Value::String(id) => Uuid::try_parse(&id).ok(),
    }
}

/// The answer to an append that the server took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendAnswer {
    Written {
        /// The version of the append's last event.
        version: Version,
        /// Its position. `None` if the server recognised the events by their ids, and they are hidden.
        position: Option<Position>,
    },
    /// The expectation does not hold. The stream is at this version.
    WrongVersion(Version),
}

/// The two ways to remove a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemovalKind {
    Deletion,
    Tombstone,
}
