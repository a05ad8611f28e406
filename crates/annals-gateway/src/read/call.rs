//! The call `Read` of the service `Streams`: parses a request, and turns the results into messages.

use std::{pin::Pin, sync::Arc};

use annals_core::{Store, StreamId};
use async_stream::try_stream;
use futures::{Stream, StreamExt};
use tonic::Status;
use uuid::Uuid;

use super::request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
use crate::{
    filter::EventFilter,
    names::{described_stream, identifier},
    open_calls::OpenCall,
    proto::{
        shared::SubscriptionConfirmation,
        streams::{
            ReadReq, ReadResp,
            read_req::options::{CountOption, FilterOption, StreamOption},
            read_resp::{CaughtUp, Checkpoint, Content, StreamNotFound},
        },
    },
    tombstones::Tombstones,
    wire::{IdFormat, now, read_event, wire_position},
    wire_stream::WireStream,
};

type ReadAnswers = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

/// A parsed call.
pub(crate) struct ReadCall {
    request: ReadRequest,
    /// The stream that is described, if a metadata stream is to be read.
    described: Option<StreamId>,
    backwards: bool,
    /// The most events to read. `None` for a subscription.
    count: Option<u64>,
    ids: IdFormat,
}

impl ReadCall {
    pub(crate) fn parse(
        store: Arc<dyn Store>,
        tombstones: Tombstones,
        request: ReadReq,
    ) -> Result<Self, Status> {
        let options = request.options.unwrap_or_default();
        let missing = |what| Status::invalid_argument(format!("{what} is missing"));
        let mut described = None;
        let (stream, from) = match options.stream_option.ok_or_else(|| missing("the stream"))? {
            StreamOption::Stream(stream) => {
                let name = WireStream::parse(stream.stream_identifier.as_ref())?;
                described = described_stream(stream.stream_identifier.as_ref());
                let from = ReadFrom::in_stream(stream.revision_option);
                (name, from.ok_or_else(|| missing("the revision"))?)
            }
            StreamOption::All(all) => {
                let from = ReadFrom::in_all(all.all_option);
                (WireStream::All, from.ok_or_else(|| missing("the position"))?)
            }
        };
        let filter = match options.filter_option {
            Some(FilterOption::Filter(filter)) if stream == WireStream::All => {
                Some(Arc::new(EventFilter::new(filter)?))
            }
            Some(FilterOption::Filter(_)) => {
                return Err(Status::invalid_argument("only reads of $all can have a filter"));
            }
            Some(FilterOption::NoFilter(_)) => None,
            None => return Err(missing("the choice between a filter and none")),
        };
        let count = match options.count_option.ok_or_else(|| missing("the count"))? {
            CountOption::Count(count) => Some(count),
            CountOption::Subscription(_) => None,
        };
        let backwards = match options.read_direction {
            0 => false,
            1 if count.is_some() => true,
            1 => return Err(Status::invalid_argument("a subscription cannot go backwards")),
            other => {
                return Err(Status::invalid_argument(format!("there is no direction {other}")));
            }
        };
        let resolve_links = options.resolve_links;
        let with_bounds = options.control_option.is_some_and(|control| control.compatibility >= 1);
        Ok(Self {
            request: ReadRequest {
                store,
                tombstones,
                stream,
                from,
                filter,
                resolve_links,
                with_bounds,
            },
            described,
            backwards,
            count,
            ids: IdFormat::requested(options.uuid_option),
        })
    }

    pub(crate) async fn run(self, open_call: OpenCall) -> Result<ReadAnswers, Status> {
        let Self { request, described, backwards, count, ids } = self;
        let stream = request.stream.clone();
        let Some(count) = count else {
            let items = request.subscribe().await?;
            return Ok(Box::pin(open_call.hold_until_stopped(subscription(items, stream, ids))));
        };
        let answers = read(request, described, backwards, count);
        let answers = answers.map(move |item| Ok(answer(item?, &stream, ids)));
        Ok(Box::pin(open_call.hold(answers)))
    }
}

fn read(
    request: ReadRequest,
    described: Option<StreamId>,
    backwards: bool,
    count: u64,
) -> ReadItems {
    match request.stream.clone() {
        WireStream::Stream(stream) => match described {
            Some(described) => request.read_metadata(stream, described, backwards, count),
            None => request.read_stream(stream, backwards, count),
        },
        WireStream::All | WireStream::Linked(_) => request.read_all(backwards, count),
    }
}

fn subscription(
    mut items: ReadItems,
    stream: WireStream,
    ids: IdFormat,
) -> impl Stream<Item = Result<ReadResp, Status>> + Send {
    try_stream! {
        let subscription_id = Uuid::now_v7().to_string();
        let confirmation = Content::Confirmation(SubscriptionConfirmation { subscription_id });
        yield ReadResp { content: Some(confirmation) };
        while let Some(item) = items.next().await {
            yield answer(item?, &stream, ids);
        }
    }
}

fn answer(item: ReadItem, stream: &WireStream, ids: IdFormat) -> ReadResp {
    let content = match item {
        ReadItem::Event(event) => Content::Event(read_event(event, ids, None)),
        ReadItem::NotFound => {
            let stream_identifier = Some(identifier(&stream.name()));
            Content::StreamNotFound(StreamNotFound { stream_identifier })
        }
        ReadItem::FirstRevision(revision) => Content::FirstStreamPosition(revision),
        ReadItem::LastRevision(revision) => Content::LastStreamPosition(revision),
        ReadItem::Checkpoint(position) => Content::Checkpoint(Checkpoint {
            commit_position: position,
            prepare_position: position,
            timestamp: Some(now()),
        }),
        ReadItem::CaughtUp(last) => Content::CaughtUp(caught_up(stream, last)),
    };
    ReadResp { content: Some(content) }
}

/// `last` is the last revision or position that the subscription saw.
fn caught_up(stream: &WireStream, last: Option<u64>) -> CaughtUp {
    let (mut stream_revision, mut position) = (None, None);
    match stream {
        WireStream::All => position = last.map(wire_position),
        _ => stream_revision = last.and_then(|revision| i64::try_from(revision).ok()),
    }
    CaughtUp { timestamp: Some(now()), stream_revision, position }
}
