//! The store that each case works with: the store under test, with every answer checked against the
//! answers before. So every case checks what holds of every answer, whatever the case is about:
//!
//! * versions of a stream and positions of all go up, and a read of a stream has no gaps;
//! * an event has one version, one position and one id, whoever reads it;
//! * a read or a subscription gives what its options ask for, and nothing after an error;
//! * a subscription tells no position below one that it told before, and none beyond what the store
//!   has given: whatever is appended later is above it;
//! * an answer to an append is above everything that was known when it was called;
//! * no snapshot outlives the deletion of its stream.

mod ledger;
mod reads;

use std::sync::Arc;

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, EventStore, EventStream, ExpectedVersion,
    LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream, RecordedEvent, Result,
    Snapshot, SnapshotStore, Store, StreamId, StreamInfo, Subscribe, SubscriberId, Subscription,
    TransferStore, Version,
};
use async_trait::async_trait;

pub(crate) use self::ledger::Ledger;

#[derive(Debug)]
pub(crate) struct Watched {
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
    /// Whether the store has an order over all streams.
    ordered: bool,
}

impl Watched {
    pub(crate) fn new(store: Arc<dyn Store>, ledger: Arc<Ledger>) -> Self {
        let ordered = store.capabilities().global_order;
        Self { store, ledger, ordered }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventStore for Watched {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let appends = [append];
        let begun = self.ledger.begin_append(&appends);
        let [append] = appends.clone();
        let answer = self.store.append(append).await?;
        self.ledger.end_append(&begun, &appends, &[answer], self.ordered);
        Ok(answer)
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let begun = self.ledger.begin_append(&appends);
        let answers = self.store.append_multi(appends.clone()).await?;
        self.ledger.end_append(&begun, &appends, &answers, self.ordered);
        Ok(answers)
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let events = self.store.read_stream(stream, options.clone());
        reads::of_stream(events, self.ledger.clone(), self.ordered, stream.clone(), &options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        let events = self.store.read_all(options.clone());
        reads::of_all(events, self.ledger.clone(), self.ordered, &options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let messages = self.store.subscribe(options.clone()).await?;
        Ok(reads::of_subscription(messages, self.ledger.clone(), self.ordered, options))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let before = self.ledger.before(stream);
        let info = self.store.stream_info(stream).await?;
        before.check_info(&info);
        Ok(info)
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.ledger.begin_removal(stream);
        let truncated = self.store.truncate(stream, before).await;
        self.ledger.end_removal();
        truncated
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let before = self.ledger.begin_removal(stream);
        let deleted = self.store.delete(stream, expected).await;
        self.ledger.end_removal();
        deleted?;
        self.ledger.deleted(stream, &before, false);
        Ok(())
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let before = self.ledger.begin_removal(stream);
        let closed = self.store.tombstone(stream, expected).await;
        self.ledger.end_removal();
        closed?;
        self.ledger.deleted(stream, &before, true);
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SnapshotStore for Watched {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let before = self.ledger.before(stream);
        let snapshot = self.store.load_snapshot(stream).await?;
        snapshot.iter().for_each(|snapshot| before.check_snapshot(snapshot));
        Ok(snapshot)
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.store.save_snapshot(stream, snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.store.delete_snapshot(stream).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CheckpointStore for Watched {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.store.load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, at: Position) -> Result<Position> {
        let kept = self.store.save_checkpoint(subscriber, at).await?;
        assert!(kept >= at, "saved the checkpoint {at}, but {kept} is kept");
        Ok(kept)
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool> {
        self.store.swap_checkpoint(subscriber, from, to).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        to: Option<Position>,
    ) -> Result<()> {
        self.store.reset_checkpoint(subscriber, to).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LeaseStore for Watched {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.store.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.store.swap_lease(name, record).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TransferStore for Watched {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let streams = self.store.list_streams(after, limit).await?;
        assert!(streams.len() <= limit, "{} streams were listed, not {limit}", streams.len());
        let mut last = after;
        for (stream, _) in &streams {
            assert!(Some(stream) > last, "{stream:?} was listed after {last:?}");
            last = Some(stream);
        }
        Ok(streams)
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.ledger.begin_import(&events);
        let imported = self.store.import(events).await;
        self.ledger.end_removal();
        imported
    }
}
