//! Where a copy continues that was started before.

use std::sync::Arc;

use annals::{
    ErrorKind, EventStoreExt, EventStream, Filter, Position, ReadAll, ReadStream, RecordedEvent,
    Store, SubscriberId,
};
use futures::{StreamExt, TryStreamExt, future::ready, stream};
use xxhash_rust::xxh3::xxh3_64;

use super::target::Target;
use crate::{
    failure::Failure,
    lines,
    select::{Select, SelectStreams},
    source::Source,
};

/// The checkpoint in the target that holds the progress of a copy. Each source, which `url` names,
/// has its own for each selection.
pub(crate) fn name(source: &Source, url: &str, select: &Select) -> Result<SubscriberId, Failure> {
    Ok(match source {
        Source::Store { url, .. } => named(&url.to_string(), select),
        Source::File(_) => named(url, select),
    }?)
}

/// Other builds of annals find the checkpoint again: never change the text that is hashed.
fn named(source: &str, select: &Select) -> annals::Result<SubscriberId> {
    let Select { streams: SelectStreams { ids, categories, prefix }, times, types } = select;
    let mut parts = Vec::new();
    parts.extend(ids.iter().map(|id| format!("stream {id}")));
    parts.extend(categories.iter().map(|category| format!("category {category}")));
    parts.extend(prefix.iter().map(|prefix| format!("prefix {}", prefix.as_str())));
    parts.extend(types.iter().map(|event_type| format!("type {event_type}")));
    parts.extend(times.since.iter().map(|since| format!("since {}", lines::time(*since))));
    parts.extend(times.until.iter().map(|until| format!("until {}", lines::time(*until))));
    // No name has a line break. The order in which options are given means nothing.
    parts.sort_unstable();
    parts.dedup();
    let text = format!("copy\nfrom {source}\n{}", parts.join("\n"));
    SubscriberId::new(format!("annals.copy.{:016x}", xxh3_64(text.as_bytes())))
}

/// An event of this size is left out for no target.
const SMALL: usize = 64 << 10;

/// Where a copy starts.
pub(crate) struct Start {
    /// Events up to this position are in the target already.
    pub(crate) after: Position,
    /// Whether the streams of the target all come from the source. Then events that the source has
    /// removed are removed from the target as well.
    pub(crate) may_remove: bool,
    /// The checkpoint in the target that holds the progress of the copy.
    pub(crate) name: SubscriberId,
}

/// Finds out where to start. The saved progress is used only if the last event before it is in both
/// stores: another source may have the same name by now.
pub(crate) async fn start(
    source: &Source,
    target: &mut Target,
    copy: SubscriberId,
    select: &Select,
) -> Result<Start, Failure> {
    match target {
        Target::File(file) => {
            let Some(last) = tokio::task::block_in_place(|| file.resume())? else {
                return Ok(Start { after: Position::START, may_remove: true, name: copy });
            };
            if has(source, &last).await? {
                return Ok(Start { after: last.position, may_remove: true, name: copy });
            }
            Err(Failure::usage(format!(
                "{} holds events of another source; name a file that does not exist yet",
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
    // If the target had other events at the start, the progress is saved under another name, so that
    // no later run takes the target for one whose events all come from the source.
    let beside = SubscriberId::new(format!("{copy}.beside"))?;
    let begin = |name: SubscriberId, may_remove| Start { after: Position::START, may_remove, name };
    let (Some(from), true) = (source.store(), to.capabilities().checkpoints) else {
        return Ok(begin(beside, false));
    };
    for (name, may_remove) in [(&copy, true), (&beside, false)] {
        let Some(saved) = to.load_checkpoint(name).await? else { continue };
        return Ok(match last_until(from, saved, select).await? {
            Some(event) if find(to, &event).await?.is_none() => begin(beside.clone(), false),
            // The source has no event left up to there that could contradict the saved progress.
            None => begin(name.clone(), may_remove),
            Some(_) => Start { after: saved, may_remove, name: name.clone() },
        });
    }
    let is_empty = to.capabilities().global_order
        && to.read_all(ReadAll::default().with_limit(1)).try_next().await?.is_none();
    if !is_empty {
        return Ok(begin(beside, false));
    }
    // If this run is killed before it saves any progress, the next one still knows that the target
    // was empty.
    to.save_checkpoint(&copy, Position::START).await?;
    Ok(begin(copy, true))
}

/// The events of a store up to a position, this one included, backwards. All of them, if the store
/// has never given the position: a read that goes on from there is refused later.
async fn up_to(
    store: &Arc<dyn Store>,
    options: impl Fn() -> ReadAll,
    position: Position,
) -> Result<EventStream, Failure> {
    let mut before = store.read_all(options().before(position));
    let first = match before.try_next().await {
        Err(error) if error.kind() == ErrorKind::BeyondEnd => {
            return Ok(store.read_all(options().backwards()));
        }
        first => first?,
    };
    // The store would refuse to read before the position after its last one.
    let at = store.read_all(options().after(position.minus(1)).with_limit(1)).try_next().await?;
    let at = at.filter(|event| event.position == position);
    Ok(stream::iter(at.into_iter().chain(first).map(Ok)).chain(before).boxed())
}

/// The last selected event of a store up to a position, of those that any target takes as they are.
pub(crate) async fn last_until(
    store: &Arc<dyn Store>,
    position: Position,
    select: &Select,
) -> Result<Option<RecordedEvent>, Failure> {
    if !store.capabilities().global_order {
        return Ok(None);
    }
    let filter = || ReadAll::default().with_filter(select.filter());
    let first = match select.times.since {
        Some(since) => store.position_before(since).await?,
        None => Position::START,
    };
    let mut events = up_to(store, filter, position).await?;
    while let Some(event) = events.try_next().await?.filter(|event| event.position > first) {
        let is_plain = !event.event_type.is_system() && event.size() <= SMALL;
        if is_plain && select.matches(&event) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// The last event of a store up to a position that the other store has as well, as recorded there.
pub(crate) async fn last_of_both(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    position: Position,
) -> Result<Option<RecordedEvent>, Failure> {
    /// The most events before the position that are looked for in the other store, which may have
    /// left them out or removed them.
    const MOST: usize = 1_000;
    let mut events = up_to(from, ReadAll::default, position).await?.take(MOST);
    while let Some(event) = events.try_next().await? {
        if let Some(found) = find(to, &event).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The same event in another store: that with its id at its version.
pub(crate) async fn find(
    store: &Arc<dyn Store>,
    event: &RecordedEvent,
) -> Result<Option<RecordedEvent>, Failure> {
    let options = ReadStream::default().with_from(event.version).with_limit(1);
    let found = store.read_stream(&event.stream, options).try_next().await?;
    Ok(found.filter(|found| (found.version, found.id) == (event.version, event.id)))
}

/// Whether the source has this event at this position.
async fn has(source: &Source, event: &RecordedEvent) -> Result<bool, Failure> {
    let Some(store) = source.store() else { return Ok(true) };
    let at = |found: &RecordedEvent| (found.position, found.version, found.id);
    if find(store, event).await?.is_some_and(|found| at(&found) == at(event)) {
        return Ok(true);
    }
    // The event may have another name in the source.
    let Some(exporter) = source.exporter() else { return Ok(false) };
    let events = exporter.read(Filter::default(), Position::START);
    let mut same = std::pin::pin!(events.try_filter(|found| ready(at(found) == at(event))));
    let found = same.try_next().await?;
    Ok(found.is_some_and(|found| exporter.originals.take(&found).is_some()))
}

#[cfg(test)]
mod tests {
    use annals::{Category, EventType, StreamId, StreamPrefix};

    use super::*;

    /// A target that was written by another build is continued only under these very names.
    #[test]
    fn the_name_of_a_copy_never_changes() {
        let name =
            |select: &Select| named("postgres://db/shop?schema=a", select).unwrap().to_string();
        assert_eq!(name(&Select::default()), "annals.copy.ec0aa39f0d9f6926");
        let mut select = Select::default();
        select.streams.ids = ["b-1", "a-1", "b-1"].map(|id| StreamId::new(id).unwrap()).to_vec();
        select.streams.categories = vec![Category::new("order").unwrap()];
        select.streams.prefix = Some(StreamPrefix::new("st").unwrap());
        select.types = vec![EventType::new("Placed").unwrap()];
        select.times.since = Some(lines::parse_time("2026-01-31T12:00:00.5+01:00").unwrap());
        select.times.until = Some(lines::parse_time("2026-02-01T00:00:00Z").unwrap());
        assert_eq!(name(&select), "annals.copy.c23fe52919ba4739");
        select.streams.ids.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        select.streams.ids.dedup();
        assert_eq!(name(&select), "annals.copy.c23fe52919ba4739");
    }
}
