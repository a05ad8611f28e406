//! A store that counts the events that are read from it, and can make appends wait.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, EventStore, EventStream, ExpectedVersion,
    LeaseStore, ReadAll, ReadStream, Result, SnapshotStore, StreamId, StreamInfo, Subscribe,
    Subscription, TransferStore, Version,
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::Semaphore;

#[derive(Debug)]
pub(crate) struct Counting {
    inner: MemoryStore,
    read: Arc<AtomicUsize>,
    /// Each append needs one of these permits to go on.
    pub(crate) appends: Semaphore,
    /// Gets a permit for each append that has arrived.
    pub(crate) arrived: Semaphore,
}

impl Counting {
    pub(crate) fn new() -> Self {
        let appends = Semaphore::new(Semaphore::MAX_PERMITS);
        Self {
            inner: MemoryStore::new(),
            read: Arc::default(),
            appends,
            arrived: Semaphore::new(0),
        }
    }

    pub(crate) fn read(&self) -> usize {
        self.read.load(SeqCst)
    }

    fn counted(&self, events: EventStream) -> EventStream {
        let read = self.read.clone();
        events
            .inspect(move |_| {
                read.fetch_add(1, SeqCst);
            })
            .boxed()
    }
}

#[async_trait]
impl EventStore for Counting {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.arrived.add_permits(1);
        self.appends.acquire().await.unwrap().forget();
        self.inner.append(append).await
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.inner.append_multi(appends).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        self.counted(self.inner.read_stream(stream, options))
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        self.counted(self.inner.read_all(options))
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let (messages, read) = (self.inner.subscribe(options).await?, self.read.clone());
        Ok(Subscription::new(messages.inspect(move |_| {
            read.fetch_add(1, SeqCst);
        })))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        self.inner.stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.inner.truncate(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.inner.delete(stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.inner.tombstone(stream, expected).await
    }
}

impl SnapshotStore for Counting {}
impl CheckpointStore for Counting {}
impl LeaseStore for Counting {}

impl TransferStore for Counting {}
