//! What the gateway sends, message by message, where the Rust client does not show it.

use annals_core::{EventStoreExt, StreamId};
use annals_gateway::proto::{
    shared::{
        self, Empty, StreamIdentifier, StreamOptions, stream_options::RevisionOption as Place,
    },
    streams::{
        AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ProposedMessage, ReadReq, ReadResp,
        RemoveReq, RemoveResp, WriteOptions, append_req,
        append_resp::{
            Result as Answer,
            wrong_expected_version::{ExpectedRevisionOption, ExpectedRevisionOption2060},
        },
        batch_append_resp,
        read_req::{
            self,
            options::{CountOption, FilterOption, StreamOption},
        },
        read_resp::Content,
        write_options::Expected,
    },
};
use futures::TryStreamExt as _;
use tonic::{
    Request, Status, client::Grpc, codec::ProstCodec, codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use uuid::Uuid;

use crate::common::{Served, fill, soon};

/// A client that sends any message of the service `Streams`.
struct Wire(Grpc<Channel>);

macro_rules! path {
    ($call:literal) => {
        PathAndQuery::from_static(concat!("/event_store.client.streams.Streams/", $call))
    };
}

impl Wire {
    async fn connect(served: &Served) -> Self {
        let channel = Channel::from_shared(format!("http://{}", served.address)).unwrap();
        Self(Grpc::new(channel.connect().await.unwrap()))
    }

    async fn append(&mut self, options: WriteOptions) -> Result<Answer, Status> {
        self.append_event(options, event()).await
    }

    async fn append_event(
        &mut self,
        options: WriteOptions,
        event: ProposedMessage,
    ) -> Result<Answer, Status> {
        self.append_events(options, [event]).await
    }

    async fn append_events<const N: usize>(
        &mut self,
        options: WriteOptions,
        events: [ProposedMessage; N],
    ) -> Result<Answer, Status> {
        let mut messages = vec![append_req::Content::Options(options)];
        messages.extend(events.map(append_req::Content::ProposedMessage));
        let messages = messages.into_iter().map(|content| AppendReq { content: Some(content) });
        let request = Request::new(futures::stream::iter(messages));
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<AppendReq, AppendResp>::default();
        let answer = self.0.client_streaming(request, path!("Append"), codec).await?;
        Ok(answer.into_inner().result.unwrap())
    }

    async fn batch_append(&mut self, options: WriteOptions) -> BatchAppendResp {
        self.append_batch(options, vec![event()]).await
    }

    async fn append_batch(
        &mut self,
        options: WriteOptions,
        events: Vec<ProposedMessage>,
    ) -> BatchAppendResp {
        let message = BatchAppendReq {
            correlation_id: Some(id(Uuid::now_v7())),
            options: Some(options),
            proposed_messages: events,
            is_final: true,
        };
        let request = Request::new(futures::stream::iter([message]));
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<BatchAppendReq, BatchAppendResp>::default();
        let answers = self.0.streaming(request, path!("BatchAppend"), codec).await.unwrap();
        soon("an answer", answers.into_inner().message()).await.unwrap().unwrap()
    }

    /// Reads as the .NET client does, and returns a word for each message.
    async fn read(
        &mut self,
        stream: &str,
        from: Place,
        backwards: bool,
        count: u64,
    ) -> Vec<String> {
        let stream_identifier = Some(StreamIdentifier { stream_name: stream.to_owned().into() });
        let stream = StreamOptions { stream_identifier, revision_option: Some(from) };
        let request = Request::new(ReadReq {
            options: Some(read_req::Options {
                stream_option: Some(StreamOption::Stream(stream)),
                read_direction: backwards.into(),
                count_option: Some(CountOption::Count(count)),
                filter_option: Some(FilterOption::NoFilter(Empty {})),
                control_option: Some(read_req::options::ControlOption { compatibility: 1 }),
                ..read_req::Options::default()
            }),
        });
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<ReadReq, ReadResp>::default();
        let answers = self.0.server_streaming(request, path!("Read"), codec).await.unwrap();
        let word = |answer: ReadResp| match answer.content.unwrap() {
            Content::Event(event) => {
                format!("event {}", event.event.unwrap().stream_revision)
            }
            Content::FirstStreamPosition(first) => format!("first {first}"),
            Content::LastStreamPosition(last) => format!("last {last}"),
            Content::StreamNotFound(_) => "not found".to_owned(),
            other => panic!("{other:?}"),
        };
        answers.into_inner().map_ok(word).try_collect().await.unwrap()
    }

    async fn delete(&mut self, options: WriteOptions) -> Result<RemoveResp, Status> {
        self.remove(path!("Delete"), options).await
    }

    async fn tombstone(&mut self, options: WriteOptions) -> Result<RemoveResp, Status> {
        self.remove(path!("Tombstone"), options).await
    }

    async fn remove(
        &mut self,
        path: PathAndQuery,
        options: WriteOptions,
    ) -> Result<RemoveResp, Status> {
        let request = Request::new(RemoveReq { options: Some(options) });
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<RemoveReq, RemoveResp>::default();
        self.0.unary(request, path, codec).await.map(|answer| answer.into_inner())
    }
}

fn id(id: Uuid) -> shared::Uuid {
    shared::Uuid { value: Some(shared::uuid::Value::String(id.to_string())) }
}

fn event() -> ProposedMessage {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let metadata = [header("type", "Counted"), header("content-type", "application/json")];
    ProposedMessage {
        id: Some(id(Uuid::now_v7())),
        metadata: metadata.into(),
        data: "1".into(),
        ..ProposedMessage::default()
    }
}

fn expecting(stream: &str, expected: Expected) -> WriteOptions {
    let stream_identifier = Some(StreamIdentifier { stream_name: stream.to_owned().into() });
    WriteOptions { stream_identifier, expected: Some(expected), deadline_option: None }
}

/// The .NET client sends -1, which means that there is no stream, as the greatest unsigned number.
#[tokio::test]
async fn the_greatest_revision_means_no_stream() {
    let served = Served::new().await;
    let mut wire = Wire::connect(&served).await;
    let none = |stream: &str| expecting(stream, Expected::Revision(u64::MAX));
    assert!(matches!(wire.append(none("order-1")).await.unwrap(), Answer::Success(_)));
    let Answer::WrongExpectedVersion(wrong) = wire.append(none("order-1")).await.unwrap() else {
        panic!("a second first append succeeded")
    };
    let echo = ExpectedRevisionOption::ExpectedRevision(u64::MAX);
    assert_eq!(wrong.expected_revision_option, Some(echo));
    let echo = ExpectedRevisionOption2060::ExpectedRevision2060(u64::MAX);
    assert_eq!(wrong.expected_revision_option_20_6_0, Some(echo));

    let answer = wire.batch_append(none("order-2")).await;
    assert!(matches!(answer.result, Some(batch_append_resp::Result::Success(_))), "{answer:?}");
    assert_eq!(answer.expected, None);
    let answer = wire.batch_append(none("order-2")).await;
    let Some(batch_append_resp::Result::Error(error)) = answer.result else {
        panic!("a second first append succeeded")
    };
    assert!(error.details.unwrap().type_url.ends_with("WrongExpectedVersion"));
    assert_eq!(answer.expected, None);

    let refused = wire.delete(none("order-1")).await.unwrap_err();
    assert_eq!(refused.metadata().get("expected-version").unwrap(), "-1");
    let odd = |revision| expecting("order-1", Expected::Revision(revision));
    let refused = wire.append(odd(u64::MAX - 1)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let refused = wire.delete(odd(i64::MAX as u64)).await.unwrap_err();
    let expected = refused.metadata().get("expected-version").unwrap();
    assert_eq!(expected, "9223372036854775807");
    let written = served.store.load_stream(&"order-1".try_into().unwrap()).await.unwrap();
    assert_eq!(written.len(), 1);
    served.stop().await;
}

/// The .NET client completes a read only when it gets its first message.
#[tokio::test]
async fn every_read_of_a_stream_has_a_message() {
    const START: Place = Place::Start(Empty {});
    const END: Place = Place::End(Empty {});
    let served = Served::new().await;
    let mut wire = Wire::connect(&served).await;
    let ten: StreamId = "ten-1".try_into().unwrap();
    fill(&served.store, "ten-1", 0..10).await;
    fill(&served.store, "cut-1", 0..3).await;
    served.store.truncate(&"cut-1".try_into().unwrap(), 4.into()).await.unwrap();
    fill(&served.store, "old-1", 0..6).await;
    let metadata = Expected::Any(Empty {});
    for (stream, data) in [("$$old-1", r#"{"$maxCount":3}"#), ("$$ten-1", "{}")] {
        let options = expecting(stream, metadata);
        let event = ProposedMessage { data: data.into(), ..event() };
        wire.append_event(options, event).await.unwrap();
    }
    let last = served.store.load_stream(&ten).await.unwrap()[9].position.get();
    let category_last = format!("last {last}");
    for (stream, from, backwards, count, expected) in [
        ("ten-1", Place::Revision(10), false, 100, &["last 9"][..]),
        ("ten-1", Place::Revision(50), false, 100, &["first 10", "last 9"]),
        ("ten-1", END, false, 100, &["last 9"]),
        ("ten-1", Place::Revision(8), false, 100, &["event 8", "event 9", "last 9"]),
        ("ten-1", START, false, 2, &["event 0", "event 1", "last 9"]),
        ("ten-1", END, true, 1, &["event 9", "last 9"]),
        ("ten-1", Place::Revision(1), true, 100, &["event 1", "event 0", "last 9"]),
        ("cut-1", START, false, 100, &["first 3", "last 2"]),
        ("cut-1", END, true, 100, &["last 2"]),
        ("old-1", START, false, 100, &["event 3", "event 4", "event 5", "last 5"]),
        ("old-1", Place::Revision(1), false, 1, &["first 3", "event 3", "last 5"]),
        ("$$ten-1", Place::Revision(1), false, 100, &["last 0"]),
        ("$$ten-1", START, false, 100, &["event 0", "last 0"]),
        ("$ce-ten", Place::Revision(last + 1), false, 100, &[&*category_last]),
        ("$ce-none", END, true, 100, &["not found"]),
        ("none-1", START, false, 100, &["not found"]),
    ] {
        let found = wire.read(stream, from, backwards, count).await;
        assert_eq!(found, expected, "{stream} from {from:?}, backwards: {backwards}");
    }
    let found = wire.read("$ce-ten", START, false, 3).await;
    assert_eq!((found.len(), found.last()), (4, Some(&category_last)));
    served.stop().await;
}

/// SQLite itself recognises a retry under `Any` only if the retried events are the stream's last.
#[tokio::test]
async fn a_retry_to_any_revision_is_recognised_behind_other_appends() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("events.db").display());
    let served = Served::over(annals::connect(&url).await.unwrap()).await;
    let mut wire = Wire::connect(&served).await;
    let any = || expecting("order-1", Expected::Any(Empty {}));
    let exists = || expecting("order-1", Expected::StreamExists(Empty {}));
    let [first, second, third] = [event(), event(), event()];
    let appended = wire.append_event(any(), first.clone()).await.unwrap();
    let batched = wire.append_batch(exists(), vec![second.clone(), third.clone()]).await;
    wire.append(any()).await.unwrap();
    let length =
        async || served.store.load_stream(&"order-1".try_into().unwrap()).await.unwrap().len();
    assert_eq!(wire.append_event(any(), first.clone()).await.unwrap(), appended);
    let retried = wire.append_batch(exists(), vec![second.clone(), third.clone()]).await;
    assert_eq!(retried.result, batched.result);
    assert!(matches!(wire.append_event(any(), second.clone()).await.unwrap(), Answer::Success(_)));
    assert_eq!(length().await, 4);
    // All ids are known, whatever their order. If only the first one is, it is no retry.
    let retried = wire.append_batch(any(), vec![third, first.clone()]).await.result;
    assert!(matches!(retried, Some(batch_append_resp::Result::Success(_))), "{retried:?}");
    let Answer::WrongExpectedVersion(_) =
        wire.append_events(any(), [first, event()]).await.unwrap()
    else {
        panic!("an append of which a part was known succeeded")
    };
    assert_eq!(length().await, 4);
    served.stop().await;
}

/// To EventStoreDB, a stream with metadata exists, and a deleted one is closed to `StreamExists`.
#[tokio::test]
async fn stream_exists_means_what_it_means_to_event_store_db() {
    let served = Served::new().await;
    let mut wire = Wire::connect(&served).await;
    let exists = |stream: &str| expecting(stream, Expected::StreamExists(Empty {}));
    let any = |stream: &str| expecting(stream, Expected::Any(Empty {}));
    let is_deleted = |refused: Status| {
        assert_eq!(refused.metadata().get("exception").unwrap(), "stream-deleted", "{refused}");
    };
    fill(&served.store, "gone-1", 0..2).await;
    wire.delete(any("gone-1")).await.unwrap();
    is_deleted(wire.append(exists("gone-1")).await.unwrap_err());
    is_deleted(wire.delete(exists("gone-1")).await.unwrap_err());
    is_deleted(wire.tombstone(exists("gone-1")).await.unwrap_err());
    let Some(batch_append_resp::Result::Error(error)) =
        wire.batch_append(exists("gone-1")).await.result
    else {
        panic!("an append to a deleted stream succeeded")
    };
    assert!(error.details.unwrap().type_url.ends_with("StreamDeleted"));

    for stream in ["new-1", "new-2", "new-3", "new-4"] {
        wire.append(any(&format!("$${stream}"))).await.unwrap();
    }
    assert!(matches!(wire.append(exists("new-1")).await.unwrap(), Answer::Success(_)));
    assert!(matches!(wire.append(exists("new-1")).await.unwrap(), Answer::Success(_)));
    let batched = wire.batch_append(exists("new-2")).await.result;
    assert!(matches!(batched, Some(batch_append_resp::Result::Success(_))), "{batched:?}");
    assert!(wire.delete(exists("new-3")).await.unwrap().position_option.is_some());
    wire.tombstone(exists("new-4")).await.unwrap();
    is_deleted(wire.append(any("new-4")).await.unwrap_err());
    let missing = wire.append(exists("none-1")).await.unwrap();
    assert!(matches!(missing, Answer::WrongExpectedVersion(_)), "{missing:?}");
    served.stop().await;
}
