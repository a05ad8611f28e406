//! What the caller of an append asks for, and what the store answers.

use std::fmt;

use crate::{Error, ErrorKind, NewEvent, Position, Result, StreamId, Version};

/// What the writer believes about a stream. If the belief is wrong, the store writes nothing and
/// returns [`ErrorKind::Conflict`].
///
/// ```
/// use annals_core::{ExpectedVersion, Version};
/// // The writer decided on what it read, and the last event that it read has version 3.
/// let expected = ExpectedVersion::from(Version::new(3));
/// assert_eq!(expected, ExpectedVersion::Exact(3.into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ExpectedVersion {
    /// The writer believes nothing: such an append never conflicts.
    #[default]
    Any,
    /// The stream does not exist: nothing was ever appended to it, or it was deleted since.
    NoStream,
    /// The stream exists: something was appended to it, and it was not deleted since.
    StreamExists,
    /// The stream's last event has exactly this version. `Exact(0)` means `NoStream`. A deleted
    /// stream keeps the version of its last event, so `Exact` of that version holds as well.
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

/// A request to write events to one stream: all or none, next to each other, in this order. The
/// answer is an [`Appended`].
///
/// ```
/// use annals_core::{Append, ExpectedVersion, NewEvent, StreamId};
/// let paid = NewEvent::json("OrderPaid", &serde_json::json!({ "cents": 4000 }))?;
/// let append = Append::new(StreamId::new("order-42")?, ExpectedVersion::Exact(1.into()), [paid]);
/// assert_eq!(append.count(), 1);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Append {
    /// The stream to write to.
    pub stream: StreamId,
    /// What the writer believes about the stream.
    pub expected: ExpectedVersion,
    /// The events, at least one.
    pub events: Vec<NewEvent>,
}

impl Append {
    /// A request to write these events to a stream, under an expectation.
    pub fn new(
        stream: StreamId,
        expected: impl Into<ExpectedVersion>,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self { stream, expected: expected.into(), events: events.into_iter().collect() }
    }

    /// The number of events, in the type that versions are counted in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.events.len() as u64
    }
}

/// The answer to an [`Append`]: where its events stand now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The version of the first event.
    pub first_version: Version,
    /// The version of the last event, which is now the version of the stream.
    pub last_version: Version,
    /// The position of the last event.
    pub position: Position,
    /// Whether the store had written this very append before, so that this call wrote nothing: the
    /// call was a retry. Always `false` if the store cannot
    /// [tell a retry](crate::Capabilities::tells_retries) from a first append.
    pub replayed: bool,
}

impl Appended {
    /// For adapters: `count` events were written after the version `base`, the last of them at
    /// `position`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if `count` is 0.
    pub fn after(base: Version, count: u64, position: Position, replayed: bool) -> Result<Self> {
        if count == 0 {
            return Err(Error::new(ErrorKind::Internal, "an append without events has no answer"));
        }
        let (first_version, last_version) = (base.plus(1), base.plus(count));
        Ok(Self { first_version, last_version, position, replayed })
    }
}
