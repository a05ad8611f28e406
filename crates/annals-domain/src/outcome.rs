//! What becomes of a command.

use std::{error::Error as StdError, fmt};

use annals_core::{Error, Position, StreamId, Version};

/// The result of a command.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Executed<E> {
    /// The stream of the aggregate.
    pub stream: StreamId,
    /// The events that were appended: empty if the aggregate had nothing to do.
    pub events: Vec<E>,
    /// The version of the aggregate after the command.
    pub version: Version,
    /// The position of the last appended event, or `None` if no event was appended.
    pub position: Option<Position>,
    /// The position of the last event that the answer takes into account: that of the last appended
    /// event or, if no event was appended, of the aggregate's last event. A read model that has
    /// [reached](crate::projection::ProjectionHandle::reached) it shows what the answer says, also when
    /// a request is repeated. `None` if the aggregate has no events.
    pub as_of: Option<Position>,
    /// How often another writer was faster, so that the command was decided again.
    pub conflicts: u32,
}

/// Why a command failed.
///
/// ```
/// use annals_domain::ExecuteError;
///
/// fn report<R: std::fmt::Display>(error: &ExecuteError<R>) -> String {
///     match error {
///         ExecuteError::Rejected(reason) => format!("refused: {reason}"),
///         // The command may have been written: execute it again.
///         ExecuteError::Store(error) if error.outcome_unknown() => format!("unclear: {error}"),
///         ExecuteError::Store(error) => format!("failed: {error}"),
///         other => other.to_string(),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The aggregate refused the command. Nothing was written.
    Rejected(R),
    /// The store failed, permanently or for longer than the [policy](crate::RetryPolicy) allows. If
    /// [`Error::outcome_unknown`] is true, the events may have been written all the same: execute
    /// the command again, and let the aggregate decide on the events that are there.
    Store(Error),
}

impl<R> From<Error> for ExecuteError<R> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<R: fmt::Display> fmt::Display for ExecuteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<R: StdError + 'static> StdError for ExecuteError<R> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(rejection) => rejection.source(),
            Self::Store(error) => error.source(),
        }
    }
}
