//! Truncated, deleted and tombstoned streams: their states are copied after the events.

use std::sync::Arc;

use annals::{
    Error, EventType, ExpectedVersion, NewEvent, PLACEHOLDER, Payload, Position, Store, StreamId,
    StreamInfo, StreamState, Version,
};
use chrono::Utc;

use super::target::StoreTarget;
use crate::{failure::Failure, listing::Listing, select::SelectStreams};

/// Truncates, deletes and tombstones streams of the target as in the source. Returns how many streams
/// were changed.
pub(crate) async fn follow(
    from: &Arc<dyn Store>,
    to: &StoreTarget,
    streams: &SelectStreams,
) -> Result<u64, Failure> {
    let (mut listing, mut changed) = (Listing::of(from), 0);
    while let Some((stream, info)) = listing.next(streams).await? {
        if has_removals(&info) && apply(to, &stream, info).await? {
            changed += 1;
        }
    }
    Ok(changed)
}

/// Whether events were removed from a stream, so that copying its events does not copy its state.
fn has_removals(info: &StreamInfo) -> bool {
    info.state != StreamState::Live || info.first_version != Some(Version::FIRST)
}

/// Gives a stream of the target the state that it has in the source. Returns whether that changed
/// anything.
async fn apply(target: &StoreTarget, stream: &StreamId, due: StreamInfo) -> Result<bool, Failure> {
    let to = &target.store;
    let is = to.stream_info(stream).await?;
    let alike = (is.state, is.version) == (due.state, due.version);
    if alike && is.first_version == due.first_version || is.state == StreamState::Tombstoned {
        return Ok(false);
    }
    if is.first_version.is_some_and(|is| due.first_version.is_none_or(|due| is < due)) {
        target.check_removal(stream)?;
    }
    if due.first_version.is_none() && is.version < due.version {
        raise(to, stream, is, due.version).await?;
    }
    match (due.state, due.first_version) {
        (StreamState::Tombstoned, _) => to.tombstone(stream, ExpectedVersion::Any).await?,
        (StreamState::Deleted, _) => to.delete(stream, ExpectedVersion::Any).await?,
        (_, None) => to.truncate(stream, due.version.plus(1)).await?,
        (_, Some(first)) if is.first_version.is_some_and(|is| is < first) => {
            to.truncate(stream, first).await?;
        }
        // The stream has events that are not copied yet.
        _ => return Ok(false),
    }
    Ok(true)
}

/// Raises a stream of the target to the version that it has in the source, where its events are gone:
/// imports one placeholder at that version.
async fn raise(
    to: &Arc<dyn Store>,
    stream: &StreamId,
    is: StreamInfo,
    version: Version,
) -> Result<(), Error> {
    if is.first_version.is_some() {
        to.truncate(stream, is.version.plus(1)).await?;
    }
    let placeholder = NewEvent::new(EventType::new(PLACEHOLDER)?, Payload::empty());
    let event = placeholder.recorded(stream.clone(), version, Position::START, Utc::now());
    to.import(vec![event]).await
}
