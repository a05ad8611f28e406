//! What streams are, beyond their events: truncated, deleted, tombstoned.

use std::sync::Arc;

use annals::{
    Error, EventType, ExpectedVersion, NewEvent, PLACEHOLDER, Payload, Position, Store, StreamId,
    StreamInfo, StreamState, Version,
};
use chrono::Utc;

use super::target::StoreTarget;
use crate::{failure::Failure, listing::Listing, select::Streams};

/// Truncates, deletes and tombstones in the target what was in the source. Gives the number of
/// streams that it changed.
pub(crate) async fn follow(
    from: &Arc<dyn Store>,
    to: &StoreTarget,
    streams: &Streams,
) -> Result<u64, Failure> {
    let (mut listing, mut changed) = (Listing::of(from), 0);
    while let Some((stream, info)) = listing.next(streams).await? {
        if is_unusual(&info) && apply(to, &stream, info).await? {
            changed += 1;
        }
    }
    Ok(changed)
}

/// Whether the events of a stream do not say what it is.
fn is_unusual(info: &StreamInfo) -> bool {
    info.state != StreamState::Live || info.first_version != Some(Version::FIRST)
}

/// Makes a stream what it is in the source; false where it was.
async fn apply(target: &StoreTarget, stream: &StreamId, due: StreamInfo) -> Result<bool, Failure> {
    let to = &target.store;
    let is = to.stream_info(stream).await?;
    let alike = (is.state, is.version) == (due.state, due.version);
    if alike && is.first_version == due.first_version || is.state == StreamState::Tombstoned {
        return Ok(false);
    }
    if is.first_version.is_some_and(|is| due.first_version.is_none_or(|due| is < due)) {
        target.check_ours(stream)?;
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
        // Events that are still to come.
        _ => return Ok(false),
    }
    Ok(true)
}

/// Brings a stream to a version at which nothing is left of it in the source.
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
