//! Whether a stream exists, and its versions.

use crate::Version;

/// Whether a stream exists, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamState {
    /// The stream never had an event.
    Missing,
    /// The stream exists, even if all its events were truncated.
    Live,
    /// The stream was deleted. An append brings it back.
    Deleted,
    /// The stream was tombstoned. Nothing brings it back.
    Tombstoned,
}

/// What [`EventStore::stream_info`](crate::EventStore::stream_info) tells of a stream.
///
/// ```
/// use annals_core::{EventStore, Result, StreamId};
///
/// async fn has_whole_history(store: &dyn EventStore, stream: &StreamId) -> Result<bool> {
///     let info = store.stream_info(stream).await?;
///     // If events were truncated, the first one that can be read has a greater version.
///     Ok(info.exists() && info.first_version == Some(1.into()))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Whether the stream exists.
    pub state: StreamState,
    /// The version of the stream's last event, even if that was removed; 0 if the stream never had
    /// an event.
    pub version: Version,
    /// The version of the first event that can still be read; `None` if none can.
    pub first_version: Option<Version>,
    /// The version of the last event that was removed with the stream when it was last deleted or
    /// tombstoned; 0 if that never happened. Events after it that cannot be read were truncated. If
    /// another application has deleted the stream, EventStoreDB does not tell.
    pub deleted_at: Version,
}

impl StreamInfo {
    /// For adapters: the state of a stream that was never deleted, and its versions.
    #[must_use]
    pub fn new(state: StreamState, version: Version, first_version: Option<Version>) -> Self {
        Self { state, version, first_version, deleted_at: Version::NONE }
    }

    /// For adapters: the version of the last event that was removed with the stream.
    #[must_use]
    pub fn with_deleted_at(mut self, version: Version) -> Self {
        self.deleted_at = version;
        self
    }

    /// Whether something was appended to the stream, and the stream was not deleted since.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state == StreamState::Live
    }
}
