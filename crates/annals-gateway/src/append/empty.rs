//! Appends without events. EventStoreDB accepts them; an annals store refuses them.

use annals_core::{
    Error, ExpectedVersion, Store, StreamId, StreamState, Version, adapter::StreamHead,
};

use super::{revival, write::AppendOutcome};
use crate::{metadata, tombstones};

/// Checks the expected version, and answers the stream's last revision. As in EventStoreDB, such an
/// append revives a deleted stream, which then has no events.
pub(super) async fn append_nothing(
    store: &dyn Store,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Result<AppendOutcome, Error> {
    let info = store.stream_info(stream).await?;
    let has_metadata =
        info.state == StreamState::Missing && metadata::exists(store, stream).await?;
    match (info.state, expected) {
        (StreamState::Deleted, ExpectedVersion::StreamExists) => {
            return Err(Error::stream_closed(stream));
        }
        // A record without events cannot be the first one of the stream's new life.
        (StreamState::Deleted, ExpectedVersion::NoStream) => {
            return Err(Error::lost_race(stream, expected, info.version));
        }
        (StreamState::Missing, ExpectedVersion::StreamExists) if has_metadata => {}
        _ => {
            // `deleted_at` only matters for recognising a retry, and without events there is nothing
            // to retry.
            let (state, version) = (info.state, info.version);
            StreamHead { state, version, deleted_at: Version::NONE }.check(stream, expected)?;
        }
    }
    if info.state == StreamState::Deleted {
        revival::revive(store, stream, info.version).await?;
    }
    let position = tombstones::record_nothing(store).await?;
    Ok(AppendOutcome::of(info.version, position))
}
