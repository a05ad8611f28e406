//! A store whose writes fail, put on for a test.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    RecordedEvent, Result, Snapshot, SnapshotStore, Store, StreamId, StreamInfo, Subscribe,
    SubscriberId, Subscription, TransferStore, Version,
};
use async_trait::async_trait;

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    fault: Fault,
    calls: AtomicU32,
}

#[derive(Debug)]
pub(crate) enum Fault {
    /// Of three calls that write, the first is not made, and the answer to the second is lost.
    InTurn,
    /// The answer to the first call that writes is lost, and no other is made.
    Dies,
    /// Somebody else appends this just before it answers for the first time what a stream is.
    IsOvertaken(Append),
}

impl Faulty {
    pub(crate) fn on(inner: &Arc<dyn Store>, fault: Fault) -> Arc<dyn Store> {
        Arc::new(Self { inner: inner.clone(), fault, calls: AtomicU32::new(0) })
    }

    async fn write<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let calls = self.calls.fetch_add(1, Relaxed);
        match self.fault {
            Fault::InTurn => self.in_turn(calls % 3, call).await,
            Fault::Dies if calls == 0 => self.in_turn(1, call).await,
            Fault::Dies => Err(Error::new(ErrorKind::Unavailable, "connection refused")),
            Fault::IsOvertaken(_) => call.await,
        }
    }

    async fn in_turn<T>(&self, turn: u32, call: impl Future<Output = Result<T>>) -> Result<T> {
        match turn {
            0 => Err(Error::new(ErrorKind::Busy, "try again")),
            1 => {
                call.await?;
                Err(Error::new(ErrorKind::Unavailable, "no answer").with_outcome_unknown())
            }
            _ => call.await,
        }
    }
}

#[async_trait]
impl EventStore for Faulty {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.write(self.inner.append(append)).await
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.write(self.inner.append_multi(appends)).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        self.inner.read_stream(stream, options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        self.inner.read_all(options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        self.inner.subscribe(options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        if let Fault::IsOvertaken(append) = &self.fault
            && self.calls.fetch_add(1, Relaxed) == 0
        {
            self.inner.append(append.clone()).await?;
        }
        self.inner.stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.write(self.inner.truncate(stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.write(self.inner.delete(stream, expected)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.write(self.inner.tombstone(stream, expected)).await
    }
}

#[async_trait]
impl SnapshotStore for Faulty {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        self.inner.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.write(self.inner.save_snapshot(stream, snapshot)).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.write(self.inner.delete_snapshot(stream)).await
    }
}

#[async_trait]
impl CheckpointStore for Faulty {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.inner.load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        self.write(self.inner.save_checkpoint(subscriber, position)).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        self.write(self.inner.reset_checkpoint(subscriber, position)).await
    }
}

#[async_trait]
impl LeaseStore for Faulty {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.inner.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.write(self.inner.swap_lease(name, record)).await
    }
}

#[async_trait]
impl TransferStore for Faulty {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        self.inner.list_streams(after, limit).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.write(self.inner.import(events)).await
    }
}
