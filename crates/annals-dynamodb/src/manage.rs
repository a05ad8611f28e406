//! Removing events: truncation, deletion, tombstones.
//!
//! What is removed is first said to be, in one request, and from then on not read any more. Then
//! each item loses its events; what is left of it keeps its place, since who knows the version
//! before it must not be able to write there again.

use annals_core::{
    Error, ErrorKind, ExpectedVersion, Result, StreamId, StreamInfo, StreamState, Version,
};
use futures::{TryStreamExt, future::try_join, stream};
use tokio::time::{Instant, sleep};

use crate::{
    codec,
    commit::MOST_IN_LOG,
    head::Head,
    item::{Batch, Key, Marker, Removed, SLOT, StreamItem, bytes, number, sort},
    store::Shared,
    table::{Change, Condition, Range, Written},
};

/// How many items are cleaned at the same time.
const AT_ONCE: usize = 16;
/// The longest pause before a deletion that others have overtaken is tried again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

impl Shared {
    async fn removed(&self, stream: &StreamId) -> Result<Removed> {
        Removed::of(self.table.get(&Key::removed(stream)).await?.as_ref())
    }

    pub(crate) async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let (head, removed) =
            try_join(Head::load(&self.table, stream), self.removed(stream)).await?;
        self.heads.learn(stream, head);
        let first = Version::new(removed.kept_from);
        let live = head.stream.state == StreamState::Live && first <= head.stream.version;
        Ok(head.stream.info(live.then_some(first)))
    }

    pub(crate) async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let head = Head::load(&self.table, stream).await?.stream;
        match head.state {
            StreamState::Tombstoned => return Err(Error::stream_closed(stream)),
            StreamState::Live => {}
            _ => return Ok(()),
        }
        // Events that are still to come are not removed.
        let before = before.min(head.version.plus(1)).max(Version::FIRST).get();
        let condition =
            Condition::when("attribute_not_exists(f) OR f < :f", [(":f", number(before))]);
        // Refused where more has been removed before.
        self.table.update(&Key::removed(stream), "SET f = :f", &condition).await?;
        self.clean(stream, before).await
    }

    /// Deletes a stream, or closes it for ever.
    pub(crate) async fn delete(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        closed: bool,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let head = Head::load(&self.table, stream).await?;
            let after = head.stream.version.plus(1).get();
            if head.stream.state == StreamState::Tombstoned {
                // Whoever closed it may have died over the cleaning.
                self.clean(stream, after).await?;
            }
            head.stream.check(stream, expected)?;
            let exists = head.stream.state == StreamState::Live;
            if exists || closed {
                let nonce = fastrand::u64(..);
                let marker = Marker { at: after, closed, position: head.position, nonce };
                let kept_from = Condition::with([(":f", number(after))]);
                let changes = [
                    Change::Put(marker.to_item(stream), head.condition()),
                    Change::Update(Key::removed(stream), "SET f = :f".to_owned(), kept_from),
                    Change::Delete(Key::snapshot(stream)),
                ];
                let written = self.table.transact(&changes).await?;
                if let Some(Written::Refused(found)) = written.first()
                    && *found != marker.to_item(stream)
                {
                    if began.elapsed() >= self.options.retry_for {
                        let message =
                            "others kept writing to the stream for as long as it was tried";
                        return Err(Error::new(ErrorKind::Busy, message));
                    }
                    sleep(PAUSE.mul_f64(fastrand::f64())).await;
                    continue;
                }
                self.heads.forget(stream);
            }
            return self.clean(stream, after).await;
        }
    }

    /// Takes the events before a version out of the table, and says so when that is done: where it
    /// is not, whoever removes something next goes on with it.
    async fn clean(&self, stream: &StreamId, before: u64) -> Result<()> {
        let cleaned_to = self.removed(stream).await?.cleaned_to;
        if cleaned_to >= before {
            return Ok(());
        }
        let from = Range::new(Key::stream(stream), 1, sort(cleaned_to)).backwards().with_limit(1);
        let from = self.table.query(&from).await?;
        let from = from.items.first().map(Key::of).transpose()?.map_or(1, |key| key.sort);
        let mut rest = Some(Range::new(Key::stream(stream), from, sort(before) - 1));
        while let Some(range) = rest {
            let found = self.table.query(&range).await?;
            rest = range.after(&found);
            let items = found.items.iter().map(StreamItem::of).collect::<Result<Vec<_>>>()?;
            let batches = items.into_iter().filter_map(|item| match item {
                StreamItem::Events(batch) => Some(batch),
                StreamItem::Marker(_) => None,
            });
            stream::iter(batches.map(Ok))
                .try_for_each_concurrent(AT_ONCE, |batch| self.clean_batch(stream, batch, before))
                .await?;
        }
        let condition =
            Condition::when("attribute_not_exists(c) OR c < :c", [(":c", number(before))]);
        self.table.update(&Key::removed(stream), "SET c = :c", &condition).await?;
        Ok(())
    }

    async fn clean_batch(&self, stream: &StreamId, batch: Batch, before: u64) -> Result<()> {
        let Some(body) = &batch.body else { return Ok(()) };
        let kept_from = before.min(batch.last + 1);
        if kept_from <= batch.kept_from {
            return Ok(());
        }
        let left = if kept_from > batch.last {
            None
        } else {
            let gone = usize::try_from(kept_from - batch.kept_from).unwrap_or(usize::MAX);
            Some(codec::repack(body, gone)?)
        };
        // First the log: where that fails, the item is as it was, and it is tried again.
        if let (Some(log), Some(position)) = (&self.log, batch.position)
            && body.len() <= MOST_IN_LOG
        {
            let entry = format!("a[{}]", batch.entry);
            let key = Key::slot(position / SLOT, log.stripes);
            self.shorten(&key, &format!("{entry}."), kept_from, left.as_deref()).await?;
        }
        let key = Key::events(stream, batch.first);
        self.shorten(&key, "", kept_from, left.as_deref()).await
    }

    /// Replaces the events of an item, or of an entry of the log, by those that are left.
    async fn shorten(
        &self,
        key: &Key,
        path: &str,
        kept_from: u64,
        left: Option<&[u8]>,
    ) -> Result<()> {
        let mut values = vec![(":f", number(kept_from))];
        let update = match left {
            Some(left) => {
                values.push((":b", bytes(left)));
                format!("SET {path}f = :f, {path}b = :b")
            }
            None => format!("SET {path}f = :f REMOVE {path}b"),
        };
        let condition = format!(
            "attribute_exists({path}b) AND (attribute_not_exists({path}f) OR {path}f < :f)"
        );
        // Refused where somebody else has removed as much, or the log never had them.
        self.table.update(key, &update, &Condition::when(condition, values)).await?;
        Ok(())
    }
}
