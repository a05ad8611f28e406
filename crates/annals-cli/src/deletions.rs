//! Streams that were deleted and then written to again. An event does not say whether the versions
//! before it were deleted or truncated, but a program that loads the stream needs to know: the state
//! begins anew after a deletion, while truncated events are missing.

use std::{collections::HashSet, sync::Arc};

use annals::{RecordedEvent, Store, StreamId, Version};
use futures::{StreamExt, TryStreamExt, stream};

use crate::failure::Failure;

/// Streams, and the version up to which each was deleted.
pub(crate) type Deletions = Vec<(StreamId, Version)>;

/// How many streams are remembered: a few MiB. Beyond that, streams are looked up again.
const REMEMBERED: usize = 1 << 16;

/// How many streams are looked up at the same time.
const AT_ONCE: usize = 16;

/// Finds out, while a store is read from old to new, which streams were deleted before their events.
pub(crate) struct LookUp {
    store: Arc<dyn Store>,
    /// The streams that need not be looked up any more.
    known: HashSet<StreamId>,
}

impl LookUp {
    pub(crate) fn of(store: &Arc<dyn Store>) -> Self {
        Self { store: store.clone(), known: HashSet::new() }
    }

    /// The deletions before these events. A stream is looked up once, and not at all if the read gave
    /// its version 1.
    pub(crate) async fn before(&mut self, events: &[RecordedEvent]) -> Result<Deletions, Failure> {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        let mut late = Vec::new();
        for event in events {
            if !self.known.contains(&event.stream) {
                self.known.insert(event.stream.clone());
                if event.version > Version::FIRST {
                    late.push(event.stream.clone());
                }
            }
        }
        look_up(&self.store, late).await
    }
}

/// The deletions before these events, each stream being looked up.
pub(crate) async fn before(
    store: &Arc<dyn Store>,
    events: &[RecordedEvent],
) -> Result<Deletions, Failure> {
    let late = events.iter().filter(|event| event.version > Version::FIRST);
    let late: HashSet<_> = late.map(|event| &event.stream).collect();
    look_up(store, late.into_iter().cloned()).await
}

async fn look_up(
    store: &Arc<dyn Store>,
    streams: impl IntoIterator<Item = StreamId>,
) -> Result<Deletions, Failure> {
    let deleted_at = |stream: StreamId| async move {
        let info = store.stream_info(&stream).await?;
        Ok::<_, Failure>((info.deleted_at > Version::NONE).then_some((stream, info.deleted_at)))
    };
    let found = stream::iter(streams).map(deleted_at).buffered(AT_ONCE);
    found.try_filter_map(async |found| Ok(found)).try_collect().await
}
