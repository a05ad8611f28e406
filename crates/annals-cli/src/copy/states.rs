//! Truncated, deleted and tombstoned streams: their states are copied after the events.

use std::sync::Arc;

use annals::{ExpectedVersion, Store, StreamId, StreamInfo, StreamState, Version};

use super::target::StoreTarget;
use crate::{failure::Failure, listing::Listing, select::SelectStreams};

/// What [`follow`] has done.
#[derive(Default)]
pub(crate) struct Followed {
    /// How many streams were changed.
    pub(crate) changed: u64,
    /// Streams that were deleted and written to again while they were copied. The target has their
    /// events before and after the deletion, and cannot delete some of them: they are truncated there.
    pub(crate) not_deleted: Vec<StreamId>,
}

/// Truncates, deletes and tombstones streams of the target as in the source.
pub(crate) async fn follow(
    from: &Arc<dyn Store>,
    to: &StoreTarget,
    streams: &SelectStreams,
) -> Result<Followed, Failure> {
    let (mut listing, mut followed) = (Listing::of(from), Followed::default());
    while let Some((stream, info)) = listing.next(streams).await? {
        followed.follow_one(to, stream, info).await?;
    }
    Ok(followed)
}

/// The same for a source that cannot list its streams, and for these ones.
pub(crate) async fn follow_these(
    from: &Arc<dyn Store>,
    to: &StoreTarget,
    streams: &[StreamId],
) -> Result<Followed, Failure> {
    let mut followed = Followed::default();
    for stream in streams {
        let info = from.stream_info(stream).await?;
        followed.follow_one(to, stream.clone(), info).await?;
    }
    Ok(followed)
}

impl Followed {
    async fn follow_one(
        &mut self,
        to: &StoreTarget,
        stream: StreamId,
        info: StreamInfo,
    ) -> Result<(), Failure> {
        if has_removals(&info) && apply(to, &stream, info).await? {
            self.changed += 1;
            if to.store.stream_info(&stream).await?.deleted_at < info.deleted_at {
                self.not_deleted.push(stream);
            }
        }
        Ok(())
    }
}

/// Whether events were removed from a stream, so that copying its events does not copy its state.
fn has_removals(info: &StreamInfo) -> bool {
    info.state != StreamState::Live || info.first_version != Some(Version::FIRST)
}

/// Gives a stream of the target the state that it has in the source. Returns whether that changed
/// anything.
async fn apply(target: &StoreTarget, stream: &StreamId, due: StreamInfo) -> Result<bool, Failure> {
    let to = &target.store;
    let before = to.stream_info(stream).await?;
    let alike = (before.state, before.version) == (due.state, due.version);
    if alike && before.first_version == due.first_version || before.state == StreamState::Tombstoned
    {
        return Ok(false);
    }
    let is_revived = due.state == StreamState::Live && due.deleted_at > Version::NONE;
    if is_revived {
        target.delete_up_to(stream, due.deleted_at).await?;
    }
    let is = to.stream_info(stream).await?;
    if is.first_version.is_some_and(|is| due.first_version.is_none_or(|due| is < due)) {
        target.check_removal(stream)?;
    }
    if due.first_version.is_none() && is.version < due.version {
        target.raise(stream, is.first_version.map(|_| is.version), due.version).await?;
    }
    match (due.state, due.first_version) {
        (StreamState::Tombstoned, _) => to.tombstone(stream, ExpectedVersion::Any).await?,
        (StreamState::Deleted, _) => to.delete(stream, ExpectedVersion::Any).await?,
        (_, None) => to.truncate(stream, due.version.plus(1)).await?,
        (_, Some(first)) if is.first_version.is_some_and(|is| is < first) => {
            to.truncate(stream, first).await?;
        }
        // The stream has events that are not copied yet.
        _ => return Ok(is != before),
    }
    Ok(true)
}
