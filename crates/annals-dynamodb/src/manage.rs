//! Removing events: truncation, deletion, tombstones.
//!
//! A removal is first recorded in one request; from then on nobody reads the removed events. Then
//! each item loses its events, and keeps its key: a writer that knows the version before must find
//! that it cannot write there again. A note stands in the table meanwhile: whoever opens the store
//! after a process has died in between finishes its removal.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Error, ErrorKind, ExpectedVersion, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::Backoff,
};
use futures::{TryStreamExt, stream};
use tokio::time::{Instant, sleep};

use crate::{
    codec,
    error::corrupt,
    head::Head,
    item::{
        EventsItem, Item, Key, MOST_INLINE_BYTES, Marker, POSITIONS_PER_SLOT, RemovalProgress,
        StreamItem,
        attribute::{BODY, CLEANED_TO, DELETED_AT, ENTRIES, KEPT_FROM, STREAM},
        bytes, get_text, number, sort, text,
    },
    shared::Shared,
    table::{Change, Condition, KeyRange, WriteOutcome},
};

/// How many items are cleaned at the same time.
const CONCURRENT_ITEMS: usize = 16;
/// The first and the longest pause before a deletion that others have overtaken is tried again.
const OVERTAKEN_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// Runs a removal in a task of its own: a read of all would find some of the removed events if it ended
/// half-way because the caller has dropped the future.
async fn to_its_end(removal: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let ended = tokio::spawn(removal).await;
    ended.map_err(|e| Error::new(ErrorKind::Internal, "a removal failed").with_source(e))?
}

/// The note of a removal: its key and its item.
fn note(stream: &StreamId) -> (Key, Item) {
    let key = Key::unfinished(fastrand::u64(..) >> 1);
    let mut item = key.to_item();
    item.insert(STREAM.to_owned(), text(stream.as_str()));
    (key, item)
}

impl Shared {
    async fn removal(&self, stream: &StreamId) -> Result<RemovalProgress> {
        RemovalProgress::of(self.table.get(&Key::removal(stream)).await?.as_ref())
    }

    pub(crate) async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        // A removal between the two reads would give an answer that no moment explains: what is removed
        // has to be the same before and after the read of the head.
        let mut removal = self.removal(stream).await?;
        let head = loop {
            let head = Head::load(&self.table, stream).await?;
            let before = std::mem::replace(&mut removal, self.removal(stream).await?);
            if before.kept_from == removal.kept_from {
                break head;
            }
        };
        self.heads.learn(stream, head);
        let first = Version::new(removal.kept_from);
        let has_events = head.stream.state == StreamState::Live && first <= head.stream.version;
        Ok(head.stream.info(has_events.then_some(first)))
    }

    pub(crate) async fn truncate(
        self: &Arc<Self>,
        stream: &StreamId,
        before: Version,
    ) -> Result<()> {
        let (shared, stream) = (self.clone(), stream.clone());
        to_its_end(async move { shared.truncate_now(&stream, before).await }).await
    }

    async fn truncate_now(&self, stream: &StreamId, before: Version) -> Result<()> {
        let head = Head::load(&self.table, stream).await?.stream;
        match head.state {
            StreamState::Tombstoned => return Err(Error::stream_closed(stream)),
            StreamState::Live => {}
            _ => return Ok(()),
        }
        // Only events that exist now are removed.
        let before = before.min(head.version.plus(1)).max(Version::FIRST).get();
        let (note, item) = note(stream);
        self.table.put(&item, &Condition::ALWAYS).await?;
        // If more was removed before, the value is not raised, and there may be more to clean.
        self.table.raise(&Key::removal(stream), KEPT_FROM, before).await?;
        self.clean(stream, before).await?;
        self.table.delete(&note).await
    }

    /// Deletes a stream, or tombstones it if it is to be closed.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        stream: &StreamId,
        expected: ExpectedVersion,
        closed: bool,
    ) -> Result<()> {
        let (shared, stream) = (self.clone(), stream.clone());
        to_its_end(async move { shared.delete_now(&stream, expected, closed).await }).await
    }

    async fn delete_now(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        closed: bool,
    ) -> Result<()> {
        let began = Instant::now();
        let mut backoff = Backoff::new(OVERTAKEN_PAUSE.0, OVERTAKEN_PAUSE.1);
        loop {
            let head = Head::load(&self.table, stream).await?;
            let after = head.stream.version.plus(1).get();
            if head.stream.state == StreamState::Tombstoned {
                // The process that closed the stream may have died before it had cleaned all.
                self.clean(stream, after).await?;
            }
            head.stream.check(stream, expected)?;
            let exists = head.stream.state == StreamState::Live;
            if exists || closed {
                let nonce = fastrand::u64(..);
                let marker = Marker { at: after, closed, position: head.position, nonce };
                // A snapshot of a closed stream is not kept, whatever its version.
                let deleted_at = if closed { u64::MAX } else { after - 1 };
                let values = [(":value", number(after)), (":deleted", number(deleted_at))];
                let (note, item) = note(stream);
                let changes = [
                    Change::Put(marker.to_item(stream), head.condition()),
                    Change::Update(
                        Key::removal(stream),
                        format!("SET {KEPT_FROM} = :value, {DELETED_AT} = :deleted"),
                        Condition::values_only(values),
                    ),
                    Change::Delete(Key::snapshot(stream)),
                    Change::Put(item, Condition::ALWAYS),
                ];
                let outcomes = self.table.transact(&changes).await?;
                if let Some(WriteOutcome::Refused(found)) = outcomes.first()
                    && *found != marker.to_item(stream)
                {
                    if began.elapsed() >= self.options.retry_for {
                        let message = "other writes to the stream came first for as long as this \
                                       removal was tried; try again";
                        return Err(Error::new(ErrorKind::Busy, message));
                    }
                    sleep(backoff.next_pause()).await;
                    continue;
                }
                self.heads.forget(stream);
                self.clean(stream, after).await?;
                return self.table.delete(&note).await;
            }
            return self.clean(stream, after).await;
        }
    }

    /// Finishes the removals whose processes have died, and helps those that are under way.
    pub(crate) async fn finish_removals(&self) -> Result<()> {
        let notes = KeyRange::new(Key::UNFINISHED.to_owned(), 0, i64::MAX);
        for item in self.table.query_all(notes).await? {
            let stream = get_text(&item, STREAM).and_then(|stream| StreamId::new(stream).ok());
            let stream = stream.ok_or_else(|| corrupt("the note of a removal has no stream"))?;
            tracing::info!(stream = stream.as_str(), "finishing a removal that was interrupted");
            self.clean(&stream, self.removal(&stream).await?.kept_from).await?;
            self.table.delete(&Key::of(&item)?).await?;
        }
        Ok(())
    }

    /// Removes the events before a version from the items, and records when that is done. If it is
    /// interrupted, the next removal goes on with it.
    async fn clean(&self, stream: &StreamId, before: u64) -> Result<()> {
        let cleaned_to = self.removal(stream).await?.cleaned_to;
        if cleaned_to >= before {
            return Ok(());
        }
        let partition = Key::stream_partition(stream);
        let first = KeyRange::new(partition.clone(), 1, sort(cleaned_to)).backwards();
        let first = self.table.first(first).await?.as_ref().map(Key::of).transpose()?;
        let first = first.map_or(1, |key| key.sort);
        let mut rest = Some(KeyRange::new(partition, first, sort(before) - 1));
        while let Some(range) = rest {
            let page = self.table.query(&range).await?;
            rest = range.after(&page);
            let items = page.items.iter().map(StreamItem::of).collect::<Result<Vec<_>>>()?;
            let items = items.into_iter().filter_map(|item| match item {
                StreamItem::Events(events) => Some(Ok(events)),
                StreamItem::Marker(_) => None,
            });
            stream::iter(items)
                .try_for_each_concurrent(CONCURRENT_ITEMS, |item| {
                    self.clean_item(stream, item, before)
                })
                .await?;
        }
        self.table.raise(&Key::removal(stream), CLEANED_TO, before).await?;
        Ok(())
    }

    /// Removes the events before a version from one item, and from its entry in the log.
    async fn clean_item(&self, stream: &StreamId, item: EventsItem, before: u64) -> Result<()> {
        let Some(body) = &item.body else { return Ok(()) };
        let kept_from = before.min(item.last + 1);
        if kept_from <= item.kept_from {
            return Ok(());
        }
        let left = if kept_from > item.last {
            None
        } else {
            let gone = usize::try_from(kept_from - item.kept_from).unwrap_or(usize::MAX);
            Some(codec::repack(body, gone)?)
        };
        // The log has the events if they were short when they were written. Of an item that was
        // shortened since, only the log knows that.
        let may_be_in_log = body.len() <= MOST_INLINE_BYTES || item.kept_from > item.first;
        // First the log: if that fails, the item still has its events, and the next removal finds
        // both.
        if let (Some(log), Some(position)) = (&self.log, item.position)
            && may_be_in_log
        {
            let entry = format!("{ENTRIES}[{}].", item.entry_index);
            let key = Key::slot(position / POSITIONS_PER_SLOT, log.stripes);
            self.shorten(&key, &entry, kept_from, left.as_deref()).await?;
            log.removed();
        }
        let key = Key::events(stream, item.first);
        self.shorten(&key, "", kept_from, left.as_deref()).await
    }

    /// Replaces the events of an item, or of an entry of a slot, by those that are left. `path` is
    /// that of the entry, and empty for an item.
    async fn shorten(
        &self,
        key: &Key,
        path: &str,
        kept_from: u64,
        left: Option<&[u8]>,
    ) -> Result<()> {
        let (kept, body) = (format!("{path}{KEPT_FROM}"), format!("{path}{BODY}"));
        let mut values = vec![(":kept", number(kept_from))];
        let update = match left {
            Some(left) => {
                values.push((":body", bytes(left)));
                format!("SET {kept} = :kept, {body} = :body")
            }
            None => format!("SET {kept} = :kept REMOVE {body}"),
        };
        let condition = format!(
            "attribute_exists({body}) AND (attribute_not_exists({kept}) OR {kept} < :kept)"
        );
        // Refused if another removal has removed as much, or if the log never had the events.
        self.table.update(key, &update, &Condition::when(condition, values)).await?;
        Ok(())
    }
}
