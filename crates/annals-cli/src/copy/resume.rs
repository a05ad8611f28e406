//! Where a copy goes on that was begun before.

use std::sync::Arc;

use annals::{Position, ReadAll, ReadStream, RecordedEvent, Store, SubscriberId};
use futures::TryStreamExt;
use xxhash_rust::xxh3::xxh3_64;

use super::target::Target;
use crate::{failure::Failure, place::Source, select::Select};

/// The name under which the target keeps how far a copy has come: one for each source and selection.
pub(crate) fn name(source: &str, selection: &str) -> Result<SubscriberId, Failure> {
    let digest = xxh3_64(format!("{source}\n{selection}").as_bytes());
    Ok(SubscriberId::new(format!("annals.copy.{digest:016x}"))?)
}

/// The position after which there is something left to copy. What is noted is believed only where
/// the last event that it speaks of stands in both: another source may have the same name by now.
pub(crate) async fn position(
    source: &Source,
    target: &mut Target,
    copy: &SubscriberId,
    select: &Select,
) -> Result<Position, Failure> {
    match target {
        Target::File(file) => {
            let Some(last) = tokio::task::block_in_place(|| file.resume())? else {
                return Ok(Position::START);
            };
            if has(source, &last).await? {
                return Ok(last.position);
            }
            Err(Failure::usage(format!(
                "{} holds events of another source; name a file that does not exist",
                target.shown()
            )))
        }
        Target::Store(target) => {
            let store = &target.store;
            let (Some(from), true) = (source.store(), store.capabilities().checkpoints) else {
                return Ok(Position::START);
            };
            let Some(noted) = store.load_checkpoint(copy).await? else {
                return Ok(Position::START);
            };
            let known = match last_until(from, noted, select).await? {
                Some(event) => find(store, &event).await?.is_some(),
                None => false,
            };
            Ok(if known { noted } else { Position::START })
        }
    }
}

/// The last of the selected events of a store up to a position.
pub(crate) async fn last_until(
    store: &Arc<dyn Store>,
    position: Position,
    select: &Select,
) -> Result<Option<RecordedEvent>, Failure> {
    if !store.capabilities().global_order {
        return Ok(None);
    }
    let options = ReadAll::default().with_filter(select.filter()).before(position.plus(1));
    let mut events = store.read_all(options);
    while let Some(event) = events.try_next().await? {
        if select.matches(&event) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// The same event in another store.
pub(crate) async fn find(
    store: &Arc<dyn Store>,
    event: &RecordedEvent,
) -> Result<Option<RecordedEvent>, Failure> {
    let options = ReadStream::default().with_from(event.version).with_limit(1);
    let found = store.read_stream(&event.stream, options).try_next().await?;
    Ok(found.filter(|found| (found.version, found.id) == (event.version, event.id)))
}

/// Whether the source has an event at just this place.
async fn has(source: &Source, event: &RecordedEvent) -> Result<bool, Failure> {
    let Some(store) = source.store() else { return Ok(true) };
    Ok(find(store, event).await?.is_some_and(|found| found.position == event.position))
}
