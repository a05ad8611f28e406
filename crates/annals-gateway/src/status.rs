//! Turns errors of the store into the gRPC statuses that EventStoreDB sends. Clients recognise an
//! error by the trailer `exception`, and a few errors by the text.

use annals_core::{Error, ErrorKind, ExpectedVersion, Version};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::names::to_wire;

/// The revision of the event at `version`. Version 0, before the first event, is -1.
pub(crate) fn revision(version: Version) -> i64 {
    let revision = version.get().checked_sub(1);
    revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX))
}

/// The number that EventStoreDB writes for an expected version.
pub(crate) fn expected_number(expected: ExpectedVersion) -> i64 {
    match expected {
        ExpectedVersion::NoStream => -1,
        ExpectedVersion::Any => -2,
        ExpectedVersion::StreamExists => -4,
        ExpectedVersion::Exact(version) => revision(version),
    }
}

/// The status for an error of the store.
pub(crate) fn status(error: &Error) -> Status {
    let stream = error.stream().map(|stream| to_wire(stream.as_str())).unwrap_or_default();
    if let Some(conflict) = error.conflict() {
        let (expected, actual) = (expected_number(conflict.expected), revision(conflict.actual));
        // An append answers a conflict in another way. The Python client parses this text.
        let message = format!(
            "Delete failed due to WrongExpectedVersion. Stream: {stream}, \
             Expected version: {expected}, Actual version: {actual}"
        );
        let mut trailers = trailers("wrong-expected-version", stream);
        insert_trailer(&mut trailers, "expected-version", &expected.to_string());
        insert_trailer(&mut trailers, "actual-version", &actual.to_string());
        return Status::with_metadata(Code::FailedPrecondition, message, trailers);
    }
    let code = match error.kind() {
        // Clients must not resend a request that may have been executed, so not `Unavailable`.
        _ if error.outcome_unknown() => Code::Aborted,
        ErrorKind::StreamClosed => return stream_deleted(stream),
        ErrorKind::InvalidInput | ErrorKind::LimitExceeded | ErrorKind::BeyondEnd => {
            Code::InvalidArgument
        }
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Unavailable | ErrorKind::Busy => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        _ => Code::Internal,
    };
    if code != Code::InvalidArgument {
        let source = std::error::Error::source(error);
        tracing::warn!(%error, ?source, "the store returned an error");
    }
    Status::new(code, error.to_string())
}

/// The error for a tombstoned stream.
pub(crate) fn stream_deleted(stream: &str) -> Status {
    let message = format!("Event stream '{stream}' is deleted.");
    Status::with_metadata(Code::FailedPrecondition, message, trailers("stream-deleted", stream))
}

/// True if an error says that a stream is tombstoned.
pub(crate) fn is_stream_deleted(error: &Status) -> bool {
    error.metadata().get("exception").is_some_and(|exception| exception == "stream-deleted")
}

/// The error for an append of more than `max` bytes.
pub(crate) fn too_large(max: usize) -> Status {
    let mut trailers = MetadataMap::new();
    insert_trailer(&mut trailers, "exception", "maximum-append-size-exceeded");
    insert_trailer(&mut trailers, "maximum-append-size", &max.to_string());
    let message = format!("Maximum Append Size of {max} Exceeded.");
    Status::with_metadata(Code::InvalidArgument, message, trailers)
}

/// The error for a message that is too large to be read, which tonic calls out of range.
pub(crate) fn oversized(error: Status) -> Status {
    match error.code() {
        Code::OutOfRange => Status::resource_exhausted(error.message()),
        _ => error,
    }
}

/// The error for an event whose header `name` is missing.
pub(crate) fn metadata_missing(name: &str) -> Status {
    let mut trailers = MetadataMap::new();
    insert_trailer(&mut trailers, "exception", "missing-required-metadata-property");
    insert_trailer(&mut trailers, "required-metadata-properties", "type,content-type");
    let message = format!("Required Metadata Property '{name}' is missing");
    Status::with_metadata(Code::InvalidArgument, message, trailers)
}

/// The error for a missing or wrong user or password.
pub(crate) fn unauthenticated() -> Status {
    let mut trailers = MetadataMap::new();
    insert_trailer(&mut trailers, "exception", "access-denied");
    Status::with_metadata(Code::Unauthenticated, "the user or the password is wrong", trailers)
}

/// The error for a write to a stream that only the server makes.
pub(crate) fn access_denied(stream: &str) -> Status {
    let message = format!("clients cannot write to the stream {stream}");
    Status::with_metadata(Code::PermissionDenied, message, trailers("access-denied", stream))
}

pub(crate) fn trailers(exception: &str, stream: &str) -> MetadataMap {
    let mut trailers = MetadataMap::new();
    insert_trailer(&mut trailers, "exception", exception);
    insert_trailer(&mut trailers, "stream-name", stream);
    trailers
}

/// Adds a trailer. A value that is not ASCII is left empty, since trailers cannot hold it; the
/// status's text has it.
pub(crate) fn insert_trailer(trailers: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = MetadataValue::try_from(value) {
        trailers.insert(name, value);
    } else {
        trailers.insert(name, MetadataValue::from_static(""));
    }
}
