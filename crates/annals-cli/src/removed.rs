//! Events that were truncated or deleted, in stores that show them until a clean-up.

use std::{collections::HashMap, sync::Arc};

use annals::{RecordedEvent, Removal, Store, StreamId, StreamState, Version};

use crate::{failure::Failure, foreign::Originals, select::Select};

/// Leaves removed events out of a read of all streams.
pub(crate) struct NotRemoved {
    /// The store, or `None` if it leaves removed events out itself.
    store: Option<Arc<dyn Store>>,
    /// The first version that is left of each stream; `None` if nothing is left.
    firsts: HashMap<StreamId, Option<Version>>,
    /// Events whose streams the store cannot name. Whatever gives them leaves out what was removed.
    originals: Option<Originals>,
}

impl NotRemoved {
    pub(crate) fn of(store: &Arc<dyn Store>, originals: Option<Originals>) -> Self {
        let late = store.capabilities().removal == Removal::AfterCleanUp;
        Self { store: late.then(|| store.clone()), firsts: HashMap::new(), originals }
    }

    /// The streams of which events were removed, as far as the read has shown any.
    pub(crate) fn streams(self) -> Vec<StreamId> {
        let removed = |first: &Option<Version>| first.is_none_or(|first| first > Version::FIRST);
        self.firsts.into_iter().filter(|(_, first)| removed(first)).map(|(id, _)| id).collect()
    }

    /// The events that are selected and not removed.
    pub(crate) async fn filter(
        &mut self,
        events: Vec<RecordedEvent>,
        select: &Select,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            if select.matches(&event) && !self.is_removed(&event).await? {
                kept.push(event);
            }
        }
        Ok(kept)
    }

    async fn is_removed(&mut self, event: &RecordedEvent) -> Result<bool, Failure> {
        let Some(store) = &self.store else { return Ok(false) };
        let is_foreign = self.originals.as_ref().is_some_and(|originals| originals.has(event));
        if is_foreign || event.stream.is_system() {
            return Ok(false);
        }
        let first = match self.firsts.get(&event.stream) {
            Some(first) => *first,
            None => {
                let info = store.stream_info(&event.stream).await?;
                let first = match info.state {
                    StreamState::Live => Some(info.first_version.unwrap_or(info.version.plus(1))),
                    _ => None,
                };
                self.firsts.insert(event.stream.clone(), first);
                first
            }
        };
        Ok(first.is_none_or(|first| event.version < first))
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use annals::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, ReadAll};
    use futures::TryStreamExt;

    use super::*;

    /// The events of a store before and after removals stand for what such a store shows.
    #[tokio::test]
    async fn removed_events_are_left_out() {
        let store = annals::connect("memory:").await.unwrap();
        for stream in ["live-1", "truncated-1", "emptied-1", "deleted-1", "revived-1", "closed-1"] {
            let events = (0..4).map(|n| NewEvent::json("Numbered", &n).unwrap());
            store.append_to(stream, ExpectedVersion::Any, events).await.unwrap();
        }
        let before: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
        let id = |text: &str| StreamId::new(text).unwrap();
        store.truncate(&id("truncated-1"), Version::new(3)).await.unwrap();
        store.truncate(&id("emptied-1"), Version::new(9)).await.unwrap();
        store.delete(&id("deleted-1"), ExpectedVersion::Any).await.unwrap();
        store.delete(&id("revived-1"), ExpectedVersion::Any).await.unwrap();
        let again = NewEvent::json("Numbered", &5).unwrap();
        store.append_to("revived-1", ExpectedVersion::Any, [again]).await.unwrap();
        store.tombstone(&id("closed-1"), ExpectedVersion::Any).await.unwrap();
        let after: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();

        let shown: Vec<_> = before.into_iter().chain(after.iter().skip(6).cloned()).collect();
        let mut not_removed =
            NotRemoved { store: Some(store), firsts: HashMap::new(), originals: None };
        let kept = not_removed.filter(shown, &Select::default()).await.unwrap();
        assert_eq!(kept, after);
    }
}
