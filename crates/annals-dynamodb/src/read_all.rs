//! Reading all streams, a page at a time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use annals_core::{
    Direction, EventType, Filter, Position, ReadAll, RecordedEvent, Result, StreamId,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::{
    codec,
    error::corrupt,
    item::{
        Entry, EntryEvents, EventsItem, EventsSummary, Item, Key, POSITIONS_PER_SLOT, Slot,
        StreamItem, last_position_of, slot_of,
    },
    log::SlotReader,
    read::PAGE_BYTES,
    shared::Shared,
    visibility::VisibilityWait,
};

/// The events of all streams that a filter lets through.
pub(crate) struct AllPages {
    shared: Arc<Shared>,
    filter: Filter,
    from: Option<Position>,
    backwards: bool,
    /// Whether a subscription reads: it may get events that were removed a moment ago.
    follows: bool,
    /// How many more events to return.
    left: u64,
    /// Forwards: reads the slots, once the first page was asked for.
    slots: Option<SlotReader>,
    /// Backwards: slots that were read and not looked at yet.
    read: VecDeque<(u64, Slot)>,
    /// Backwards: how many slots to read next.
    window: u64,
    /// The slot after the last one that was looked at; backwards, the first slot that was read.
    edge: u64,
    /// How many events were looked at, wanted or not.
    looked_at: u64,
    /// The greatest position of an event that was looked at, wanted or not.
    last_looked_at: Position,
    /// Entries that were looked at and not returned yet. If a request fails, the next page begins
    /// with them.
    pending: Vec<WantedEntry>,
}

/// An entry of the log that has events which the caller may want.
struct WantedEntry {
    stream: StreamId,
    first: u64,
    last: u64,
    /// The position of the first event.
    position: u64,
    /// The events if the log has them: from this version on, packed.
    inline: Option<(u64, Vec<u8>)>,
}

impl AllPages {
    pub(crate) fn new(shared: Arc<Shared>, options: ReadAll) -> Self {
        let ReadAll { filter, from, direction, limit, .. } = options;
        Self {
            shared,
            filter,
            from,
            backwards: direction == Direction::Backwards,
            follows: false,
            left: limit.unwrap_or(u64::MAX),
            slots: None,
            read: VecDeque::new(),
            window: 0,
            edge: 0,
            looked_at: 0,
            last_looked_at: Position::START,
            pending: Vec::new(),
        }
    }

    /// Pages for a subscription.
    pub(crate) fn following(mut self) -> Self {
        self.follows = true;
        self
    }

    /// Reads on up to this slot.
    pub(crate) fn extend(&mut self, to: u64) {
        if let Some(slots) = &mut self.slots {
            slots.extend(to);
        }
    }

    /// How many events were looked at, wanted or not.
    pub(crate) fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// The greatest position of an event that was looked at, wanted or not.
    pub(crate) fn last_looked_at(&self) -> Position {
        self.last_looked_at
    }

    /// True if a slot has been allocated whose write was not yet visible at the last look.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.slots.as_ref().is_some_and(SlotReader::has_unwritten)
    }

    /// The next slot, in the direction of the read.
    async fn next_slot(&mut self) -> Result<Option<(u64, Slot)>> {
        if self.backwards {
            return self.previous_slot().await;
        }
        let slots = match &mut self.slots {
            Some(slots) => slots,
            None => {
                let log = self.shared.log()?;
                // The slot of the position may have events after it.
                let from = self.from.map_or(1, slot_of).max(1);
                let to = log.last_allocated().await?;
                let mut slots = SlotReader::new(log.clone(), from, to, self.left);
                if self.follows {
                    slots = slots.following();
                    // For a few slots, to ask what is settled would cost more than it saves.
                    if !log.is_short(from, to) {
                        log.learn_settled().await?;
                    }
                }
                self.slots.insert(slots)
            }
        };
        let slot = slots.next().await?;
        self.edge = slots.next;
        Ok(slot)
    }

    async fn previous_slot(&mut self) -> Result<Option<(u64, Slot)>> {
        let log = self.shared.log()?;
        if self.edge == 0 {
            let to = self.from.map_or(u64::MAX, |position| slot_of(position.minus(1)));
            // Appends under way may still get positions below the last event. After the log is
            // settled they cannot.
            let settled = log.settle(to).await?;
            self.edge = settled.last + 1 - settled.read.len() as u64;
            self.read = settled.read.into_iter().rev().collect();
        }
        while self.read.is_empty() && self.edge > 1 {
            self.window = log.window(self.left.max(self.window * 2));
            let (from, to) = (self.edge.saturating_sub(self.window).max(1), self.edge - 1);
            self.read = log.read(from, to).await?.into_iter().rev().collect();
            self.edge = from;
        }
        Ok(self.read.pop_front())
    }

    /// The entries of a slot that may have wanted events, in the order of the read, each with the
    /// size of its events.
    fn wanted(&mut self, number: u64, slot: Slot) -> Vec<(WantedEntry, u64)> {
        let mut position = number * POSITIONS_PER_SLOT;
        let mut all = Vec::new();
        for entry in slot.into_entries() {
            let count = entry.count();
            let first_position = position;
            position += count;
            self.looked_at += count;
            self.last_looked_at =
                self.last_looked_at.max(Position::new(position.saturating_sub(1)));
            let Entry { stream, first, last, events } = entry;
            let outside = match self.from {
                Some(from) if self.backwards => first_position >= from.get(),
                Some(from) => first_position + count - 1 <= from.get(),
                None => false,
            };
            let may_match = |types: &[EventType]| {
                types.is_empty()
                    || self.filter.event_types.is_empty()
                    || types.iter().any(|t| self.filter.event_types.contains(t))
            };
            let (inline, size) = match events {
                EntryEvents::Inline(from, body) => {
                    let size = body.len() as u64;
                    (Some((from, body)), size)
                }
                EntryEvents::InItem(EventsSummary { size, types }) if may_match(&types) => {
                    (None, size)
                }
                _ => continue,
            };
            if !outside && self.filter.matches_stream(&stream) {
                let wanted = WantedEntry { stream, first, last, position: first_position, inline };
                all.push((wanted, size));
            }
        }
        if self.backwards {
            all.reverse();
        }
        all
    }

    /// Reads the items of entries whose events the log does not have.
    async fn fetch(&self, entries: &[WantedEntry]) -> Result<HashMap<Key, Item>> {
        let in_items = entries.iter().filter(|entry| entry.inline.is_none());
        let mut missing: Vec<_> =
            in_items.map(|entry| Key::events(&entry.stream, entry.first)).collect();
        let mut found = HashMap::new();
        let mut wait = VisibilityWait::new();
        loop {
            found.extend(self.shared.table.get_all(&missing).await?);
            missing.retain(|key| !found.contains_key(key));
            // A slot may become visible before the items of its transaction.
            if missing.is_empty() || !wait.look_again(&self.shared.table, &missing).await? {
                return Ok(found);
            }
        }
    }

    /// The events of the pending entries.
    async fn load(&mut self) -> Result<Vec<RecordedEvent>> {
        let found = self.fetch(&self.pending).await?;
        let entries = std::mem::take(&mut self.pending);
        let mut events = Vec::new();
        for WantedEntry { stream, first, last, position, inline } in entries {
            let (from, body) = match inline {
                Some(inline) => inline,
                None => {
                    let missing = || {
                        let what = format!("the log has version {first}, and the stream does not");
                        corrupt(what).with_stream(&stream)
                    };
                    let item = found.get(&Key::events(&stream, first)).ok_or_else(missing)?;
                    match StreamItem::of(item)? {
                        StreamItem::Events(EventsItem { kept_from, body: Some(body), .. }) => {
                            (kept_from, body)
                        }
                        // The events were removed after they were written.
                        _ => continue,
                    }
                }
            };
            let position = position + (from - first);
            let mut some = codec::unpack(&stream, from, Some(position), &body)?;
            if some.last().map(|event| event.version.get()) != Some(last) {
                let what = format!("the entry of version {first} has too few or many events");
                return Err(corrupt(what).with_stream(&stream));
            }
            if self.backwards {
                some.reverse();
            }
            events.extend(some.into_iter().filter(|event| self.is_wanted(event)));
        }
        Ok(events)
    }

    fn is_wanted(&self, event: &RecordedEvent) -> bool {
        let within = match self.from {
            Some(from) if self.backwards => event.position < from,
            Some(from) => event.position > from,
            None => true,
        };
        within && self.filter.matches(&event.stream, &event.event_type)
    }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let mut size = 0;
        let mut more = true;
        while (size as usize) < PAGE_BYTES && (self.pending.len() as u64) < self.left {
            let Some((number, slot)) = self.next_slot().await? else {
                more = false;
                break;
            };
            for (entry, bytes) in self.wanted(number, slot) {
                size += bytes;
                self.pending.push(entry);
            }
        }
        let mut events = self.load().await?;
        events.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= events.len() as u64;
        let considered = match self.edge {
            0 | 1 => Position::START,
            edge => last_position_of(edge - 1),
        };
        Ok(Page { events, considered, more: more && self.left > 0 })
    }
}
