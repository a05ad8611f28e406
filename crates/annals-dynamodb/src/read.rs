//! Reading one stream, a page at a time.

use std::{collections::VecDeque, sync::Arc};

use annals_core::{
    Direction, Position, ReadStream, RecordedEvent, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use futures::future::try_join;

use crate::{
    codec,
    error::corrupt,
    head::Head,
    item::{EventsItem, Item, Key, RemovalProgress, StreamItem, sort},
    shared::Shared,
    table::KeyRange,
    visibility::VisibilityWait,
};

/// About how many bytes of events a page has at most, unpacked.
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;

/// The events of a stream. Each item begins at the version after the end of the one before, so that
/// a missing item is noticed.
pub(crate) struct StreamPages {
    shared: Arc<Shared>,
    stream: StreamId,
    backwards: bool,
    /// The version to begin with.
    from: u64,
    /// How many more events to return.
    left: u64,
    /// The first version that was not removed, once it is known.
    kept_from: Option<u64>,
    /// Items that were read, whose events were not returned yet.
    read: VecDeque<EventsItem>,
    /// The version at which the next item begins; backwards, the version before which it ends.
    /// `None` before anything was read.
    edge: Option<u64>,
    /// The last version of the last append of which an item was read.
    append_last: u64,
    /// Whether all items that there are have been read.
    done: bool,
    /// The version at which an item that is not visible begins.
    gap: u64,
    /// Set while an item that must exist is not visible.
    missing: Option<VisibilityWait>,
    /// The position of the last event that was returned.
    position: Position,
    /// Whether events that are appended after the last page are wanted, too.
    follows: bool,
}

impl StreamPages {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, options: ReadStream) -> Self {
        let backwards = options.direction == Direction::Backwards;
        let default = if backwards { u64::MAX } else { 1 };
        Self {
            shared,
            stream,
            backwards,
            from: options.from.map_or(default, |version| version.get().max(u64::from(!backwards))),
            left: options.limit.unwrap_or(u64::MAX),
            kept_from: None,
            read: VecDeque::new(),
            edge: None,
            append_last: 0,
            done: false,
            gap: 1,
            missing: None,
            position: Position::START,
            follows: false,
        }
    }

    /// Pages for a subscription that begins at this position: each call looks for new events.
    pub(crate) fn following(mut self, position: Position) -> Self {
        (self.position, self.follows) = (position, true);
        self
    }

    /// Reads more items, or waits for one that is not visible yet.
    async fn fetch(&mut self) -> Result<()> {
        let before = (self.edge, self.kept_from);
        if self.backwards {
            self.fetch_backwards().await?;
        } else if self.kept_from.is_none() && self.from > 1 {
            let removal = Key::removal(&self.stream);
            let shared = self.shared.clone();
            let removal = shared.table.get(&removal);
            let (removal, ()) = try_join(removal, self.locate(self.from)).await?;
            self.kept_from = Some(RemovalProgress::of(removal.as_ref())?.kept_from);
        } else {
            self.fetch_forwards().await?;
        }
        if self.done || before != (self.edge, self.kept_from) {
            self.missing = None;
        } else if !self.look_again().await? {
            let message = format!("the item at version {} is missing", self.gap);
            return Err(corrupt(message).with_stream(&self.stream));
        }
        Ok(())
    }

    /// Waits before the missing item is looked for again. Returns false if it does not come.
    async fn look_again(&mut self) -> Result<bool> {
        let missing = Key::events(&self.stream, self.gap);
        let wait = self.missing.get_or_insert_with(VisibilityWait::new);
        wait.look_again(&self.shared.table, &[missing]).await
    }

    async fn fetch_forwards(&mut self) -> Result<()> {
        let mut next = self.edge.unwrap_or(1);
        // The item with the removal progress stands in front of the events.
        let from = if self.kept_from.is_none() { 0 } else { sort(next) };
        let range = KeyRange::new(Key::stream_partition(&self.stream), from, i64::MAX);
        let page = self.shared.table.query(&range.with_limit(self.item_limit())).await?;
        let mut items = page.items.as_slice();
        if self.kept_from.is_none() {
            let removal = items.split_first().filter(|(item, _)| is_removal(item));
            self.kept_from = Some(RemovalProgress::of(removal.map(|(item, _)| item))?.kept_from);
            items = removal.map_or(items, |(_, events)| events);
        }
        let mut whole = true;
        for item in items {
            match StreamItem::of(item)? {
                StreamItem::Events(events) if events.first == next => {
                    next = events.last + 1;
                    self.push(events);
                }
                // An append after the deletion replaces the marker, so that `next` stays.
                StreamItem::Marker(marker) if marker.at == next => {}
                _ => {
                    whole = false;
                    break;
                }
            }
        }
        self.edge = Some(next);
        self.gap = next;
        self.done = page.more_after.is_none() && whole && next > self.append_last;
        // Skip removed events: there may be many.
        if let Some(kept_from) = self.kept_from
            && kept_from > next
            && !self.done
        {
            self.read.clear();
            self.locate(kept_from).await?;
        }
        Ok(())
    }

    /// How many items to read for the events that are left: one more, because one of the items may
    /// be a marker or the removal progress.
    fn item_limit(&self) -> Option<u64> {
        Some(self.left.saturating_add(1)).filter(|limit| *limit < 1_000)
    }

    /// Reads the item that has a version, to go on after it.
    async fn locate(&mut self, version: u64) -> Result<()> {
        match self.shared.item_at(&self.stream, version).await? {
            Some(StreamItem::Events(events)) => {
                self.edge = Some(events.last + 1);
                self.push(events);
            }
            Some(StreamItem::Marker(marker)) => self.edge = Some(marker.at),
            None => self.edge = Some(1),
        }
        Ok(())
    }

    async fn fetch_backwards(&mut self) -> Result<()> {
        let to = self.edge.map_or(self.from, |edge| edge - 1);
        let range = KeyRange::new(Key::stream_partition(&self.stream), 1, sort(to)).backwards();
        let range = range.with_limit(self.item_limit());
        let shared = self.shared.clone();
        let kept_from = async {
            match self.kept_from {
                Some(kept_from) => Ok(kept_from),
                None => {
                    let removal = shared.table.get(&Key::removal(&self.stream)).await?;
                    RemovalProgress::of(removal.as_ref()).map(|removal| removal.kept_from)
                }
            }
        };
        let (kept_from, page) = try_join(kept_from, shared.table.query(&range)).await?;
        self.kept_from = Some(kept_from);
        let mut whole = true;
        for item in &page.items {
            match (StreamItem::of(item)?, self.edge) {
                (StreamItem::Events(events), edge) if ends_at(&events, edge, self.from) => {
                    self.edge = Some(events.first);
                    self.push(events);
                }
                (StreamItem::Marker(marker), None) => self.edge = Some(marker.at),
                (item, _) => {
                    if let StreamItem::Events(events) = item {
                        self.gap = events.last + 1;
                    }
                    whole = false;
                    break;
                }
            }
        }
        let reached = self.edge.is_none_or(|edge| edge <= kept_from.max(1));
        self.done = reached && whole;
        Ok(())
    }

    fn push(&mut self, events: EventsItem) {
        self.append_last = self.append_last.max(events.append_last);
        self.read.push_back(events);
    }

    /// The events of an item that the caller wants, in the order of the read.
    fn wanted(&mut self, item: &EventsItem) -> Result<Vec<RecordedEvent>> {
        let Some(body) = &item.body else { return Ok(Vec::new()) };
        let position = item.position_of(item.kept_from);
        let mut events = codec::unpack(&self.stream, item.kept_from, position, body)?;
        if events.last().map(|event| event.version.get()) != Some(item.last) {
            let message = format!("the item at version {} has too few or many events", item.first);
            return Err(corrupt(message).with_stream(&self.stream));
        }
        if item.last == item.append_last {
            let last_id = events.last().map(|event| event.id);
            self.shared.heads.learn(&self.stream, Head::of(item, last_id));
        }
        let kept_from = self.kept_from.unwrap_or(1);
        if self.backwards {
            events.retain(|event| (kept_from..=self.from).contains(&event.version.get()));
            events.reverse();
        } else {
            events.retain(|event| event.version.get() >= kept_from.max(self.from));
        }
        events.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        Ok(events)
    }
}

/// Whether an item of a stream is the one with the removal progress.
fn is_removal(item: &Item) -> bool {
    Key::of(item).is_ok_and(|key| key.sort == 0)
}

/// Whether an item is the next one backwards. The first of all must be the end of an append, unless
/// the read begins before that end.
fn ends_at(item: &EventsItem, edge: Option<u64>, from: u64) -> bool {
    match edge {
        Some(edge) => item.last + 1 == edge,
        None => item.last == item.append_last || item.last >= from,
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        if self.follows {
            self.done = false;
        }
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut size = 0;
        while self.left > 0 && size < PAGE_BYTES {
            let Some(item) = self.read.pop_front() else {
                // Return the events at hand before reading more.
                if self.done || !events.is_empty() {
                    break;
                }
                self.fetch().await?;
                continue;
            };
            let wanted = self.wanted(&item)?;
            self.left -= wanted.len() as u64;
            size += wanted.iter().map(|e| e.data.len() + e.metadata.len()).sum::<usize>();
            events.extend(wanted);
        }
        if let Some(last) = events.last() {
            self.position = last.position;
        }
        let more = self.left > 0 && !(self.done && self.read.is_empty());
        Ok(Page { events, considered: self.position, more })
    }
}

impl Shared {
    /// The last item of a stream that begins at a version or before it.
    async fn item_at(&self, stream: &StreamId, version: u64) -> Result<Option<StreamItem>> {
        let range = KeyRange::new(Key::stream_partition(stream), 1, sort(version)).backwards();
        self.table.first(range).await?.as_ref().map(StreamItem::of).transpose()
    }

    /// The version of the last event of a stream at or before a position. Without an order over all
    /// streams every event is at position 0.
    pub(crate) async fn version_at(
        &self,
        stream: &StreamId,
        position: Position,
    ) -> Result<Version> {
        let missing = |version| {
            corrupt(format!("the item of version {version} is missing")).with_stream(stream)
        };
        let last = Head::load(&self.table, stream).await?.stream.version;
        if self.log.is_none() {
            return Ok(last);
        }
        // A binary search: the version is not less than `least` and not greater than `most`.
        let (mut least, mut most) = (0, last.get());
        let mut wait = VisibilityWait::new();
        while least < most {
            let middle = least + (most - least).div_ceil(2);
            let Some(StreamItem::Events(events)) = self.item_at(stream, middle).await? else {
                return Err(missing(middle));
            };
            let Some(first) = events.position else { break };
            if events.last < middle {
                // A part of an append is not visible yet.
                let next = Key::events(stream, events.last + 1);
                if !wait.look_again(&self.table, &[next]).await? {
                    return Err(missing(middle));
                }
                continue;
            }
            if first > position.get() {
                most = events.first - 1;
            } else {
                let reached = events.first + (position.get() - first);
                if reached < events.last {
                    return Ok(Version::new(reached));
                }
                least = events.last;
            }
        }
        Ok(Version::new(least))
    }
}
