//! The part of the protocol that the doorbell needs: the request for a subscription. The field
//! numbers are those of the protocol's `streams.proto` and `shared.proto`.

use prost::{Message, Oneof};
use tonic::codegen::http::uri::PathAndQuery;

use crate::filter::{FilterPattern, FilterSubject, ServerFilter, WINDOW};

/// The path of the call that serves reads and subscriptions.
pub(crate) fn path() -> PathAndQuery {
    PathAndQuery::from_static("/event_store.client.streams.Streams/Read")
}

/// Any message that the server sends to a subscriber. Its fields are skipped.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct AnyMessage {}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadReq {
    #[prost(message, optional, tag = "1")]
    options: Option<Options>,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(oneof = "Source", tags = "1, 2")]
    source: Option<Source>,
    #[prost(oneof = "Count", tags = "6")]
    count: Option<Count>,
    #[prost(oneof = "Filtered", tags = "7, 8")]
    filter: Option<Filtered>,
    #[prost(message, optional, tag = "9")]
    uuid: Option<UuidOption>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Source {
    #[prost(message, tag = "1")]
    Stream(StreamOptions),
    #[prost(message, tag = "2")]
    All(AllOptions),
}

#[derive(Clone, PartialEq, Message)]
struct StreamOptions {
    #[prost(message, optional, tag = "1")]
    stream: Option<StreamIdentifier>,
    #[prost(oneof = "FromStream", tags = "4")]
    from: Option<FromStream>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamIdentifier {
    #[prost(bytes = "vec", tag = "3")]
    name: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
enum FromStream {
    #[prost(message, tag = "4")]
    End(Empty),
}

#[derive(Clone, PartialEq, Message)]
struct AllOptions {
    #[prost(oneof = "FromAll", tags = "3")]
    from: Option<FromAll>,
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
enum FromAll {
    #[prost(message, tag = "3")]
    End(Empty),
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
enum Count {
    #[prost(message, tag = "6")]
    Subscription(Empty),
}

#[derive(Clone, PartialEq, Oneof)]
enum Filtered {
    #[prost(message, tag = "7")]
    By(FilterOptions),
    #[prost(message, tag = "8")]
    No(Empty),
}

#[derive(Clone, PartialEq, Message)]
struct FilterOptions {
    #[prost(oneof = "Subject", tags = "1, 2")]
    filter: Option<Subject>,
    #[prost(oneof = "Window", tags = "3")]
    window: Option<Window>,
    #[prost(uint32, tag = "5")]
    checkpoint_interval_multiplier: u32,
}

#[derive(Clone, PartialEq, Oneof)]
enum Subject {
    #[prost(message, tag = "1")]
    Stream(Expression),
    #[prost(message, tag = "2")]
    EventType(Expression),
}

#[derive(Clone, PartialEq, Message)]
struct Expression {
    #[prost(string, tag = "1")]
    regex: String,
    #[prost(string, repeated, tag = "2")]
    prefix: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
enum Window {
    #[prost(uint32, tag = "3")]
    Max(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct UuidOption {
    #[prost(oneof = "UuidContent", tags = "1")]
    content: Option<UuidContent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
enum UuidContent {
    #[prost(message, tag = "1")]
    Structured(Empty),
}

impl ReadReq {
    /// Subscribes to one stream, from its end on.
    pub(crate) fn stream(name: &str) -> Self {
        let stream = Some(StreamIdentifier { name: name.as_bytes().to_vec() });
        let options = StreamOptions { stream, from: Some(FromStream::End(Empty {})) };
        Self::new(Source::Stream(options), Filtered::No(Empty {}))
    }

    /// Subscribes to all streams, from the end on.
    pub(crate) fn all(filter: Option<&ServerFilter>) -> Self {
        let filter = filter.map_or(Filtered::No(Empty {}), |f| Filtered::By(filtered(f)));
        Self::new(Source::All(AllOptions { from: Some(FromAll::End(Empty {})) }), filter)
    }

    fn new(source: Source, filter: Filtered) -> Self {
        let uuid = UuidOption { content: Some(UuidContent::Structured(Empty {})) };
        let options = Options {
            source: Some(source),
            count: Some(Count::Subscription(Empty {})),
            filter: Some(filter),
            uuid: Some(uuid),
        };
        Self { options: Some(options) }
    }
}

fn filtered(filter: &ServerFilter) -> FilterOptions {
    let expression = match &filter.pattern {
        FilterPattern::Prefix(prefix) => {
            Expression { regex: String::new(), prefix: vec![prefix.clone()] }
        }
        FilterPattern::Regex(regex) => Expression { regex: regex.clone(), prefix: Vec::new() },
    };
    let filter = match filter.subject {
        FilterSubject::StreamName => Subject::Stream(expression),
        FilterSubject::EventType => Subject::EventType(expression),
    };
    FilterOptions {
        filter: Some(filter),
        window: Some(Window::Max(WINDOW)),
        checkpoint_interval_multiplier: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_server_can_be_read() {
        // An event with an id, and a caught-up message.
        for message in [&[0x0a, 0x04, 0x0a, 0x02, 0x10, 0x01][..], &[0x42, 0x00], &[]] {
            assert_eq!(AnyMessage::decode(message), Ok(AnyMessage {}));
        }
    }

    #[test]
    fn a_request_has_the_field_numbers_of_the_protocol() {
        let bytes = ReadReq::stream("a").encode_to_vec();
        let expected = [
            0x0a, 0x11, // options
            0x0a, 0x07, 0x0a, 0x03, 0x1a, 0x01, b'a', 0x22, 0x00, // the stream, from its end
            0x32, 0x00, 0x42, 0x00, // a subscription, without a filter
            0x4a, 0x02, 0x0a, 0x00, // UUIDs as two numbers
        ];
        assert_eq!(bytes, expected);
    }
}
