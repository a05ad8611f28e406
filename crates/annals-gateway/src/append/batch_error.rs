//! The error of one append in a batch: a `google.rpc.Status` whose detail tells clients the kind, and
//! whose code and text name the kind, too.

use annals_core::{Error, ErrorKind, ExpectedVersion};
use prost_types::Any;
use tonic::{Code, Status};

use crate::{
    names::{identifier, to_wire},
    proto::{
        google::rpc,
        shared::{
            AccessDenied, BadRequest, Empty, MaximumAppendSizeExceeded, StreamDeleted, Timeout,
            Unknown, WrongExpectedVersion,
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
    match (error.kind(), error.conflict()) {
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
            let detail = WrongExpectedVersion {
                current_stream_revision_option: Some(current),
                expected_stream_position_option: Some(expected),
            };
            of_kind(Code::AlreadyExists, "WrongExpectedVersion", &detail)
        }
        (ErrorKind::StreamClosed, _) => {
            let detail = StreamDeleted { stream_identifier: Some(identifier(stream)) };
            of_kind(Code::NotFound, "StreamDeleted", &detail)
        }
        _ if error.outcome_unknown() => timeout(),
        (ErrorKind::InvalidInput | ErrorKind::LimitExceeded, _) => bad_request(&error.to_string()),
        _ => {
            let status = status(error);
            let details = Some(any("Unknown", &Unknown {}));
            rpc::Status {
                code: status.code().into(),
                message: status.message().to_owned(),
                details,
            }
        }
    }
}

/// The error for an append that the gateway refused, so that the store never got it.
pub(super) fn refused(refused: &Status) -> rpc::Status {
    let max_bytes = refused.metadata().get("maximum-append-size");
    match max_bytes.and_then(|bytes| bytes.to_str().ok()?.parse().ok()) {
        Some(max_append_size) => {
            let detail = MaximumAppendSizeExceeded { max_append_size };
            of_kind(Code::InvalidArgument, "MaximumAppendSizeExceeded", &detail)
        }
        None if refused.code() == Code::PermissionDenied => {
            of_kind(Code::PermissionDenied, "AccessDenied", &AccessDenied {})
        }
        None => bad_request(refused.message()),
    }
}

/// The error for an append whose deadline has passed before it was complete.
pub(super) fn timeout() -> rpc::Status {
    of_kind(Code::DeadlineExceeded, "Timeout", &Timeout {})
}

fn bad_request(reason: &str) -> rpc::Status {
    of_kind(Code::InvalidArgument, "BadRequest", &BadRequest { message: reason.to_owned() })
}

fn of_kind(code: Code, kind: &str, detail: &impl prost::Message) -> rpc::Status {
    let details = Some(any(kind, detail));
    rpc::Status { code: code.into(), message: kind.to_owned(), details }
}

fn any(name: &str, message: &impl prost::Message) -> Any {
    let type_url = format!("type.googleapis.com/event_store.client.{name}");
    Any { type_url, value: message.encode_to_vec() }
}
