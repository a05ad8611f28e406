//! One error type for every store.

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::{ExpectedVersion, Position, StreamId, Version};

/// What any call of annals returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// ```
/// use annals_core::ErrorKind;
///
/// /// The status that an HTTP handler answers with.
/// fn status(kind: ErrorKind) -> u16 {
///     match kind {
///         ErrorKind::InvalidInput => 400,
///         ErrorKind::Conflict => 409,
///         ErrorKind::LimitExceeded => 413,
///         ErrorKind::Unavailable | ErrorKind::Busy => 503,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call itself is wrong; the message says what to change. Nothing was sent to the database.
    InvalidInput,
    /// An event, or an append, is larger than the store's [`Capabilities`](crate::Capabilities)
    /// allow. Nothing was sent to the database.
    LimitExceeded,
    /// The stream is not at the expected version: [`Error::conflict`] has the expected and the
    /// actual one. Nothing was written. Read the stream again, decide again, append again.
    Conflict,
    /// The stream was tombstoned, so it takes no append ever again.
    StreamClosed,
    /// The position or version to go on from is greater than every one that the store has given: the
    /// store was restored from an older copy, or the place is another store's. Reading on would pass
    /// over the events that get these positions later. Begin at a place that the store has given, and
    /// rebuild what was made of the events that are lost.
    BeyondEnd,
    /// The store declares in its [`Capabilities`](crate::Capabilities) that it cannot do this.
    Unsupported,
    /// The database cannot be reached, or the connection was lost. Retry the call.
    Unavailable,
    /// The database can be reached but is too busy: a lock or a pool timed out, or the request was
    /// throttled. Retry the call after a pause.
    Busy,
    /// The database refused the credentials, or they do not allow the call.
    Denied,
    /// The database holds something other than an annals store, or a store that this version of
    /// annals cannot use.
    Incompatible,
    /// Stored data cannot be decoded.
    Corrupt,
    /// The data was encrypted with a key that has been forgotten. Nothing brings it back.
    Forgotten,
    /// The database reported an error of some other kind: see `source()`.
    Internal,
}

impl ErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::LimitExceeded => "limit exceeded",
            Self::Conflict => "conflict",
            Self::StreamClosed => "stream closed",
            Self::BeyondEnd => "beyond the end",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Incompatible => "incompatible",
            Self::Corrupt => "corrupt",
            Self::Forgotten => "forgotten",
            Self::Internal => "internal error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The details of a conflict: the version that the writer expected, and the actual one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The stream that was to be changed.
    pub stream: StreamId,
    /// What the writer expected.
    pub expected: ExpectedVersion,
    /// The version that the stream had.
    pub actual: Version,
}

/// The error of every call of annals: what went wrong, where, and what the caller can do about it.
///
/// ```
/// use annals_core::{Error, ErrorKind};
///
/// /// Whether to send the same append, with the same event ids, once more.
/// fn retry(error: &Error) -> bool {
///     // If the first try was written after all, the store answers the retry without writing.
///     error.is_retryable() || error.outcome_unknown()
/// }
/// assert!(retry(&Error::new(ErrorKind::Busy, "the database is locked")));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    backend: Option<&'static str>,
    stream: Option<StreamId>,
    conflict: Option<Conflict>,
    outcome_unknown: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind. The message says what happened and, if the caller can do something,
    /// what to do. It must not contain a secret.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            backend: None,
            stream: None,
            conflict: None,
            outcome_unknown: false,
            source: None,
        }))
    }

    /// A conflict: another writer has changed the stream since the caller read it.
    #[must_use]
    pub fn lost_race(stream: &StreamId, expected: ExpectedVersion, actual: Version) -> Self {
        let mut error = Self::new(
            ErrorKind::Conflict,
            format!("expected {expected}, but the stream is at version {actual}"),
        )
        .with_stream(stream);
        error.0.conflict = Some(Conflict { stream: stream.clone(), expected, actual });
        error
    }

    /// An error that says that the stream was tombstoned.
    #[must_use]
    pub fn stream_closed(stream: &StreamId) -> Self {
        Self::new(ErrorKind::StreamClosed, "the stream was tombstoned and takes no more writes")
            .with_stream(stream)
    }

    /// An error that says that a position to go on from is beyond the greatest that the store has
    /// given.
    #[must_use]
    pub fn beyond_end(asked: Position, greatest: Position) -> Self {
        Self::beyond("store", "position", asked.get(), greatest.get())
    }

    /// An error that says that a version to go on from is beyond the greatest that the stream has
    /// had.
    #[must_use]
    pub fn version_beyond_end(asked: Version, greatest: Version) -> Self {
        Self::beyond("stream", "version", asked.get(), greatest.get())
    }

    fn beyond(of: &str, what: &str, asked: u64, greatest: u64) -> Self {
        let message = format!(
            "{what} {asked} is beyond the end: the greatest {what} ever given by this {of} is \
             {greatest}; the store was restored from an older copy, or the {what} is another \
             store's; go on from {greatest} at most, and rebuild what was made of later events"
        );
        Self::new(ErrorKind::BeyondEnd, message)
    }

    /// An error that says that the store has no `what`, as its capabilities declare.
    #[must_use]
    pub fn unsupported(what: &str) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("this store has no {what} (see its capabilities)"),
        )
    }

    /// Adds the name of the backend, unless the error already has one.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.0.backend.get_or_insert(backend);
        self
    }

    /// Adds the operation that failed (`append`, `read_stream`, …), unless the error already has
    /// one.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Sets the operation, also if the error has one: for an operation that is made of others.
    #[must_use]
    pub(crate) fn in_operation(mut self, operation: &'static str) -> Self {
        self.0.operation = Some(operation);
        self
    }

    /// Adds the stream, unless the error already has one.
    #[must_use]
    pub fn with_stream(mut self, stream: &StreamId) -> Self {
        self.0.stream.get_or_insert_with(|| stream.clone());
        self
    }

    /// Adds the cause: the unchanged error of the driver.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that the write may have happened, because its answer was lost (contract, rule 6).
    #[must_use]
    pub fn with_outcome_unknown(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    /// Why the call failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The expected and the actual version, if the kind is [`ErrorKind::Conflict`].
    #[must_use]
    pub fn conflict(&self) -> Option<&Conflict> {
        self.0.conflict.as_ref()
    }

    /// Whether the same call, unchanged, may succeed later. False for a conflict, which needs a new
    /// decision by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Busy)
    }

    /// Whether the write may have happened although the call failed, because its answer was lost.
    /// If this is `false`, nothing was written. Retrying an append with the same events and the same
    /// expected version is safe in both cases.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// The name of the backend that failed, such as `sqlite`.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The operation that failed, such as `append`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The stream that the call was about, if it was about one.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamId> {
        self.0.stream.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, operation, backend, stream, outcome_unknown, .. } = &*self.0;
        for part in [backend, operation].into_iter().flatten() {
            write!(f, "{part} ")?;
        }
        match (stream, backend.is_some() || operation.is_some()) {
            (Some(stream), true) => write!(f, "of stream {stream:?} failed: ")?,
            (Some(stream), false) => write!(f, "stream {stream:?}: ")?,
            (None, true) => f.write_str("failed: ")?,
            (None, false) => {}
        }
        write!(f, "{kind}: {message}")?;
        if *outcome_unknown {
            f.write_str(" (the answer was lost: the write may have happened)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("message", &inner.message)
            .field("operation", &inner.operation)
            .field("backend", &inner.backend)
            .field("stream", &inner.stream)
            .field("conflict", &inner.conflict)
            .field("outcome_unknown", &inner.outcome_unknown)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_and_why() {
        let stream = StreamId::new("order-42").unwrap();
        let error = Error::lost_race(&stream, ExpectedVersion::Exact(3.into()), 5.into())
            .with_backend("sqlite")
            .with_operation("append");
        assert_eq!(
            error.to_string(),
            "sqlite append of stream \"order-42\" failed: conflict: expected version 3, \
             but the stream is at version 5"
        );
        let plain = Error::new(ErrorKind::Corrupt, "no JSON").with_stream(&stream);
        assert_eq!(plain.to_string(), "stream \"order-42\": corrupt: no JSON");
        assert!(!error.is_retryable() && !error.outcome_unknown());
        assert_eq!(error.conflict().unwrap().actual, Version::new(5));
    }

    #[test]
    fn a_place_beyond_the_end_is_named_with_the_end() {
        for (error, what) in [
            (Error::beyond_end(8.into(), 3.into()), "position"),
            (Error::version_beyond_end(8.into(), 3.into()), "version"),
        ] {
            let text = error.to_string();
            assert!(text.contains(&format!("{what} 8")) && text.contains("is 3;"), "{text}");
            assert!(error.kind() == ErrorKind::BeyondEnd && !error.is_retryable());
        }
    }

    #[test]
    fn keeps_its_cause() {
        let error = Error::new(ErrorKind::Unavailable, "no answer")
            .with_source("reset")
            .with_outcome_unknown();
        assert_eq!(error.source().unwrap().to_string(), "reset");
        assert!(error.is_retryable() && error.outcome_unknown());
        assert!(error.to_string().ends_with("(the answer was lost: the write may have happened)"));
    }
}
