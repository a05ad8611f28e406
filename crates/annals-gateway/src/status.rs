//! Errors of the store, as clients of EventStoreDB know them: by the trailer `exception`, and some
//! by the text.

use annals_core::{Error, ErrorKind, ExpectedVersion, Version};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::names::out;

/// The revision of an event with this version; -1 where there is none.
pub(crate) fn revision(version: Version) -> i64 {
    version.to_i64() - 1
}

/// What stands for an expectation where a number does.
pub(crate) fn expected_number(expected: ExpectedVersion) -> i64 {
    match expected {
        ExpectedVersion::NoStream => -1,
        ExpectedVersion::Any => -2,
        ExpectedVersion::StreamExists => -4,
        ExpectedVersion::Exact(version) => revision(version),
    }
}

/// An error, for a client.
pub(crate) fn status(error: &Error) -> Status {
    let stream = error.stream().map(|stream| out(stream.as_str())).unwrap_or_default();
    if let Some(conflict) = error.conflict() {
        let (expected, actual) = (expected_number(conflict.expected), revision(conflict.actual));
        // One of the clients reads this text.
        let message = format!(
            "Append failed due to WrongExpectedVersion. Stream: {stream}, \
             Expected version: {expected}, Actual version: {actual}"
        );
        let mut trailers = trailers("wrong-expected-version", stream);
        insert(&mut trailers, "expected-version", &expected.to_string());
        if actual >= 0 {
            insert(&mut trailers, "actual-version", &actual.to_string());
        }
        return Status::with_metadata(Code::FailedPrecondition, message, trailers);
    }
    let code = match error.kind() {
        // So that no client takes it for something that may be sent again.
        _ if error.outcome_unknown() => Code::Aborted,
        ErrorKind::StreamClosed => return stream_deleted(stream),
        ErrorKind::InvalidInput | ErrorKind::LimitExceeded => Code::InvalidArgument,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Unavailable | ErrorKind::Busy => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        _ => Code::Internal,
    };
    if code != Code::InvalidArgument {
        tracing::warn!(%error, source = ?std::error::Error::source(error), "the store failed");
    }
    Status::new(code, error.to_string())
}

/// The stream was tombstoned.
pub(crate) fn stream_deleted(stream: &str) -> Status {
    let message = format!("Event stream '{stream}' is deleted.");
    Status::with_metadata(Code::FailedPrecondition, message, trailers("stream-deleted", stream))
}

/// More than one append may have.
pub(crate) fn too_large(most: usize) -> Status {
    let mut trailers = MetadataMap::new();
    insert(&mut trailers, "exception", "maximum-append-size-exceeded");
    insert(&mut trailers, "maximum-append-size", &most.to_string());
    let message = format!("Maximum Append Size Exceeded. Maximum: {most} bytes");
    Status::with_metadata(Code::InvalidArgument, message, trailers)
}

/// An event without what it needs.
pub(crate) fn metadata_missing(name: &str) -> Status {
    let mut trailers = MetadataMap::new();
    insert(&mut trailers, "exception", "missing-required-metadata-property");
    insert(&mut trailers, "required-metadata-properties", "type,content-type");
    let message = format!("Required Metadata Property Missing: '{name}'");
    Status::with_metadata(Code::InvalidArgument, message, trailers)
}

/// Nobody whom the server knows, or the password is another.
pub(crate) fn unauthenticated() -> Status {
    let mut trailers = MetadataMap::new();
    insert(&mut trailers, "exception", "access-denied");
    Status::with_metadata(Code::Unauthenticated, "user and password are not right", trailers)
}

pub(crate) fn trailers(exception: &str, stream: &str) -> MetadataMap {
    let mut trailers = MetadataMap::new();
    insert(&mut trailers, "exception", exception);
    insert(&mut trailers, "stream-name", stream);
    trailers
}

/// A name that is not ASCII cannot stand in a trailer; the text of the error has it.
pub(crate) fn insert(trailers: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = MetadataValue::try_from(value) {
        trailers.insert(name, value);
    } else {
        trailers.insert(name, MetadataValue::from_static(""));
    }
}
