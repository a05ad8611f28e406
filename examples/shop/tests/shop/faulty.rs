//! A store with faults, put on for a test.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use annals::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    RecordedEvent, Result, Snapshot, SnapshotStore, Store, StreamId, StreamInfo, Subscribe,
    SubscriberId, Subscription, TransferStore, Version,
};
use async_trait::async_trait;

#[derive(Debug)]
pub(crate) enum Fault {
    /// No write succeeds after this many: as if the program had been stopped there.
    StopsAfter(u32),
    /// Each append fails once before it is written.
    Busy,
    /// Each append is written, but the answer to the first try is lost.
    LosesAnswers,
    /// Every snapshot is refused.
    KeepsNoSnapshots,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    fault: Mutex<Fault>,
    /// The first event ids of the appends that were tried.
    tried: Mutex<HashSet<String>>,
}

impl Faulty {
    pub(crate) fn new(inner: &Arc<dyn Store>, fault: Fault) -> Arc<Self> {
        Arc::new(Self { inner: inner.clone(), fault: fault.into(), tried: Mutex::default() })
    }

    /// How many appends were tried, each counted once.
    pub(crate) fn tried(&self) -> usize {
        self.tried.lock().unwrap().len()
    }

    /// Counts a write, and fails it where the program has been stopped.
    fn write(&self) -> Result<()> {
        match &mut *self.fault.lock().unwrap() {
            Fault::StopsAfter(0) => Err(Error::new(ErrorKind::Internal, "stopped")),
            Fault::StopsAfter(left) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl EventStore for Faulty {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.write()?;
        let first_try = self.tried.lock().unwrap().insert(append.events[0].id().to_string());
        let (busy, loses) = {
            let fault = self.fault.lock().unwrap();
            (matches!(*fault, Fault::Busy), matches!(*fault, Fault::LosesAnswers))
        };
        if busy && first_try {
            return Err(Error::new(ErrorKind::Busy, "try again"));
        }
        let appended = self.inner.append(append).await?;
        if loses && first_try {
            return Err(Error::new(ErrorKind::Internal, "no answer").with_outcome_unknown());
        }
        let tells = self.capabilities().tells_retries;
        assert_eq!(appended.replayed, loses && tells, "a retry has the ids of the first try");
        Ok(appended)
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.write()?;
        self.inner.append_multi(appends).await
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
        self.inner.stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.write()?;
        self.inner.truncate(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.write()?;
        self.inner.delete(stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.write()?;
        self.inner.tombstone(stream, expected).await
    }
}

#[async_trait]
impl SnapshotStore for Faulty {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        self.inner.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.write()?;
        if matches!(*self.fault.lock().unwrap(), Fault::KeepsNoSnapshots) {
            return Err(Error::new(ErrorKind::Internal, "no snapshots"));
        }
        self.inner.save_snapshot(stream, snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.write()?;
        self.inner.delete_snapshot(stream).await
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
        self.write()?;
        self.inner.save_checkpoint(subscriber, position).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        self.write()?;
        self.inner.reset_checkpoint(subscriber, position).await
    }
}

#[async_trait]
impl LeaseStore for Faulty {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.inner.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.write()?;
        self.inner.swap_lease(name, record).await
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
        self.write()?;
        self.inner.import(events).await
    }
}
