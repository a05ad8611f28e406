//! Why a projection has stopped.

use std::{error::Error as StdError, fmt};

use annals_core::Error;

use super::{BoxError, Poison, delivery::DeliveryError};

/// Why a projection has stopped without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stopped {
    /// The caller stopped it.
    Requested,
    /// A later generation has taken over.
    Superseded,
}

/// Why a projection has failed. No event is lost: the next run begins at the checkpoint.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The handler failed on an event at every try.
    Poison {
        /// The event.
        event: Box<Poison>,
        /// The handler's last error.
        source: BoxError,
    },
    /// The handler failed to [switch](super::Handler::switch) to its generation.
    Switch(BoxError),
    /// A store failed permanently, or for longer than the [policy](crate::RetryPolicy) allows.
    Store(Error),
}

impl From<Error> for ProjectionError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for ProjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poison { event, .. } => {
                let Poison { projection, stream, version, event_type, error, .. } = &**event;
                write!(
                    f,
                    "the handler of the projection {projection:?} failed on event {version} of \
                     the stream {stream:?}, of type {event_type:?}: {error}"
                )
            }
            Self::Switch(error) => {
                write!(f, "the handler could not switch to its generation: {error}")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl StdError for ProjectionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Poison { source, .. } | Self::Switch(source) => Some(&**source),
            Self::Store(error) => error.source(),
        }
    }
}

/// The text of an error and of all its causes.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Some errors repeat the text of their cause.
        let more = next.to_string();
        if !text.ends_with(&more) {
            text += ": ";
            text += &more;
        }
        cause = next.source();
    }
    text
}

/// Why a run must start again from the checkpoint, or fail.
pub(super) enum Interruption {
    Failed(ProjectionError),
    /// Another process has moved the checkpoint.
    CheckpointMoved,
}

impl From<ProjectionError> for Interruption {
    fn from(error: ProjectionError) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<DeliveryError> for Interruption {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::CheckpointMoved => Self::CheckpointMoved,
            DeliveryError::Store(error) => Self::Failed(error.into()),
            // Errors in `Handler::handle` are treated where events are handed over, so this comes
            // from `Handler::switch`.
            DeliveryError::Handler(error) => Self::Failed(ProjectionError::Switch(error)),
        }
    }
}
