//! The one place where errors of the client become ours.

use std::fmt;

use annals_core::{Error, ErrorKind};
use kurrentdb::Error as ClientError;
use tonic::Code;

/// The name of this backend.
pub(crate) const BACKEND: &str = "eventstoredb";

/// Adds where an error came from.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend(BACKEND).with_operation(operation)
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client reported it.
    Client(ClientError),
    /// The client did not answer within the deadline.
    Timeout,
    /// The client panicked, as it does over an answer that it does not understand.
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
    /// Whether a request that writes may have been carried out all the same.
    pub(crate) fn may_have_written(&self) -> bool {
        match self {
            Self::Timeout | Self::Panic => true,
            Self::Client(error) => match error {
                // The client keeps no more of it than its text: no connection could be made.
                ClientError::ServerError(text) => !text.contains("client error (Connect)"),
                ClientError::Grpc { code, .. } => matches!(code, Code::Cancelled | Code::Aborted),
                ClientError::DeadlineExceeded => true,
                _ => false,
            },
        }
    }

    /// Whether the same request may succeed soon.
    pub(crate) fn is_passing(&self) -> bool {
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

    /// Whether the client is of no use any more: it gives up for good when it cannot connect, and
    /// keeps to a connection that swallows requests.
    pub(crate) fn ends_client(&self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Client(ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_))
        )
    }

    /// Whether the client may talk to another node from now on.
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

    /// Whether the stream was tombstoned; of an append under `StreamExists`, also whether it was
    /// only deleted.
    pub(crate) fn is_deleted(&self) -> bool {
        matches!(self, Self::Client(ClientError::ResourceDeleted))
    }

    /// Whether a deletion found another revision than it expected.
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

    /// The error of a request that may have been carried out.
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
            "no server of the URL can be reached; look at its hosts, and at `tls`",
        ),
        ClientError::NotLeaderException(_) => {
            (ErrorKind::Unavailable, "the server is not the leader of its cluster (any more)")
        }
        ClientError::DeadlineExceeded => {
            (ErrorKind::Unavailable, "the server did not answer within the deadline")
        }
        ClientError::AccessDenied => (
            ErrorKind::Denied,
            "the server refused the credentials, or they do not allow this; to read all streams \
             takes an administrator, unless the server's access lists say otherwise",
        ),
        ClientError::UnsupportedFeature => (
            ErrorKind::Incompatible,
            "the server does not know this call; it takes EventStoreDB 21.10 or newer",
        ),
        ClientError::InternalParsingError(_) => {
            (ErrorKind::Corrupt, "a stored value is not what it should be")
        }
        ClientError::InitializationError(_) => {
            (ErrorKind::InvalidInput, "no client can be made of these settings")
        }
        ClientError::ResourceNotFound => (ErrorKind::Internal, "the server found no such thing"),
        ClientError::ResourceDeleted => (ErrorKind::StreamClosed, "the stream was tombstoned"),
        ClientError::Grpc { code, message } => of_code(*code, message),
        _ => (ErrorKind::Internal, "the client reported an error"),
    }
}

fn of_code(code: Code, message: &str) -> (ErrorKind, &'static str) {
    match code {
        Code::Cancelled | Code::Aborted => (ErrorKind::Unavailable, "the request was broken off"),
        Code::ResourceExhausted => (ErrorKind::Busy, "the server has too much to do; try again"),
        // "Maximum Append Size of 1048576 Exceeded."
        Code::InvalidArgument if message.to_lowercase().contains("maximum append size") => (
            ErrorKind::LimitExceeded,
            "larger than the server takes; raise its `MaxAppendSize`, or append less at once",
        ),
        Code::InvalidArgument | Code::OutOfRange => {
            (ErrorKind::Internal, "the server takes the request for a wrong one")
        }
        _ => (ErrorKind::Internal, "the server reported an error"),
    }
}

/// Something stored is not what it should be.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message.into())
}
