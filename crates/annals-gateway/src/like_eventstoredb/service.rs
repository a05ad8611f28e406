//! The service `Streams`: appends, deletions and tombstones. Reads are in `read`, batches in `batch`.

use std::pin::Pin;

use futures::Stream;
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{
    batch,
    cluster::{Fault, Node},
    http_500::http_500,
    log::{Expected, Proposed, Refused, Written},
    read,
};
use crate::{
    append,
    call_layer::RequestState,
    proto::{
        shared::{Uuid as WireUuid, uuid as wire_uuid},
        streams::{
            AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ProposedMessage, ReadReq,
            ReadResp, RemoveReq, RemoveResp, Success, WriteOptions, append_req::Content,
            append_resp::Result as Answer, remove_resp, streams_server::Streams, write_options,
        },
    },
    status::{insert_trailer, trailers},
    wire::wire_position,
};

/// The most data that an append may have in this version, together.
const MAX_APPEND_SIZE: usize = 1024 * 1024;

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the server says about requests that its code does not foresee.
pub(super) fn unforeseen() -> Status {
    Status::unknown("Exception was thrown by handler.")
}

/// The error for a stream that was deleted, or tombstoned.
pub(super) fn stream_deleted(stream: &str) -> Status {
    if !is_printable(stream) {
        return http_500();
    }
    let message = format!("Event stream '{stream}' is deleted.");
    Status::with_metadata(Code::FailedPrecondition, message, trailers("stream-deleted", stream))
}

fn is_printable(name: &str) -> bool {
    name.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

fn wrong_version(what: &str, stream: &str, expected: Expected, actual: i64) -> Status {
    if !is_printable(stream) {
        return http_500();
    }
    let expected = expected.number();
    let message = format!(
        "{what} failed due to WrongExpectedVersion. Stream: {stream}, Expected version: \
         {expected}, Actual version: {actual}"
    );
    let mut trailers = trailers("wrong-expected-version", stream);
    insert_trailer(&mut trailers, "expected-version", &expected.to_string());
    insert_trailer(&mut trailers, "actual-version", &actual.to_string());
    Status::with_metadata(Code::FailedPrecondition, message, trailers)
}

/// The stream of a request, and the revision that is expected.
pub(super) fn target(options: &WriteOptions) -> Result<(String, Expected), Status> {
    let name = options.stream_identifier.as_ref().ok_or_else(unforeseen)?;
    let name = String::from_utf8_lossy(&name.stream_name).into_owned();
    if name.is_empty() || name == "$all" {
        return Err(unforeseen());
    }
    let expected = match options.expected.as_ref().ok_or_else(unforeseen)? {
        write_options::Expected::Any(_) => Expected::Any,
        write_options::Expected::StreamExists(_) => Expected::StreamExists,
        write_options::Expected::NoStream(_) => Expected::Revision(-1),
        write_options::Expected::Revision(u64::MAX) => Expected::Revision(-1),
        write_options::Expected::Revision(revision) => {
            Expected::Revision(i64::try_from(*revision).map_err(|_| unforeseen())?)
        }
    };
    Ok((name, expected))
}

fn id(id: Option<WireUuid>) -> Result<Uuid, Status> {
    let id = match id.and_then(|id| id.value) {
        Some(wire_uuid::Value::Structured(id)) => Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        ),
        Some(wire_uuid::Value::String(id)) => Uuid::try_parse(&id).map_err(|_| unforeseen())?,
        None => Uuid::nil(),
    };
    if id.is_nil() { Err(unforeseen()) } else { Ok(id) }
}

pub(super) fn proposed(message: ProposedMessage) -> Result<Proposed, Status> {
    let ProposedMessage { id: wire_id, metadata: headers, custom_metadata, data } = message;
    let header = |name: &str| {
        headers.get(name).ok_or_else(|| {
            let text = format!("Required Metadata Property '{name}' is missing");
            let mut status = Status::invalid_argument(text);
            let trailers = status.metadata_mut();
            insert_trailer(trailers, "exception", "missing-required-metadata-property");
            status
        })
    };
    let (event_type, content_type) = (header("type")?.clone(), header("content-type")?);
    let is_json = content_type == "application/json";
    Ok(Proposed { id: id(wire_id)?, event_type, is_json, data, metadata: custom_metadata })
}

pub(super) fn check_size(events: &[Proposed]) -> Result<(), Status> {
    let bytes: usize = events.iter().map(|event| event.data.len()).sum();
    if bytes <= MAX_APPEND_SIZE {
        return Ok(());
    }
    let message = format!("Maximum Append Size of {MAX_APPEND_SIZE} Exceeded.");
    let mut status = Status::invalid_argument(message);
    let trailers = status.metadata_mut();
    insert_trailer(trailers, "exception", "maximum-append-size-exceeded");
    insert_trailer(trailers, "maximum-append-size", &MAX_APPEND_SIZE.to_string());
    Err(status)
}

/// Writes an append. An outer error is a status.
pub(super) fn write(
    node: &Node,
    stream: &str,
    expected: Expected,
    events: Vec<Proposed>,
) -> Result<Result<Written, Refused>, Status> {
    check_size(&events)?;
    let timeout = || Status::aborted("Operation timed out: Forward timeout");
    if node.fault() == Fault::TimeoutUnwritten {
        return Err(timeout());
    }
    let written = node.write(|log| log.append(stream, expected, events));
    if node.fault() == Fault::TimeoutWritten {
        return Err(timeout());
    }
    Ok(written)
}

pub(super) fn success(written: Written) -> Success {
    append::success(u64::try_from(written.revision).ok(), written.position)
}

#[tonic::async_trait]
impl Streams for Node {
    type ReadStream = Answers<ReadResp>;
    type BatchAppendStream = Answers<BatchAppendResp>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Answers<ReadResp>>, Status> {
        self.admit(&request, false)?;
        read::read(self, request.into_inner()).map(Response::new)
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        self.admit(&request, true)?;
        let state = request.extensions().get::<RequestState>().cloned().unwrap_or_default();
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.content);
        let Some(Content::Options(options)) = first else { return Err(unforeseen()) };
        let mut events = Vec::new();
        while let Some(message) = messages.message().await? {
            let Some(Content::ProposedMessage(event)) = message.content else {
                return Err(unforeseen());
            };
            events.push(proposed(event)?);
        }
        state.check_whole()?;
        let (stream, expected) = target(&options)?;
        let written = write(self, &stream, expected, events)?;
        self.answer_append().await;
        let result = match written {
            Ok(written) => Answer::Success(success(written)),
            Err(Refused::WrongVersion(actual)) => {
                Answer::WrongExpectedVersion(append::wrong_version(options.expected, actual))
            }
            Err(Refused::Deleted) => return Err(stream_deleted(&stream)),
        };
        Ok(Response::new(AppendResp { result: Some(result) }))
    }

    async fn delete(&self, request: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        self.admit(&request, true)?;
        let (stream, expected) = target(&request.into_inner().options.unwrap_or_default())?;
        removed(&stream, expected, self.write(|log| log.delete(&stream, expected)))
    }

    async fn tombstone(&self, request: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        self.admit(&request, true)?;
        let (stream, expected) = target(&request.into_inner().options.unwrap_or_default())?;
        removed(&stream, expected, self.write(|log| log.tombstone(&stream, expected)))
    }

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Answers<BatchAppendResp>>, Status> {
        self.admit(&request, true)?;
        Ok(Response::new(batch::batch_append(self.clone(), request.into_inner())))
    }
}

fn removed(
    stream: &str,
    expected: Expected,
    removed: Result<u64, Refused>,
) -> Result<Response<RemoveResp>, Status> {
    let position = removed.map_err(|refused| match refused {
        Refused::Deleted => stream_deleted(stream),
        Refused::WrongVersion(actual) => wrong_version("Delete", stream, expected, actual),
    })?;
    let position = remove_resp::PositionOption::Position(wire_position(position));
    Ok(Response::new(RemoveResp { position_option: Some(position) }))
}
