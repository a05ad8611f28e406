//! An item with events, before it is written.

use annals_core::{NewEvent, StreamId};

use crate::{
    codec,
    item::{
        Entry, EntryEvents, EventsItem, EventsSummary, Item, MOST_INLINE_BYTES, POSITIONS_PER_SLOT,
        attribute::{BODY, LAST_VERSION, POSITION},
    },
    table::{Change, Condition},
};

/// The most bytes of event types that an entry of the log lists.
const MOST_TYPES: usize = 200;

/// An item with events that is to be written.
#[derive(Debug)]
pub(crate) struct NewItem {
    pub(crate) stream: StreamId,
    pub(super) events: EventsItem,
    pub(super) condition: Condition,
    /// The position of the event before, if the stream has one.
    after: Option<u64>,
    summary: EventsSummary,
}

/// What became of the items of an append.
#[derive(Debug)]
pub(crate) enum AppendOutcome {
    /// All are written. For each stream the position of its last event, if there are positions.
    Written(Vec<Option<u64>>),
    /// None is written, because another append to one of the streams came first.
    Overtaken,
}

impl NewItem {
    /// An item that is written if its condition holds; `after` is the position of the event before
    /// its first one, and `new_events` are those in its body.
    pub(crate) fn new(
        stream: StreamId,
        events: EventsItem,
        condition: Condition,
        after: Option<u64>,
        new_events: &[NewEvent],
    ) -> Self {
        let mut types: Vec<_> = new_events.iter().map(|event| event.event_type().clone()).collect();
        types.sort_unstable();
        types.dedup();
        if types.iter().map(|t| t.as_str().len()).sum::<usize>() > MOST_TYPES {
            types.clear();
        }
        let size = new_events.iter().map(codec::packed_size).sum::<usize>() as u64;
        Self { stream, events, condition, after, summary: EventsSummary { size, types } }
    }

    /// How many events the item has.
    pub(super) fn count(&self) -> u64 {
        (self.events.last + 1).saturating_sub(self.events.first)
    }

    /// About how many bytes the item and its entry in the slot have.
    pub(super) fn size(&self) -> usize {
        /// More than the key, the versions and the entry without events have.
        const OVERHEAD: usize = 2_000;
        self.events.body.as_ref().map_or(0, Vec::len) + OVERHEAD
    }

    /// Gives the first event a position, which is that of entry `index` of a slot.
    pub(super) fn place(&mut self, position: u64, index: u64) {
        self.events.position = Some(position);
        self.events.entry_index = index;
    }

    /// The slot of the event before the first one, if the stream has one. A slot that is not after it
    /// was given out by a counter that is behind the log.
    pub(super) fn slot_before(&self) -> Option<u64> {
        self.after.map(|position| position / POSITIONS_PER_SLOT)
    }

    pub(super) fn to_item(&self) -> Item {
        self.events.to_item(&self.stream)
    }

    pub(super) fn change(&self) -> Change {
        Change::Put(self.to_item(), self.condition.clone())
    }

    pub(super) fn entry(&self) -> Entry {
        let EventsItem { first, last, .. } = self.events;
        let events = match &self.events.body {
            Some(body) if body.len() <= MOST_INLINE_BYTES => {
                EntryEvents::Inline(first, body.clone())
            }
            _ => EntryEvents::InItem(self.summary.clone()),
        };
        Entry { stream: self.stream.clone(), first, last, events }
    }

    /// Whether the item that was found at the key is this one: then an earlier try has written it,
    /// and its answer was lost. The position distinguishes it from the same events of another
    /// caller; without positions the record time in the body does.
    pub(super) fn was_written(&self, found: &Item) -> bool {
        let ours = self.to_item();
        [LAST_VERSION, POSITION, BODY].iter().all(|name| ours.get(*name) == found.get(*name))
    }
}

/// For each stream the position of the last event of its append.
pub(super) fn last_positions(items: &[NewItem]) -> Vec<Option<u64>> {
    let last_items = items.iter().filter(|item| item.events.last == item.events.append_last);
    last_items.map(|item| item.events.position_of(item.events.last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two callers may send the same events in the same microsecond: only one has written the item.
    #[test]
    fn the_same_events_at_another_position_are_of_another_caller() {
        let stream = StreamId::new("order-1").unwrap();
        let item = |position| {
            let events = EventsItem {
                first: 1,
                last: 1,
                append_last: 1,
                position: Some(position),
                entry_index: 0,
                deleted_at: 0,
                kept_from: 1,
                body: Some(vec![0]),
            };
            NewItem::new(stream.clone(), events, Condition::absent(), None, &[])
        };
        let ours = item(POSITIONS_PER_SLOT);
        assert!(ours.was_written(&ours.to_item()));
        assert!(!ours.was_written(&item(2 * POSITIONS_PER_SLOT).to_item()));
    }
}
