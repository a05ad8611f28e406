//! Why a request failed: the one place where statuses of gRPC become errors of annals.

use std::{error::Error as StdError, fmt};

use annals_core::{Error, ErrorKind, Version};
use tonic::{Code, Status};

use crate::{dial::ConnectError, settings::Address};

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no connection. Nothing was sent.
    Connect(ConnectError),
    /// The nodes that answer know of no leader. Nothing was sent.
    NoLeader,
    /// The request was not sent, or the server said that it will not look at it.
    Unsent,
    /// The connection was lost before the answer was complete.
    Lost(Box<Status>),
    /// There was no answer within the deadline.
    Timeout,
    /// The server refused the request.
    Refused(Refusal, Box<Status>),
    /// The server's answer cannot be read.
    Malformed(&'static str),
}

/// What the server says about a request that it does not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The stream was tombstoned. An append that expects the stream to exist gets the same answer if
    /// the stream was only deleted.
    Deleted,
    /// The stream is at another version than was expected. Without the version if the server does not
    /// tell it.
    WrongVersion(Option<Version>),
    /// Another node is the leader.
    NotLeader(Address),
    /// The node knows of no leader.
    NoLeader,
    /// The node has just started, or is about to stop.
    NotReady,
    TooBusy,
    /// The server waited in vain for its cluster. The append may have been written.
    Aborted,
    Denied,
    /// The append is larger than the server accepts.
    TooLarge,
    /// The server's code does not foresee such a request. It did nothing.
    Unforeseen,
    /// HTTP 500 without a status of gRPC. The server sends it if a name that is not ASCII would stand
    /// in a trailer: if the stream was deleted, or is at another version than was expected.
    NoStatus,
    Unsupported,
    Invalid,
    Other,
}

impl Refusal {
    pub(crate) fn of(status: &Status) -> Self {
        let trailer = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
        match trailer("exception") {
            Some("stream-deleted") => return Self::Deleted,
            Some("wrong-expected-version") => {
                let actual = trailer("actual-version").and_then(|text| text.parse::<i64>().ok());
                let version = |actual: i64| u64::try_from(actual + 1).map_or(0, |version| version);
                return Self::WrongVersion(actual.map(|actual| Version::new(version(actual))));
            }
            Some("access-denied") => return Self::Denied,
            Some("maximum-append-size-exceeded") => return Self::TooLarge,
            _ => {}
        }
        if let (Some(host), Some(port)) =
            (trailer("leader-endpoint-host"), trailer("leader-endpoint-port"))
            && let Ok(port) = port.parse()
        {
            return Self::NotLeader(Address::new(host, port));
        }
        let text = status.message();
        match status.code() {
            Code::Unknown if text.starts_with("No leader info available") => Self::NoLeader,
            // Reads and appends are not answered so for another reason.
            Code::NotFound => Self::NoLeader,
            Code::Unavailable if text.contains("Not Ready") => Self::NotReady,
            Code::Unavailable if text.contains("Too Busy") => Self::TooBusy,
            Code::Unavailable => Self::NotReady,
            Code::ResourceExhausted => Self::TooBusy,
            Code::Unknown if text.starts_with("Exception was thrown by handler") => {
                Self::Unforeseen
            }
            Code::Unknown if text.starts_with("Unexpected ") => Self::Unforeseen,
            Code::Unknown if text.contains("HTTP status code 500") => Self::NoStatus,
            Code::Aborted | Code::Cancelled | Code::DeadlineExceeded => Self::Aborted,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            // "Maximum Append Size of 1048576 Exceeded."
            Code::InvalidArgument if text.to_lowercase().contains("maximum append size") => {
                Self::TooLarge
            }
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid,
            Code::Unimplemented => Self::Unsupported,
            Code::FailedPrecondition => Self::WrongVersion(None),
            _ => Self::Other,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // A status with a source was made on this side: the connection failed.
        let mut source = status.source();
        if source.is_none() {
            return Self::Refused(Refusal::of(&status), Box::new(status));
        }
        // The text of the channel's own timer.
        if status.message() == "Timeout expired" {
            return Self::Timeout;
        }
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<ConnectError>() {
                return Self::Connect(error.clone());
            }
            if was_not_looked_at(error) {
                return Self::Unsent;
            }
            source = error.source();
        }
        Self::Lost(Box::new(status))
    }
}

/// True if the connection ended in such a way that the server has done nothing of the request: before it
/// was sent, or with a message that names it as one that the server has not begun.
fn was_not_looked_at(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_canceled();
    }
    error.downcast_ref::<h2::Error>().is_some_and(|error| {
        // Requests that the server has begun go on after this message.
        let is_refused = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        is_refused && error.is_remote()
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => fmt::Display::fmt(error, f),
            Self::NoLeader => f.write_str("the nodes of the cluster know of no leader"),
            Self::Lost(status) | Self::Refused(_, status) => {
                write!(f, "{:?}: {}", status.code(), status.message())
            }
            Self::Timeout => f.write_str("no answer within the deadline"),
            Self::Unsent => f.write_str("the connection ended before the request was sent"),
            Self::Malformed(what) => f.write_str(what),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Lost(status) | Self::Refused(_, status) => Some(status),
            _ => None,
        }
    }
}

impl Failure {
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal, _) => Some(refusal),
            _ => None,
        }
    }

    /// True if the server may have carried out a write although the request failed.
    pub(crate) fn may_have_written(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Timeout | Self::Malformed(_) => true,
            Self::Connect(_) | Self::NoLeader | Self::Unsent => false,
            Self::Refused(refusal, _) => {
                matches!(refusal, Refusal::Aborted | Refusal::NoStatus | Refusal::Other)
            }
        }
    }

    /// True if the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::NoLeader | Self::Unsent | Self::Lost(_) | Self::Timeout => {
                true
            }
            Self::Malformed(_) => false,
            Self::Refused(refusal, _) => matches!(
                refusal,
                Refusal::NotLeader(_)
                    | Refusal::NoLeader
                    | Refusal::NotReady
                    | Refusal::TooBusy
                    | Refusal::Aborted
            ),
        }
    }

    /// True if another node should be looked for.
    pub(crate) fn leaves_node(&self) -> bool {
        match self {
            Self::Connect(_) | Self::NoLeader | Self::Lost(_) | Self::Timeout => true,
            Self::Malformed(_) | Self::Unsent => false,
            Self::Refused(refusal, _) => matches!(
                refusal,
                Refusal::NotLeader(_) | Refusal::NoLeader | Refusal::NotReady | Refusal::Aborted
            ),
        }
    }

    /// True if a read of this stream, or an append to it, failed since the stream was tombstoned. The
    /// server sends no status if it would have to name a stream whose name is not ASCII.
    pub(crate) fn is_deleted(&self, name: &str) -> bool {
        match self.refusal() {
            Some(Refusal::Deleted) => true,
            Some(Refusal::NoStatus) => !name.chars().all(|c| c == ' ' || c.is_ascii_graphic()),
            _ => false,
        }
    }

    /// True if the server cannot take the request, and did nothing.
    pub(crate) fn is_unforeseen(&self) -> bool {
        matches!(self.refusal(), Some(Refusal::Unforeseen))
    }

    /// The error of a request that writes nothing.
    pub(crate) fn into_error(self) -> Error {
        let error = match &self {
            Self::Connect(error) => Error::new(ErrorKind::Unavailable, error.to_string()),
            Self::NoLeader => Error::new(ErrorKind::Unavailable, NO_LEADER),
            Self::Lost(_) | Self::Unsent => {
                Error::new(ErrorKind::Unavailable, "the connection was lost")
            }
            Self::Timeout => {
                let message = "the server did not answer within the deadline";
                Error::new(ErrorKind::Unavailable, message)
            }
            Self::Refused(refusal, _) => {
                let (kind, message) = refused(refusal);
                Error::new(kind, message)
            }
            Self::Malformed(_) => {
                Error::new(ErrorKind::Corrupt, "the answer of the server cannot be read")
            }
        };
        match self {
            Self::Connect(source) => error.with_source(source),
            Self::Refused(_, source) | Self::Lost(source) => error.with_source(*source),
            other => error.with_source(other),
        }
    }

    /// The error of a write, with an unknown outcome if the server may have carried it out.
    pub(crate) fn into_write_error(self) -> Error {
        let unknown = self.may_have_written();
        let error = self.into_error();
        if unknown { error.with_outcome_unknown() } else { error }
    }
}

const NO_LEADER: &str = "the cluster is choosing a leader";

fn refused(refusal: &Refusal) -> (ErrorKind, &'static str) {
    match refusal {
        Refusal::Deleted => (ErrorKind::StreamClosed, "the stream was tombstoned"),
        Refusal::WrongVersion(_) => {
            (ErrorKind::Internal, "the stream is at another version than was expected")
        }
        Refusal::NotLeader(_) => {
            (ErrorKind::Unavailable, "the server is not the leader of its cluster")
        }
        Refusal::NoLeader => (ErrorKind::Unavailable, NO_LEADER),
        Refusal::NotReady => (ErrorKind::Unavailable, "the server is not ready"),
        Refusal::TooBusy => (ErrorKind::Busy, "the server is too busy; try again"),
        Refusal::Aborted => {
            (ErrorKind::Unavailable, "the server ended the request before it was done")
        }
        Refusal::Denied => (
            ErrorKind::Denied,
            "the server refused the credentials, or this user may not do this; only \
             administrators may read all streams, unless the server's access lists allow others to",
        ),
        Refusal::TooLarge => (
            ErrorKind::LimitExceeded,
            "the append is larger than the server accepts; raise the server's `MaxAppendSize`, or \
             append fewer bytes at once",
        ),
        Refusal::Unforeseen => (
            ErrorKind::InvalidInput,
            "the server cannot take this request; it did nothing, and will not take it later",
        ),
        Refusal::NoStatus => (
            ErrorKind::Internal,
            "the server failed, as it does for streams with names that are not ASCII if they were \
             deleted or are at another version than was expected",
        ),
        Refusal::Unsupported => (
            ErrorKind::Incompatible,
            "the server does not know this call; use EventStoreDB 21.10 or newer",
        ),
        Refusal::Invalid => (ErrorKind::Internal, "the server rejected the request as invalid"),
        Refusal::Other => (ErrorKind::Internal, "the server reported an error"),
    }
}

/// The error for stored data that cannot be read.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, message: &str) -> Failure {
        Failure::from(Status::new(code, message))
    }

    #[test]
    fn what_the_server_says_decides_whether_to_try_again() {
        // Code, text, whether it may pass, whether the append may have been written.
        for (code, text, passes, unclear) in [
            (Code::Unknown, "No leader info available in response", true, false),
            (Code::NotFound, "Leader info available", true, false),
            (Code::Unavailable, "Server Is Not Ready", true, false),
            (Code::Unavailable, "Server Is Too Busy", true, false),
            (Code::Aborted, "Operation timed out: Forward timeout", true, true),
            (Code::Unknown, "Exception was thrown by handler.", false, false),
            (Code::Unknown, "Unexpected ReadAllResult: Error", false, false),
            (Code::Unknown, "something new", false, true),
            (Code::PermissionDenied, "", false, false),
        ] {
            let failure = refused(code, text);
            assert_eq!(failure.is_transient(), passes, "{text}");
            assert_eq!(failure.may_have_written(), unclear, "{text}");
            assert_eq!(failure.into_write_error().outcome_unknown(), unclear, "{text}");
        }
    }

    #[test]
    fn only_a_name_that_is_not_ascii_explains_an_answer_without_a_status() {
        let text = "grpc-status header missing, mapped from HTTP status code 500";
        let failure = refused(Code::Unknown, text);
        assert!(failure.is_deleted("order-é") && !failure.is_deleted("order 1"));
    }
}
