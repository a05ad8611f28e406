//! Reading one stream, a page at a time.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use annals_core::{
    Direction, Position, ReadStream, RecordedEvent, Result, StreamId, Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use futures::future::try_join;
use tokio::time::sleep;

use crate::{
    codec,
    error::corrupt,
    head::Head,
    item::{Batch, Item, Key, Removed, StreamItem, sort},
    store::Shared,
    table::Range,
};

/// About how many bytes of events a page has at most, unpacked.
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;
/// How often, and after which pause, a part of a stream is looked for that has to be there: the
/// items of one append become visible one by one, for as long as its transaction takes.
pub(crate) const LOOKS: u32 = 100;
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// The events of a stream. Every item begins where the one before it ended, so that one that is
/// missing is found out.
pub(crate) struct StreamPages {
    shared: Arc<Shared>,
    stream: StreamId,
    backwards: bool,
    /// The version to begin with.
    from: u64,
    /// How many events may still be given.
    left: u64,
    /// The first version that was not removed, once it is known.
    kept_from: Option<u64>,
    /// What has been read and not been given.
    queue: VecDeque<Batch>,
    /// The version with which the next item begins; backwards, the one before which it ends. None
    /// where nothing has been read.
    edge: Option<u64>,
    /// The last version of the append of which an item was read.
    append_last: u64,
    /// Whether all that there is has been read.
    done: bool,
    looks: u32,
    /// The position of the last event that was given.
    position: Position,
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
            queue: VecDeque::new(),
            edge: None,
            append_last: 0,
            done: false,
            looks: 0,
            position: Position::START,
        }
    }

    /// What a subscription says that begins at this position.
    pub(crate) fn at(mut self, position: Position) -> Self {
        self.position = position;
        self
    }

    /// Looks again for what was not there yet.
    pub(crate) fn resume(&mut self) {
        self.done = false;
    }

    async fn fetch(&mut self) -> Result<()> {
        let before = (self.edge, self.kept_from);
        if self.backwards {
            self.fetch_backwards().await?;
        } else if self.kept_from.is_none() && self.from > 1 {
            let removed = Key::removed(&self.stream);
            let shared = self.shared.clone();
            let removed = shared.table.get(&removed);
            let (removed, ()) = try_join(removed, self.locate(self.from)).await?;
            self.kept_from = Some(Removed::of(removed.as_ref())?.kept_from);
        } else {
            self.fetch_forwards().await?;
        }
        self.looks = if before == (self.edge, self.kept_from) { self.looks + 1 } else { 0 };
        match self.looks {
            _ if self.done => self.looks = 0,
            0 => {}
            looks if looks > LOOKS => {
                let edge = self.edge.unwrap_or_default();
                let what = format!("what stands at version {edge}, or before it, is missing");
                return Err(corrupt(what).with_stream(&self.stream));
            }
            _ => sleep(LOOK).await,
        }
        Ok(())
    }

    async fn fetch_forwards(&mut self) -> Result<()> {
        let mut next = self.edge.unwrap_or(1);
        // What says what was removed stands in front of the events.
        let from = if self.kept_from.is_none() { 0 } else { sort(next) };
        let range = Range::new(Key::stream(&self.stream), from, i64::MAX);
        let limit = Some(self.left.saturating_add(1)).filter(|limit| *limit < 1_000);
        let found = self.shared.table.query(&Range { limit, ..range }).await?;
        let mut items = found.items.as_slice();
        if self.kept_from.is_none() {
            let removed = items.split_first().filter(|(item, _)| is_removed(item));
            self.kept_from = Some(Removed::of(removed.map(|(item, _)| item))?.kept_from);
            items = removed.map_or(items, |(_, events)| events);
        }
        let mut whole = true;
        for item in items {
            match StreamItem::of(item)? {
                StreamItem::Events(batch) if batch.first == next => {
                    next = batch.last + 1;
                    self.push(batch);
                }
                // An append brings the stream back in its place.
                StreamItem::Marker(marker) if marker.at == next => {}
                _ => {
                    whole = false;
                    break;
                }
            }
        }
        self.edge = Some(next);
        self.done = found.more.is_none() && whole && next > self.append_last;
        // Past what was removed, which may be long.
        if let Some(kept_from) = self.kept_from
            && kept_from > next
            && !self.done
        {
            self.queue.clear();
            self.locate(kept_from).await?;
        }
        Ok(())
    }

    /// Begins with the item in which a version is.
    async fn locate(&mut self, version: u64) -> Result<()> {
        let range = Range::new(Key::stream(&self.stream), 1, sort(version));
        let found = self.shared.table.query(&range.backwards().with_limit(1)).await?;
        match found.items.first().map(StreamItem::of).transpose()? {
            Some(StreamItem::Events(batch)) => {
                self.edge = Some(batch.last + 1);
                self.push(batch);
            }
            Some(StreamItem::Marker(marker)) => self.edge = Some(marker.at),
            None => self.edge = Some(1),
        }
        Ok(())
    }

    async fn fetch_backwards(&mut self) -> Result<()> {
        let to = self.edge.map_or(self.from, |edge| edge - 1);
        let mut range = Range::new(Key::stream(&self.stream), 1, sort(to)).backwards();
        // One more, since the first may be a marker.
        range.limit = Some(self.left.saturating_add(1)).filter(|limit| *limit < 1_000);
        let shared = self.shared.clone();
        let removed = async {
            match self.kept_from {
                Some(kept_from) => Ok(kept_from),
                None => {
                    let removed = shared.table.get(&Key::removed(&self.stream)).await?;
                    Removed::of(removed.as_ref()).map(|removed| removed.kept_from)
                }
            }
        };
        let (kept_from, found) = try_join(removed, shared.table.query(&range)).await?;
        self.kept_from = Some(kept_from);
        let mut whole = true;
        for item in &found.items {
            match (StreamItem::of(item)?, self.edge) {
                (StreamItem::Events(batch), edge) if ends_at(&batch, edge, self.from) => {
                    self.edge = Some(batch.first);
                    self.push(batch);
                }
                (StreamItem::Marker(marker), None) => self.edge = Some(marker.at),
                _ => {
                    whole = false;
                    break;
                }
            }
        }
        let begun = self.edge.is_none_or(|edge| edge <= kept_from.max(1));
        self.done = begun && whole;
        Ok(())
    }

    fn push(&mut self, batch: Batch) {
        self.append_last = self.append_last.max(batch.append_last);
        self.queue.push_back(batch);
    }

    /// The events of an item that are wanted, in order.
    fn wanted(&mut self, batch: &Batch) -> Result<Vec<RecordedEvent>> {
        let Some(body) = &batch.body else { return Ok(Vec::new()) };
        let position = batch.position_of(batch.kept_from);
        let mut events = codec::unpack(&self.stream, batch.kept_from, position, body)?;
        if events.last().map(|event| event.version.get()) != Some(batch.last) {
            let what = format!("another number of events than it says at {}", batch.first);
            return Err(corrupt(what).with_stream(&self.stream));
        }
        if batch.last == batch.append_last {
            let last_id = events.last().map(|event| event.id);
            self.shared.heads.learn(&self.stream, Head::of(batch, last_id));
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

/// Whether it is what was removed of a stream.
fn is_removed(item: &Item) -> bool {
    Key::of(item).is_ok_and(|key| key.sort == 0)
}

/// Whether an item is the next one backwards. The first of all is the end of an append, unless it
/// was asked for something before that.
fn ends_at(batch: &Batch, edge: Option<u64>, from: u64) -> bool {
    match edge {
        Some(edge) => batch.last + 1 == edge,
        None => batch.last == batch.append_last || batch.last >= from,
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut size = 0;
        while self.left > 0 && size < PAGE_BYTES {
            let Some(batch) = self.queue.pop_front() else {
                // What there is, is given before more is read.
                if self.done || !events.is_empty() {
                    break;
                }
                self.fetch().await?;
                continue;
            };
            let wanted = self.wanted(&batch)?;
            self.left -= wanted.len() as u64;
            size += wanted.iter().map(|e| e.data.len() + e.metadata.len()).sum::<usize>();
            events.extend(wanted);
        }
        if let Some(last) = events.last() {
            self.position = last.position;
        }
        let more = self.left > 0 && !(self.done && self.queue.is_empty());
        Ok(Page { events, considered: self.position, more })
    }
}

/// The version that a stream had at a position: of its last event that is not beyond it.
pub(crate) async fn version_at(
    shared: &Shared,
    stream: &StreamId,
    position: Position,
) -> Result<Version> {
    let (mut least, mut most) = (0, Head::load(&shared.table, stream).await?.stream.version.get());
    let mut looks = 0;
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        let range = Range::new(Key::stream(stream), 1, sort(middle));
        let found = shared.table.query(&range.backwards().with_limit(1)).await?;
        let Some(StreamItem::Events(batch)) =
            found.items.first().map(StreamItem::of).transpose()?
        else {
            return Err(corrupt(format!("version {middle} is missing")).with_stream(stream));
        };
        let Some(first) = batch.position else { break };
        if batch.last < middle {
            // A part of an append that is not to be seen yet.
            looks += 1;
            if looks > LOOKS {
                return Err(corrupt(format!("version {middle} is missing")).with_stream(stream));
            }
            sleep(LOOK).await;
            continue;
        }
        if first > position.get() {
            most = batch.first - 1;
        } else {
            let reached = batch.first + (position.get() - first);
            if reached < batch.last {
                return Ok(Version::new(reached));
            }
            least = batch.last;
        }
    }
    Ok(Version::new(least))
}
