//! The store that each case works with: the store under test, with every answer checked against the
//! answers before. So every case checks what holds of every answer, whatever the case is about:
//!
//! * versions of a stream and positions of all go up, and a read of a stream has no gaps;
//! * an event has one version, one position and one id, whoever reads it;
//! * a read or a subscription gives what its options ask for, all of what was known before, and
//!   nothing after an error;
//! * a subscription tells no position below one that it told before, none of an event that it has not
//!   delivered, and none beyond what the store has given: whatever is appended later is above it;
//! * an answer to an append is above everything that was known when it was called;
//! * no snapshot outlives the deletion of its stream;
//! * an error says from which backend and which call it comes, and of which stream; a conflict also
//!   says what was expected.

mod blame;
mod ledger;
mod reads;

use std::{collections::HashMap, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    RecordedEvent, Result, Snapshot, SnapshotStore, Source, Store, StreamId, StreamInfo, Subscribe,
    SubscriberId, Subscription, TransferStore, Version,
};
use async_trait::async_trait;

use self::blame::Call;
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

    /// An append has failed. If its outcome is unknown, it may still be carried out.
    fn refused(&self, error: &Error) {
        if !error.outcome_unknown() {
            self.ledger.refused_append();
        }
    }

    fn call(&self, operation: &'static str) -> Call {
        Call::new(self.store.capabilities().backend, operation)
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
        let call = self.call("append").of(&append.stream).expecting(&appends);
        let answer = call.answer(self.store.append(append).await);
        let answer = answer.inspect_err(|error| self.refused(error))?;
        self.ledger.end_append(&begun, &appends, &[answer], self.ordered);
        Ok(answer)
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let begun = self.ledger.begin_append(&appends);
        let call = self.call("append_multi").expecting(&appends);
        let answers = call.answer(self.store.append_multi(appends.clone()).await);
        let answers = answers.inspect_err(|error| self.refused(error))?;
        self.ledger.end_append(&begun, &appends, &answers, self.ordered);
        Ok(answers)
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let call = self.call("read_stream").of(stream);
        let events = call.read(self.store.read_stream(stream, options.clone()));
        reads::of_stream(events, self.ledger.clone(), self.ordered, stream.clone(), &options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        let events = self.call("read_all").read(self.store.read_all(options.clone()));
        reads::of_all(events, self.ledger.clone(), self.ordered, &options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let call = match &options.source {
            Source::Stream(stream) => self.call("subscribe").of(stream),
            Source::All(_) => self.call("subscribe"),
        };
        let known = self.ledger.greatest();
        let messages = call.answer(self.store.subscribe(options.clone()).await)?;
        Ok(reads::of_subscription(
            messages,
            self.ledger.clone(),
            self.ordered,
            options,
            known,
            call,
        ))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let before = self.ledger.before(stream);
        let info =
            self.call("stream_info").of(stream).answer(self.store.stream_info(stream).await)?;
        before.check_info(&info);
        Ok(info)
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let to = before.minus(1);
        let begun = self.ledger.begin_removal(stream, to);
        let truncated = self.store.truncate(stream, before).await;
        self.ledger.end_removal(stream, to, &begun);
        self.call("truncate").of(stream).answer(truncated)
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let begun = self.ledger.begin_removal(stream, ALL);
        let deleted = self.store.delete(stream, expected).await;
        self.ledger.end_removal(stream, ALL, &begun);
        self.call("delete").of(stream).expects(expected).answer(deleted)?;
        self.ledger.deleted(stream, &begun, false);
        Ok(())
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let begun = self.ledger.begin_removal(stream, ALL);
        let closed = self.store.tombstone(stream, expected).await;
        self.ledger.end_removal(stream, ALL, &begun);
        self.call("tombstone").of(stream).expects(expected).answer(closed)?;
        self.ledger.deleted(stream, &begun, true);
        Ok(())
    }
}

/// The version up to which a deletion removes events.
const ALL: Version = Version::new(u64::MAX);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SnapshotStore for Watched {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let before = self.ledger.before(stream);
        let call = self.call("load_snapshot").of(stream);
        let snapshot = call.answer(self.store.load_snapshot(stream).await)?;
        snapshot.iter().for_each(|snapshot| before.check_snapshot(snapshot));
        Ok(snapshot)
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let call = self.call("save_snapshot").of(stream);
        call.answer(self.store.save_snapshot(stream, snapshot).await)
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let call = self.call("delete_snapshot").of(stream);
        call.answer(self.store.delete_snapshot(stream).await)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CheckpointStore for Watched {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.call("load_checkpoint").answer(self.store.load_checkpoint(subscriber).await)
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, at: Position) -> Result<Position> {
        let kept = self.store.save_checkpoint(subscriber, at).await;
        let kept = self.call("save_checkpoint").answer(kept)?;
        assert!(kept >= at, "saved the checkpoint {at}, but {kept} is kept");
        Ok(kept)
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool> {
        let swapped = self.store.swap_checkpoint(subscriber, from, to).await;
        self.call("swap_checkpoint").answer(swapped)
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        to: Option<Position>,
    ) -> Result<()> {
        self.call("reset_checkpoint").answer(self.store.reset_checkpoint(subscriber, to).await)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LeaseStore for Watched {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.call("load_lease").answer(self.store.load_lease(name).await)
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.call("swap_lease").answer(self.store.swap_lease(name, record).await)
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
        let streams = self.store.list_streams(after, limit).await;
        let streams = self.call("list_streams").answer(streams)?;
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
        let mut versions = HashMap::new();
        for event in &events {
            versions.insert(event.stream.clone(), event.version);
        }
        let streams: Vec<_> = versions.keys().cloned().collect();
        let imported = self.store.import(events).await;
        self.ledger.end_import(if imported.is_ok() { versions } else { HashMap::new() });
        self.call("import").of_one_of(streams).answer(imported)
    }
}
