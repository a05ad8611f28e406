//! The calls of the protocol that the store uses.

use std::sync::Arc;

use annals_core::{ExpectedVersion, Position, Version};
use annals_eventstoredb_proto::{
    server_features::server_features_client::ServerFeaturesClient,
    shared::{
        AllOptions, AllStreamPosition, Empty, ReadEvent, StreamIdentifier, StreamOptions,
        Uuid as WireUuid, UuidOption, all_options::AllOption, read_event::RecordedEvent,
        stream_options::RevisionOption, uuid as wire_uuid, uuid_option,
    },
    streams::{
        AppendReq, ProposedMessage, ReadReq, ReadResp, RemoveReq, WriteOptions,
        append_req::Content as AppendContent,
        append_resp::{self, wrong_expected_version::CurrentRevisionOption},
        read_req::{
            Options,
            options::{
                CountOption, FilterOption, ReadDirection, StreamOption, SubscriptionOptions,
            },
        },
        read_resp::Content,
        streams_client::StreamsClient,
        success, write_options,
    },
};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Streaming, metadata::AsciiMetadataValue};
use uuid::Uuid;

use crate::{
    codec::version_of,
    connection::{Connection, Node, Target},
    error::Failure,
    filter::ServerFilter,
};

/// The size of the largest message that the server sends: one event.
const MAX_MESSAGE_BYTES: usize = 17 * 1024 * 1024;

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

    fn proposed(self) -> ProposedMessage {
        let content_type = if self.is_json { JSON } else { BINARY };
        let headers = [("type", self.event_type.as_str()), ("content-type", content_type)];
        ProposedMessage {
            id: Some(structured(self.id)),
            metadata: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            custom_metadata: self.metadata,
            data: self.data,
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
    pub(crate) event_type: String,
    pub(crate) is_json: bool,
    /// When it was recorded, in units of 100 ns since 1970.
    pub(crate) created: i64,
    pub(crate) data: Bytes,
    pub(crate) metadata: Bytes,
}

impl ServerEvent {
    /// A link is returned as the event that it is, not as the one that it points to.
    fn of(event: ReadEvent) -> Result<Option<Self>, Failure> {
        let Some(event) = event.link.or(event.event) else { return Ok(None) };
        let RecordedEvent { mut metadata, .. } = event;
        let id = uuid(event.id).ok_or(Failure::Malformed("an event has no id"))?;
        let event_type = metadata.remove("type");
        let event_type = event_type.ok_or(Failure::Malformed("an event has no type"))?;
        let created = metadata.get("created").and_then(|ticks| ticks.parse().ok());
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
            is_json: metadata.get("content-type").is_some_and(|content| content == JSON),
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

fn structured(id: Uuid) -> WireUuid {
    let (most, least) = id.as_u64_pair();
    WireUuid {
        value: Some(wire_uuid::Value::Structured(wire_uuid::Structured {
            most_significant_bits: most.cast_signed(),
            least_significant_bits: least.cast_signed(),
        })),
    }
}

fn uuid(id: Option<WireUuid>) -> Option<Uuid> {
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

/// What is read.
#[derive(Clone, Debug)]
pub(crate) enum ReadSource {
    /// `$all`, with the part of a filter that the server applies.
    All(Option<ServerFilter>),
    /// A stream, by its name on the server.
    Stream(String),
}

/// Where a read or a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    Start,
    End,
    /// A revision of a stream, or a position in `$all`. A read of a stream, and one of `$all` forwards,
    /// give the event there, too.
    At(u64),
}

/// A message of a read or a subscription.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub(crate) enum ReadMessage {
    Event(ServerEvent),
    /// A subscription has looked at everything up to this position.
    Checkpoint(Position),
    /// A subscription has given all that was there.
    CaughtUp,
    /// The stream does not exist, or was deleted.
    NotFound,
    /// A message that says nothing to this store.
    Other,
}

/// The messages of a read or a subscription. Dropping it ends the call.
pub(crate) struct Messages {
    answers: Streaming<ReadResp>,
    node: Arc<Node>,
    /// The call's room on its connection.
    _room: Option<OwnedSemaphorePermit>,
}

impl Messages {
    pub(crate) async fn next(&mut self) -> Result<Option<ReadMessage>, Failure> {
        let Some(answer) = self.answers.message().await? else { return Ok(None) };
        Ok(Some(match answer.content {
            Some(Content::Event(event)) => {
                ServerEvent::of(event)?.map_or(ReadMessage::Other, ReadMessage::Event)
            }
            // While a subscription catches up, only the commit position is set.
            Some(Content::Checkpoint(at)) => {
                ReadMessage::Checkpoint(Position::new(at.commit_position))
            }
            Some(Content::CaughtUp(_)) => ReadMessage::CaughtUp,
            Some(Content::StreamNotFound(_)) => ReadMessage::NotFound,
            _ => ReadMessage::Other,
        }))
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// A request of the call `Read`.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) source: ReadSource,
    pub(crate) from: ReadFrom,
    pub(crate) backwards: bool,
    /// The most events. `None` for a subscription.
    pub(crate) count: Option<u64>,
    /// After so many events that a filter left out, a subscription says how far it has looked.
    pub(crate) window: u32,
}

impl ReadRequest {
    fn message(&self) -> ReadReq {
        let empty = Empty {};
        let (stream, filter) = match &self.source {
            ReadSource::Stream(name) => {
                let place = match self.from {
                    ReadFrom::Start => RevisionOption::Start(empty),
                    ReadFrom::End => RevisionOption::End(empty),
                    ReadFrom::At(revision) => RevisionOption::Revision(revision),
                };
                let stream_identifier = Some(identifier(name));
                let options = StreamOptions { stream_identifier, revision_option: Some(place) };
                (StreamOption::Stream(options), None)
            }
            ReadSource::All(filter) => {
                let place = match self.from {
                    ReadFrom::Start => AllOption::Start(empty),
                    ReadFrom::End => AllOption::End(empty),
                    ReadFrom::At(position) => AllOption::Position(AllStreamPosition {
                        commit_position: position,
                        prepare_position: position,
                    }),
                };
                let options = AllOptions { all_option: Some(place), filter_option: None };
                (StreamOption::All(options), filter.as_ref())
            }
        };
        let direction =
            if self.backwards { ReadDirection::Backwards } else { ReadDirection::Forwards };
        let options = Options {
            stream_option: Some(stream),
            read_direction: direction.into(),
            resolve_links: false,
            count_option: Some(match self.count {
                Some(count) => CountOption::Count(count.clamp(1, GREATEST)),
                None => CountOption::Subscription(SubscriptionOptions {}),
            }),
            filter_option: Some(match filter {
                Some(filter) => FilterOption::Filter(filter.options(self.window)),
                None => FilterOption::NoFilter(empty),
            }),
            uuid_option: Some(UuidOption {
                content: Some(uuid_option::Content::Structured(empty)),
            }),
            control_option: None,
        };
        ReadReq { options: Some(options) }
    }
}

fn identifier(name: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: name.to_owned().into() }
}

/// What an append or a removal expects of a stream, in the server's terms. Versions count from 1, the
/// server's revisions from 0.
fn write_options(name: &str, expected: ExpectedVersion) -> WriteOptions {
    let expected = match expected {
        ExpectedVersion::Any => write_options::Expected::Any(Empty {}),
        ExpectedVersion::StreamExists => write_options::Expected::StreamExists(Empty {}),
        ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => {
            write_options::Expected::NoStream(Empty {})
        }
        // Versions are `u64`, the server's revisions `i64`. No stream is as long as either.
        ExpectedVersion::Exact(version) => {
            write_options::Expected::Revision(version.minus(1).get().min(GREATEST - 1))
        }
    };
    WriteOptions { stream_identifier: Some(identifier(name)), expected: Some(expected) }
}

impl Connection {
    /// A request that only the leader may answer.
    fn for_leader<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        let required = AsciiMetadataValue::from_static("true");
        request.metadata_mut().insert("requires-leader", required);
        request
    }

    /// Sends one append to a stream, named as on the server, without retries.
    pub(crate) async fn append(
        &self,
        name: &str,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = EventData>,
    ) -> Result<AppendAnswer, Failure> {
        let options = AppendContent::Options(write_options(name, expected));
        let events = events.into_iter().map(|e| AppendContent::ProposedMessage(e.proposed()));
        let messages: Vec<_> = std::iter::once(options)
            .chain(events)
            .map(|content| AppendReq { content: Some(content) })
            .collect();
        let node = self.node(Target::Leader).await?;
        let mut client = StreamsClient::new(node.short());
        let mut request = self.for_leader(futures::stream::iter(messages));
        request.set_timeout(self.deadline());
        let sent = self.within_deadline(async { Ok(client.append(request).await?) }).await;
        let answer = sent.inspect_err(|failure| self.note(&node, failure))?.into_inner();
        match answer.result {
            Some(append_resp::Result::Success(success)) => {
                let version = match success.current_revision_option {
                    Some(success::CurrentRevisionOption::CurrentRevision(at)) => version_of(at),
                    _ => Version::NONE,
                };
                let position = match success.position_option {
                    Some(success::PositionOption::Position(at)) => {
                        Some(Position::new(at.commit_position))
                    }
                    _ => None,
                };
                Ok(AppendAnswer::Written { version, position })
            }
            Some(append_resp::Result::WrongExpectedVersion(wrong)) => {
                let version = match wrong.current_revision_option {
                    Some(CurrentRevisionOption::CurrentRevision(at)) => version_of(at),
                    _ => Version::NONE,
                };
                Ok(AppendAnswer::WrongVersion(version))
            }
            None => Err(Failure::Malformed("the answer to an append is empty")),
        }
    }

    /// Deletes or tombstones a stream, named as on the server, without retries.
    pub(crate) async fn remove(
        &self,
        kind: RemovalKind,
        name: &str,
        expected: ExpectedVersion,
    ) -> Result<(), Failure> {
        let node = self.node(Target::Leader).await?;
        let mut client = StreamsClient::new(node.short());
        let options = Some(write_options(name, expected));
        let mut request = self.for_leader(RemoveReq { options });
        request.set_timeout(self.deadline());
        let sent = self.within_deadline(async {
            Ok(match kind {
                RemovalKind::Deletion => client.delete(request).await?,
                RemovalKind::Tombstone => client.tombstone(request).await?,
            })
        });
        sent.await.inspect_err(|failure| self.note(&node, failure)).map(drop)
    }

    /// Begins a read or a subscription, without retries.
    pub(crate) async fn read(
        &self,
        target: Target,
        request: &ReadRequest,
    ) -> Result<Messages, Failure> {
        let node = self.node(target).await?;
        self.read_from(&node, target, request).await
    }

    /// Begins a read or a subscription at this node.
    pub(crate) async fn read_from(
        &self,
        node: &Arc<Node>,
        target: Target,
        request: &ReadRequest,
    ) -> Result<Messages, Failure> {
        // A read of some events ends soon.
        const FEW: u64 = 64;
        let is_long = request.count.is_none_or(|count| count > FEW);
        let (channel, room) = if is_long {
            let (channel, room) = node.long(self)?;
            (channel, Some(room))
        } else {
            (node.short(), None)
        };
        let mut client = StreamsClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let message = request.message();
        let for_leader = target == Target::Leader || self.reads_from_leader();
        let sent = if for_leader { self.for_leader(message) } else { self.request(message) };
        // A filtered read of `$all` sends nothing until an event matches, however long that takes.
        // The connection's own probes tell whether the server is there.
        let is_filtered = matches!(&request.source, ReadSource::All(Some(_)));
        let answer = async { Ok(client.read(sent).await?) };
        let answer = if is_filtered && request.count.is_some() {
            answer.await
        } else {
            self.within_deadline(answer).await
        };
        let answers = answer.inspect_err(|failure| self.note(node, failure))?.into_inner();
        Ok(Messages { answers, node: node.clone(), _room: room })
    }

    /// The server's version, if the server tells it.
    pub(crate) async fn version(&self) -> Result<Option<String>, Failure> {
        let node = self.node(Target::Leader).await?;
        let mut client = ServerFeaturesClient::new(node.short());
        let request = self.request(Empty {});
        let asked =
            self.within_deadline(async { Ok(client.get_supported_methods(request).await?) });
        let methods = asked.await.inspect_err(|failure| self.note(&node, failure))?.into_inner();
        Ok(Some(methods.event_store_server_version).filter(|version| !version.is_empty()))
    }
}
