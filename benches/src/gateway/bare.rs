//! A bare client: the calls of the protocol on a channel of `tonic`, without Nagle's algorithm.

use std::{net::SocketAddr, sync::Arc};

use annals_core::{ContentKind, NewEvent};
use annals_eventstoredb_proto::{
    shared::{
        AllOptions, Empty, FilterOptions, StreamIdentifier, Uuid, UuidOption,
        all_options::AllOption,
        filter_options::{Expression, Filter, Window},
        uuid::{Structured, Value},
        uuid_option::Content as UuidContent,
    },
    streams::{
        AppendReq, ProposedMessage, ReadReq, ReadResp, WriteOptions,
        append_req::Content as AppendContent,
        append_resp,
        read_req::{
            Options,
            options::{
                CountOption, FilterOption, ReadDirection, StreamOption, SubscriptionOptions,
            },
        },
        read_resp,
        streams_client::StreamsClient,
        write_options::Expected,
    },
};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// A channel that sends each request at once.
pub(super) fn connect(address: SocketAddr) -> Channel {
    let endpoint: Endpoint = Endpoint::try_from(format!("http://{address}")).unwrap();
    endpoint.tcp_nodelay(true).connect_lazy()
}

/// Appends one event by a call of its own.
pub(super) async fn append(channel: Channel, stream: String, version: u64, event: NewEvent) {
    let expected = match version {
        0 => Expected::NoStream(Empty {}),
        version => Expected::Revision(version - 1),
    };
    let identifier = StreamIdentifier { stream_name: stream.into() };
    let options = WriteOptions {
        stream_identifier: Some(identifier),
        expected: Some(expected),
        deadline_option: None,
    };
    let messages =
        [AppendContent::Options(options), AppendContent::ProposedMessage(proposed(&event))];
    let messages = messages.map(|content| AppendReq { content: Some(content) });
    let sent = StreamsClient::new(channel).append(futures::stream::iter(messages)).await.unwrap();
    let result = sent.into_inner().result;
    assert!(matches!(result, Some(append_resp::Result::Success(_))), "{result:?}");
}

fn proposed(event: &NewEvent) -> ProposedMessage {
    assert_eq!(event.data().kind(), ContentKind::Json);
    let (most, least) = event.id().as_u64_pair();
    let id = Structured {
        most_significant_bits: most.cast_signed(),
        least_significant_bits: least.cast_signed(),
    };
    let headers = [("type", event.event_type().as_str()), ("content-type", "application/json")];
    ProposedMessage {
        id: Some(Uuid { value: Some(Value::Structured(id)) }),
        metadata: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        custom_metadata: event.metadata().bytes().clone(),
        data: event.data().bytes().clone(),
    }
}

/// Begins a read of all, or a subscription to it, from the start, with a filter by event type.
pub(super) async fn read_all(
    channel: Channel,
    event_type: Arc<str>,
    subscribe: bool,
) -> Streaming<ReadResp> {
    let expression = Expression { regex: format!("^(?:{event_type})$"), prefix: Vec::new() };
    let filter = FilterOptions {
        filter: Some(Filter::EventType(expression)),
        window: Some(Window::Max(1_000)),
        checkpoint_interval_multiplier: 1,
    };
    let start = AllOptions { all_option: Some(AllOption::Start(Empty {})), filter_option: None };
    let options = Options {
        stream_option: Some(StreamOption::All(start)),
        read_direction: ReadDirection::Forwards.into(),
        resolve_links: false,
        count_option: Some(match subscribe {
            true => CountOption::Subscription(SubscriptionOptions {}),
            false => CountOption::Count(i64::MAX.unsigned_abs()),
        }),
        filter_option: Some(FilterOption::Filter(filter)),
        uuid_option: Some(UuidOption { content: Some(UuidContent::Structured(Empty {})) }),
        control_option: None,
    };
    let request = ReadReq { options: Some(options) };
    StreamsClient::new(channel).read(request).await.unwrap().into_inner()
}

/// Reads until the first event, or until the end of the answer if `all`.
pub(super) async fn first_event(mut answers: Streaming<ReadResp>, all: bool) {
    let mut events = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        if matches!(answer.content, Some(read_resp::Content::Event(_))) {
            events += 1;
            if !all {
                break;
            }
        }
    }
    assert_eq!(events, 1);
}
