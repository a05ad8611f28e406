//! The call `BatchAppend`.

use async_stream::try_stream;
use prost_types::Any;
use tonic::{Status, Streaming};

use super::{
    cluster::Node,
    log::{Expected, Proposed, Refused},
    service::{Answers, proposed, success, target, write},
};
use crate::proto::{
    google::rpc,
    shared::{
        BadRequest, Empty, MaximumAppendSizeExceeded, StreamDeleted, StreamIdentifier, Timeout,
        Uuid, WrongExpectedVersion,
        wrong_expected_version::{
            CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Echo,
        },
    },
    streams::{BatchAppendReq, BatchAppendResp, WriteOptions, batch_append_resp::Result as Answer},
};

struct Incomplete {
    correlation_id: Option<Uuid>,
    options: WriteOptions,
    events: Vec<Proposed>,
}

pub(super) fn batch_append(
    node: Node,
    mut messages: Streaming<BatchAppendReq>,
) -> Answers<BatchAppendResp> {
    Box::pin(try_stream! {
        let mut incomplete: Vec<Incomplete> = Vec::new();
        while let Some(message) = messages.message().await? {
            let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = message;
            let index = incomplete.iter().position(|it| it.correlation_id == correlation_id);
            let mut append = match (index, options) {
                (Some(index), _) => incomplete.swap_remove(index),
                (None, Some(options)) => {
                    Incomplete { correlation_id, options, events: Vec::new() }
                }
                // The first chunk has to have the options.
                (None, None) => continue,
            };
            let mut refused = None;
            for event in proposed_messages {
                match proposed(event) {
                    Ok(event) => append.events.push(event),
                    Err(status) => refused = Some(status),
                }
            }
            if refused.is_none() && !is_final {
                incomplete.push(append);
                continue;
            }
            let Incomplete { correlation_id, options, events } = append;
            let result = match refused {
                Some(status) => Answer::Error(bad_request(&status)),
                None => answer(&node, &options, events),
            };
            yield BatchAppendResp {
                correlation_id,
                stream_identifier: options.stream_identifier,
                expected: None,
                result: Some(result),
            };
        }
    })
}

fn answer(node: &Node, options: &WriteOptions, events: Vec<Proposed>) -> Answer {
    let (stream, expected) = match target(options) {
        Ok(target) => target,
        Err(status) => return Answer::Error(bad_request(&status)),
    };
    match write(node, &stream, expected, events) {
        Ok(Ok(written)) => Answer::Success(success(written)),
        Ok(Err(Refused::WrongVersion(actual))) => Answer::Error(wrong_version(expected, actual)),
        Ok(Err(Refused::Deleted)) => {
            let stream_identifier = Some(StreamIdentifier { stream_name: stream.into() });
            let detail = any("StreamDeleted", &StreamDeleted { stream_identifier });
            Answer::Error(status(5, "StreamDeleted", detail))
        }
        Err(refused) => Answer::Error(bad_request(&refused)),
    }
}

fn wrong_version(expected: Expected, actual: i64) -> rpc::Status {
    let current = match u64::try_from(actual) {
        Ok(revision) => Current::CurrentStreamRevision(revision),
        Err(_) => Current::CurrentNoStream(Empty {}),
    };
    let echo = match expected {
        Expected::Any => Echo::ExpectedAny(Empty {}),
        Expected::StreamExists => Echo::ExpectedStreamExists(Empty {}),
        Expected::Revision(revision) => match u64::try_from(revision) {
            Ok(revision) => Echo::ExpectedStreamPosition(revision),
            Err(_) => Echo::ExpectedNoStream(Empty {}),
        },
    };
    let detail = WrongExpectedVersion {
        current_stream_revision_option: Some(current),
        expected_stream_position_option: Some(echo),
    };
    status(6, "WrongExpectedVersion", any("WrongExpectedVersion", &detail))
}

fn bad_request(refused: &Status) -> rpc::Status {
    let max = refused.metadata().get("maximum-append-size");
    if let Some(max_append_size) = max.and_then(|max| max.to_str().ok()?.parse().ok()) {
        let detail = MaximumAppendSizeExceeded { max_append_size };
        let detail = any("MaximumAppendSizeExceeded", &detail);
        return status(3, "MaximumAppendSizeExceeded", detail);
    }
    if refused.code() == tonic::Code::Aborted {
        return status(4, "Timeout", any("Timeout", &Timeout {}));
    }
    let detail = BadRequest { message: refused.message().to_owned() };
    status(3, "BadRequest", any("BadRequest", &detail))
}

fn status(code: i32, message: &str, detail: Any) -> rpc::Status {
    rpc::Status { code, message: message.to_owned(), details: Some(detail) }
}

fn any(name: &str, message: &impl prost::Message) -> Any {
    let type_url = format!("type.googleapis.com/event_store.client.{name}");
    Any { type_url, value: message.encode_to_vec() }
}
