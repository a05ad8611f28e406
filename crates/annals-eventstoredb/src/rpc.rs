//! The calls of the protocol that the store uses.

use std::sync::Arc;

use annals_core::{ExpectedVersion, Position, Version};
use annals_eventstoredb_proto::{
    server_features::server_features_client::ServerFeaturesClient,
    shared::{
        AllOptions, AllStreamPosition, Empty, StreamIdentifier, StreamOptions, UuidOption,
        all_options::AllOption, stream_options::RevisionOption, uuid_option,
    },
    streams::{
        AppendReq, ReadReq, ReadResp, RemoveReq, WriteOptions,
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
        write_options,
    },
};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Streaming, metadata::AsciiMetadataValue};

use crate::{
    batch::{may_share, written},
    connection::{Connection, Node, Target},
    error::{Failure, Refusal},
    filter::ServerFilter,
    message::{AppendAnswer, EventData, GREATEST, RemovalKind, ServerEvent, version_of},
};

/// The size of the largest message that the server sends: one event.
const MAX_MESSAGE_BYTES: usize = 17 * 1024 * 1024;

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
    WriteOptions {
        stream_identifier: Some(identifier(name)),
        expected: Some(expected),
        deadline_option: None,
    }
}

impl Connection {
    /// A request that only the leader may answer.
    pub(crate) fn for_leader<T>(&self, message: T) -> Request<T> {
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
        events: &[EventData],
    ) -> Result<AppendAnswer, Failure> {
        let node = self.node(Target::Leader).await?;
        if may_share(expected, events) && node.takes_batches() {
            let sent = node.batch.append(self, &node, write_options(name, expected), events);
            let sent = self.within_deadline(sent).await;
            match sent.inspect_err(|failure| self.note(&node, failure)) {
                // The call was refused for good, so the append was not written.
                Err(failure) if failure.refusal() == Some(&Refusal::Unsupported) => {}
                sent => return sent,
            }
        }
        self.append_alone(&node, write_options(name, expected), events).await
    }

    /// Sends one append by a call of its own.
    async fn append_alone(
        &self,
        node: &Arc<Node>,
        options: WriteOptions,
        events: &[EventData],
    ) -> Result<AppendAnswer, Failure> {
        let options = AppendContent::Options(options);
        let events = events.iter().map(|e| AppendContent::ProposedMessage(e.proposed()));
        let messages: Vec<_> = std::iter::once(options)
            .chain(events)
            .map(|content| AppendReq { content: Some(content) })
            .collect();
        let mut client = StreamsClient::new(node.short());
        let mut request = self.for_leader(futures::stream::iter(messages));
        request.set_timeout(self.deadline());
        let sent = self.within_deadline(async { Ok(client.append(request).await?) }).await;
        let answer = sent.inspect_err(|failure| self.note(node, failure))?.into_inner();
        match answer.result {
            Some(append_resp::Result::Success(success)) => Ok(written(success)),
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

#[cfg(test)]
mod tests {
    use annals_core::Filter;
    use annals_eventstoredb_proto::shared::filter_options::Window;

    use super::*;
    use crate::names::Names;

    /// Some of these the server answers as if it had failed, some not at all.
    #[test]
    fn no_request_asks_for_what_the_server_cannot_take() {
        let filter = ServerFilter::new(&Filter::default(), &Names::default());
        let sources = [
            ReadSource::All(None),
            ReadSource::All(filter),
            ReadSource::Stream("order-1".to_owned()),
        ];
        for source in sources {
            for (count, window) in [(Some(0), 0), (Some(u64::MAX), 1), (None, 0)] {
                let (source, from) = (source.clone(), ReadFrom::Start);
                let request = ReadRequest { source, from, backwards: false, count, window };
                let options = request.message().options.unwrap();
                assert!(options.uuid_option.unwrap().content.is_some());
                match options.count_option.unwrap() {
                    CountOption::Count(count) => assert!((1..=GREATEST).contains(&count)),
                    CountOption::Subscription(_) => assert_eq!(request.count, None),
                }
                if let FilterOption::Filter(filter) = options.filter_option.unwrap() {
                    assert!(matches!(filter.window, Some(Window::Max(1..))));
                    assert!(filter.checkpoint_interval_multiplier > 0);
                }
            }
        }
    }
}
