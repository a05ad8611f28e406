//! The error of one append in a batch: a `google.rpc.Status` whose detail tells clients the kind.

use annals_core::{Error, ErrorKind, ExpectedVersion};
use prost_types::Any;
use tonic::Status;

use crate::{
    names::{identifier, to_wire},
    proto::{
        google::rpc,
        shared::{
            BadRequest, Empty, MaximumAppendSizeExceeded, StreamDeleted, Timeout, Unknown,
            WrongExpectedVersion,
            wrong_expected_version::{
                CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Expected,
            },
        },
    },
    status::{revision, status},
};

/// An error of the store.
pub(super) fn store_error(error: &Error) -> rpc::Status {
    let stream = error.stream().map(|stream| to_wire(stream.as_str())).unwrap_or_default();
    let detail = match (error.kind(), error.conflict()) {
        (_, Some(conflict)) => {
            let current = match u64::try_from(revision(conflict.actual)) {
                Ok(revision) => Current::CurrentStreamRevision(revision),
                Err(_) => Current::CurrentNoStream(Empty {}),
            };
            let expected = match conflict.expected {
                ExpectedVersion::Any => Expected::ExpectedAny(Empty {}),
                ExpectedVersion::StreamExists => Expected::ExpectedStreamExists(Empty {}),
                ExpectedVersion::NoStream => Expected::ExpectedNoStream(Empty {}),
                ExpectedVersion::Exact(version) => {
                    Expected::ExpectedStreamPosition(version.minus(1).get())
                }
            };
            any(
                "WrongExpectedVersion",
                &WrongExpectedVersion {
                    current_stream_revision_option: Some(current),
                    expected_stream_position_option: Some(expected),
                },
            )
        }
        (ErrorKind::StreamClosed, _) => {
            any("StreamDeleted", &StreamDeleted { stream_identifier: Some(identifier(stream)) })
        }
        _ if error.outcome_unknown() => any("Timeout", &Timeout {}),
        (ErrorKind::InvalidInput | ErrorKind::LimitExceeded, _) => {
            any("BadRequest", &BadRequest { message: error.to_string() })
        }
        _ => any("Unknown", &Unknown {}),
    };
    with_detail(&status(error), detail)
}

/// The error for an append that the gateway refused, so that the store never got it.
pub(super) fn refused(refused: &Status) -> rpc::Status {
    let max_bytes = refused.metadata().get("maximum-append-size");
    let detail = match max_bytes.and_then(|bytes| bytes.to_str().ok()?.parse().ok()) {
        Some(max_append_size) => {
            any("MaximumAppendSizeExceeded", &MaximumAppendSizeExceeded { max_append_size })
        }
        None => any("BadRequest", &BadRequest { message: refused.message().to_owned() }),
    };
    with_detail(refused, detail)
}

fn with_detail(status: &Status, detail: Any) -> rpc::Status {
    let message = status.message().to_owned();
    rpc::Status { code: status.code().into(), message, details: Some(detail) }
}

fn any(name: &str, message: &impl prost::Message) -> Any {
    let type_url = format!("type.googleapis.com/event_store.client.{name}");
    Any { type_url, value: message.encode_to_vec() }
}
