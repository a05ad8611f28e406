//! Reading over all streams, a page at a time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use annals_core::{
    Direction, Filter, Position, ReadAll, RecordedEvent, Result, StreamId,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use tokio::time::sleep;

use crate::{
    codec,
    error::corrupt,
    item::{Batch, Entry, Events, Item, Key, SLOT, Slot, StreamItem, Summary, end_of, slot_of},
    log::{Log, Slots},
    read::{LOOK, LOOKS, PAGE_BYTES},
    store::Shared,
};

/// The events of all streams.
pub(crate) struct AllPages {
    shared: Arc<Shared>,
    log: Arc<Log>,
    filter: Filter,
    from: Option<Position>,
    backwards: bool,
    /// How many events may still be given.
    left: u64,
    slots: Option<Slots>,
    /// What was read and not given yet, backwards.
    read: VecDeque<(u64, Slot)>,
    /// How many slots are read next, backwards.
    window: u64,
    /// The slot after those that are given; backwards, before.
    edge: u64,
    /// How many events were gone past, wanted or not.
    passed: u64,
    /// What was gone past and not given yet: where a request fails, the next page begins with it.
    pending: Vec<Wanted>,
}

/// Events that are wanted, and where they are.
struct Wanted {
    stream: StreamId,
    first: u64,
    last: u64,
    /// Of the first.
    position: u64,
    here: Option<(u64, Vec<u8>)>,
}

impl AllPages {
    pub(crate) fn new(shared: Arc<Shared>, log: Arc<Log>, options: ReadAll) -> Self {
        let ReadAll { filter, from, direction, limit, .. } = options;
        Self {
            shared,
            log,
            filter,
            from,
            backwards: direction == Direction::Backwards,
            left: limit.unwrap_or(u64::MAX),
            slots: None,
            read: VecDeque::new(),
            window: 0,
            edge: 0,
            passed: 0,
            pending: Vec::new(),
        }
    }

    /// Reads on up to that slot.
    pub(crate) fn extend(&mut self, to: u64) {
        if let Some(slots) = &mut self.slots {
            slots.extend(to);
        }
    }

    /// How many events were gone past, wanted or not.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether a slot was given out that was not written when it was last looked.
    pub(crate) fn awaits(&self) -> bool {
        self.slots.as_ref().is_some_and(Slots::awaits)
    }

    /// The next slot, in the direction of the read.
    async fn next_slot(&mut self) -> Result<Option<(u64, Slot)>> {
        if self.backwards {
            return self.slot_before().await;
        }
        let slots = match &mut self.slots {
            Some(slots) => slots,
            None => {
                // Begins in the slot of the position, since some of it may be behind that.
                let from = self.from.map_or(1, slot_of).max(1);
                let to = self.log.allocated().await?;
                self.slots.insert(Slots::few(self.log.clone(), from, to, self.left))
            }
        };
        let found = slots.next().await?;
        self.edge = slots.next;
        Ok(found)
    }

    async fn slot_before(&mut self) -> Result<Option<(u64, Slot)>> {
        if self.edge == 0 {
            let to = self.from.map_or(u64::MAX, |position| slot_of(position.minus(1)));
            // What is in flight may still come below the last event: not after this.
            self.edge = self.log.settle(to.min(self.log.allocated().await?)).await? + 1;
        }
        while self.read.is_empty() && self.edge > 1 {
            self.window = self.log.window(self.left.max(self.window * 2));
            let (from, to) = (self.edge.saturating_sub(self.window).max(1), self.edge - 1);
            self.read = self.log.slots(from, to).await?.into_iter().rev().collect();
            self.edge = from;
        }
        Ok(self.read.pop_front())
    }

    /// What is wanted of a slot, in the order of the read.
    fn wanted(&mut self, number: u64, slot: Slot) -> Vec<(Wanted, u64)> {
        let mut position = number * SLOT;
        let mut all = Vec::new();
        for entry in slot.into_entries() {
            let count = entry.count();
            let first = position;
            position += count;
            self.passed += count;
            let Entry { stream, first: version, last, events } = entry;
            let beyond = match self.from {
                Some(from) if self.backwards => first >= from.get(),
                Some(from) => first + count - 1 <= from.get(),
                None => false,
            };
            let types = |types: &[annals_core::EventType]| {
                types.is_empty()
                    || self.filter.event_types.is_empty()
                    || types.iter().any(|t| self.filter.event_types.contains(t))
            };
            let (here, size) = match events {
                Events::Here(from, body) => {
                    let size = body.len() as u64;
                    (Some((from, body)), size)
                }
                Events::There(Summary { size, types: listed }) if types(&listed) => (None, size),
                _ => continue,
            };
            if !beyond && self.filter.matches_stream(&stream) {
                let wanted = Wanted { stream, first: version, last, position: first, here };
                all.push((wanted, size));
            }
        }
        if self.backwards {
            all.reverse();
        }
        all
    }

    /// The items in which events are that the log only names.
    async fn fetch(&self, wanted: &[Wanted]) -> Result<HashMap<Key, Item>> {
        let there = wanted.iter().filter(|wanted| wanted.here.is_none());
        let mut missing: Vec<_> =
            there.map(|wanted| Key::events(&wanted.stream, wanted.first)).collect();
        let mut found = HashMap::new();
        for look in 0..=LOOKS {
            // A slot can be seen before the items of its transaction.
            if look > 0 {
                sleep(LOOK).await;
            }
            found.extend(self.shared.table.get_all(&missing).await?);
            missing.retain(|key| !found.contains_key(key));
            if missing.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// The events themselves.
    async fn load(&mut self) -> Result<Vec<RecordedEvent>> {
        let found = self.fetch(&self.pending).await?;
        let wanted = std::mem::take(&mut self.pending);
        let mut events = Vec::new();
        for Wanted { stream, first, last, position, here } in wanted {
            let (from, body) = match here {
                Some(here) => here,
                None => {
                    let item = found.get(&Key::events(&stream, first));
                    let missing =
                        || corrupt(format!("version {first} is in the log and not in the stream"));
                    let item = item.ok_or_else(|| missing().with_stream(&stream))?;
                    match StreamItem::of(item)? {
                        StreamItem::Events(Batch { kept_from, body: Some(body), .. }) => {
                            (kept_from, body)
                        }
                        // Removed since.
                        _ => continue,
                    }
                }
            };
            let position = position + (from - first);
            let mut some = codec::unpack(&stream, from, Some(position), &body)?;
            if some.last().map(|event| event.version.get()) != Some(last) {
                let what = format!("another number of events than it says at {first}");
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
            for (one, bytes) in self.wanted(number, slot) {
                size += bytes;
                self.pending.push(one);
            }
        }
        let mut events = self.load().await?;
        events.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= events.len() as u64;
        let considered = if self.edge <= 1 { Position::START } else { end_of(self.edge - 1) };
        Ok(Page { events, considered, more: more && self.left > 0 })
    }
}
