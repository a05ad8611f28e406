//! The one place where the client's errors become errors of annals.

use std::fmt;

use annals_core::{Error, ErrorKind};
use kurrentdb::Error as ClientError;
use tonic::Code;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client reported an error.
    Client(ClientError),
    /// The client did not answer within the deadline.
    Timeout,
    /// The client panicked, as it does when it does not understand an answer.
    Panic,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => fmt::Display::fmt(error, f),
            Self::Timeout => f.write_str("no answer within the deadline"),
            Self::Panic => f.write_str("the client panicked"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// True if the server may have carried out a write although the request failed.
    pub(crate) fn may_have_written(&self) -> bool {
        match self {
            Self::Timeout | Self::Panic => true,
            Self::Client(error) => match error {
                // The client keeps only the text of a transport error. This text means that no
                // connection could be made, so that nothing was sent.
                ClientError::ServerError(text) => !text.contains("client error (Connect)"),
                ClientError::Grpc { code, .. } => matches!(code, Code::Cancelled | Code::Aborted),
                ClientError::DeadlineExceeded => true,
                _ => false,
            },
        }
    }

    /// True if the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Panic => false,
            Self::Client(error) => match error {
                ClientError::ServerError(_)
                | ClientError::NotLeaderException(_)
                | ClientError::ConnectionClosed
                | ClientError::GrpcConnectionError(_)
                | ClientError::DeadlineExceeded => true,
                ClientError::Grpc { code, .. } => {
                    matches!(code, Code::Cancelled | Code::Aborted | Code::ResourceExhausted)
                }
                _ => false,
            },
        }
    }

    /// True if the client has to be replaced. It gives up for good when it cannot connect, and it
    /// keeps using a connection that no longer answers.
    pub(crate) fn ends_client(&self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Client(ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_))
        )
    }

    /// True if the next request may go to another node.
    pub(crate) fn may_change_node(&self) -> bool {
        self.ends_client()
            || matches!(
                self,
                Self::Client(ClientError::ServerError(_) | ClientError::NotLeaderException(_))
            )
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Client(ClientError::ResourceNotFound))
    }

    /// True if the stream was tombstoned. An append that expects the stream to exist gets the same
    /// answer if the stream was only deleted.
    pub(crate) fn is_deleted(&self) -> bool {
        matches!(self, Self::Client(ClientError::ResourceDeleted))
    }

    /// True if a write found another revision than it expected.
    pub(crate) fn is_failed_precondition(&self) -> bool {
        match self {
            Self::Client(ClientError::WrongExpectedVersion { .. }) => true,
            Self::Client(ClientError::Grpc { code, .. }) => *code == Code::FailedPrecondition,
            _ => false,
        }
    }

    /// The error of a request that writes nothing.
    pub(crate) fn into_error(self) -> Error {
        let (kind, message) = match &self {
            Self::Timeout => {
                (ErrorKind::Unavailable, "the server did not answer within the deadline")
            }
            Self::Panic => {
                (ErrorKind::Corrupt, "the client could not read the answer of the server")
            }
            Self::Client(error) => of_client(error),
        };
        let error = Error::new(kind, message);
        match self {
            Self::Client(source) => error.with_source(source),
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

fn of_client(error: &ClientError) -> (ErrorKind, &'static str) {
    match error {
        ClientError::ServerError(_) => {
            (ErrorKind::Unavailable, "the server cannot be reached, or the connection was lost")
        }
        ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_) => (
            ErrorKind::Unavailable,
            "no server of the URL can be reached; check its hosts and its parameter `tls`",
        ),
        ClientError::NotLeaderException(_) => {
            (ErrorKind::Unavailable, "the server is not the leader of its cluster")
        }
        ClientError::DeadlineExceeded => {
            (ErrorKind::Unavailable, "the server did not answer within the deadline")
        }
        ClientError::AccessDenied => (
            ErrorKind::Denied,
            "the server refused the credentials, or this user may not do this; only \
             administrators may read all streams, unless the server's access lists allow others to",
        ),
        ClientError::UnsupportedFeature => (
            ErrorKind::Incompatible,
            "the server does not know this call; use EventStoreDB 21.10 or newer",
        ),
        ClientError::InternalParsingError(_) => {
            (ErrorKind::Corrupt, "the client could not parse what the server sent")
        }
        ClientError::InitializationError(_) => {
            (ErrorKind::InvalidInput, "the client cannot be created with these settings")
        }
        ClientError::ResourceNotFound => {
            (ErrorKind::Internal, "the server says that the stream does not exist")
        }
        ClientError::ResourceDeleted => (ErrorKind::StreamClosed, "the stream was tombstoned"),
        ClientError::Grpc { code, message } => of_code(*code, message),
        _ => (ErrorKind::Internal, "the client reported an error"),
    }
}

fn of_code(code: Code, message: &str) -> (ErrorKind, &'static str) {
    match code {
        Code::Cancelled | Code::Aborted => (ErrorKind::Unavailable, "the request was cancelled"),
        Code::ResourceExhausted => (ErrorKind::Busy, "the server is overloaded; try again"),
        // "Maximum Append Size of 1048576 Exceeded."
        Code::InvalidArgument if message.to_lowercase().contains("maximum append size") => (
            ErrorKind::LimitExceeded,
            "the append is larger than the server accepts; raise the server's `MaxAppendSize`, or \
             append fewer bytes at once",
        ),
        Code::InvalidArgument | Code::OutOfRange => {
            (ErrorKind::Internal, "the server rejected the request as invalid")
        }
        _ => (ErrorKind::Internal, "the server reported an error"),
    }
}

/// The error for stored data that cannot be read.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}
