//! What an append asks for, and what it answers.

use std::fmt;

use crate::{Error, ErrorKind, NewEvent, Position, Result, StreamId, Version};

/// What a writer believes about a stream; where it is wrong, nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ExpectedVersion {
    /// Nothing: such an append never conflicts.
    #[default]
    Any,
    /// The stream does not exist: nothing was ever appended, or it was deleted since.
    NoStream,
    /// The stream exists: something was appended, and it was not deleted since.
    StreamExists,
    /// The stream's last event has just this version. `Exact(0)` means `NoStream`; on a deleted
    /// stream the version before its deletion holds as well.
    Exact(Version),
}

impl From<Version> for ExpectedVersion {
    fn from(version: Version) -> Self {
        Self::Exact(version)
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream | Self::Exact(Version::NONE) => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// Events for one stream, written all or none, next to each other, in this order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// What the writer believes about it.
    pub expected: ExpectedVersion,
    /// One event or more.
    pub events: Vec<NewEvent>,
}

impl Append {
    /// Events for a stream, under an expectation.
    pub fn new(
        stream: StreamId,
        expected: impl Into<ExpectedVersion>,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self { stream, expected: expected.into(), events: events.into_iter().collect() }
    }

    /// How many events, as versions count them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.events.len() as u64
    }
}

/// Where an append's events stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The version of the first event.
    pub first_version: Version,
    /// The version of the last event, and so of the stream.
    pub last_version: Version,
    /// The position of the last event.
    pub position: Position,
    /// Whether this very append had been written before, so that this call wrote nothing. Always
    /// false on a store that recognises a retry without
    /// [telling it](crate::Capabilities::tells_retries).
    pub replayed: bool,
}

impl Appended {
    /// For adapters: `count` events written after the version `base`, the last at `position`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for no events at all.
    pub fn after(base: Version, count: u64, position: Position, replayed: bool) -> Result<Self> {
        if count == 0 {
            return Err(Error::new(ErrorKind::Internal, "an append of no events has no answer"));
        }
        let (first_version, last_version) = (base.plus(1), base.plus(count));
        Ok(Self { first_version, last_version, position, replayed })
    }
}
