//! What a writer believes about a stream.

use std::fmt;

use crate::Version;

/// What the writer believes about a stream. If the belief is wrong, the store writes nothing and
/// returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
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
