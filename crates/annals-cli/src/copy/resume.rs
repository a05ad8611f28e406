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

/// Where a copy begins.
pub(crate) struct Start {
    /// The position after which there is something left to copy.
    pub(crate) after: Position,
    /// Whether what is in the target, under the names of the source, comes from there: then what the
    /// source has removed is removed there, too.
    pub(crate) is_ours: bool,
    /// Under which name the target keeps how far the copy has come.
    pub(crate) name: SubscriberId,
}

/// Looks where to begin. What is noted is believed only where the last event that it speaks of stands
/// in both: another source may have the same name by now.
pub(crate) async fn start(
    source: &Source,
    target: &mut Target,
    copy: SubscriberId,
    select: &Select,
) -> Result<Start, Failure> {
    match target {
        Target::File(file) => {
            let Some(last) = tokio::task::block_in_place(|| file.resume())? else {
                return Ok(Start { after: Position::START, is_ours: true, name: copy });
            };
            if has(source, &last).await? {
                return Ok(Start { after: last.position, is_ours: true, name: copy });
            }
            Err(Failure::usage(format!(
                "{} holds events of another source; name a file that does not exist",
                target.shown()
            )))
        }
        Target::Store(target) => in_store(source, &target.store, copy, select).await,
    }
}

async fn in_store(
    source: &Source,
    to: &Arc<dyn Store>,
    copy: SubscriberId,
    select: &Select,
) -> Result<Start, Failure> {
    // A copy into a store that held something else keeps its progress apart, so that it is never
    // taken for one whose target is its own.
    let beside = SubscriberId::new(format!("{copy}.beside"))?;
    let begin = |name: SubscriberId, is_ours| Start { after: Position::START, is_ours, name };
    let (Some(from), true) = (source.store(), to.capabilities().checkpoints) else {
        return Ok(begin(beside, false));
    };
    for (name, is_ours) in [(&copy, true), (&beside, false)] {
        let Some(noted) = to.load_checkpoint(name).await? else { continue };
        return Ok(match last_until(from, noted, select).await? {
            Some(event) if find(to, &event).await?.is_none() => begin(beside.clone(), false),
            // Where nothing is left of the source up to there, nothing says otherwise.
            None => begin(name.clone(), is_ours),
            Some(_) => Start { after: noted, is_ours, name: name.clone() },
        });
    }
    let is_empty = to.capabilities().global_order
        && to.read_all(ReadAll::default().with_limit(1)).try_next().await?.is_none();
    if !is_empty {
        return Ok(begin(beside, false));
    }
    // For the case that it is killed before there is anything else to note.
    to.save_checkpoint(&copy, Position::START).await?;
    Ok(begin(copy, true))
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

/// The last event of a store up to a position that stands in the other as well, where it is there.
pub(crate) async fn last_of_both(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    position: Position,
) -> Result<Option<RecordedEvent>, Failure> {
    /// How many events may have been left out, or removed, since.
    const MOST: u64 = 1_000;
    let options = ReadAll::default().before(position.plus(1)).with_limit(MOST);
    let mut events = from.read_all(options);
    while let Some(event) = events.try_next().await? {
        if let Some(found) = find(to, &event).await? {
            return Ok(Some(found));
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
