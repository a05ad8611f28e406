//! A store that runs a test's code around its calls.

use std::{fmt, sync::Arc};

use annals::{
    Append, Appended, Capabilities, CheckpointStore, EventStore, EventStream, ExpectedVersion,
    LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream, RecordedEvent, Result,
    Snapshot, SnapshotStore, Store, StreamId, StreamInfo, Subscribe, SubscriberId, Subscription,
    TransferStore, Version,
};
use async_trait::async_trait;

/// Code of a test that runs around the calls to a store.
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// Runs around each call that writes.
    fn write<T: Send>(
        &self,
        call: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Runs around an append; unless overridden, [`Hook::write`] does.
    fn append(
        &self,
        store: &Arc<dyn Store>,
        append: Append,
    ) -> impl Future<Output = Result<Appended>> + Send {
        async move { self.write(store.append(append)).await }
    }

    /// Runs around saving a snapshot; unless overridden, [`Hook::write`] does.
    fn save_snapshot(
        &self,
        store: &Arc<dyn Store>,
        stream: &StreamId,
        snapshot: Snapshot,
    ) -> impl Future<Output = Result<()>> + Send {
        async move { self.write(store.save_snapshot(stream, snapshot)).await }
    }

    /// Runs around `stream_info`; unless overridden, the call goes straight to the store.
    fn stream_info(
        &self,
        store: &Arc<dyn Store>,
        stream: &StreamId,
    ) -> impl Future<Output = Result<StreamInfo>> + Send {
        async move { store.stream_info(stream).await }
    }

    /// Runs around a read of one stream; unless overridden, the call goes straight to the store.
    fn read_stream(
        &self,
        store: &Arc<dyn Store>,
        stream: &StreamId,
        options: ReadStream,
    ) -> EventStream {
        store.read_stream(stream, options)
    }

    /// Runs around a read of all; unless overridden, the call goes straight to the store.
    fn read_all(&self, store: &Arc<dyn Store>, options: ReadAll) -> EventStream {
        store.read_all(options)
    }

    /// Runs around a list of streams; unless overridden, the call goes straight to the store.
    fn list_streams(
        &self,
        store: &Arc<dyn Store>,
        after: Option<&StreamId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(StreamId, StreamInfo)>>> + Send {
        async move { store.list_streams(after, limit).await }
    }
}

/// A store with a hook around its calls. Those that a hook does not know go straight to the store.
#[derive(Debug)]
pub struct Hooked<H> {
    store: Arc<dyn Store>,
    /// The hook.
    pub hook: H,
}

impl<H: Hook> Hooked<H> {
    /// Puts a hook on a store.
    pub fn new(store: &Arc<dyn Store>, hook: H) -> Arc<Self> {
        Arc::new(Self { store: store.clone(), hook })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Hook> EventStore for Hooked<H> {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.hook.append(&self.store, append).await
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.hook.write(self.store.append_multi(appends)).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        self.hook.read_stream(&self.store, stream, options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        self.hook.read_all(&self.store, options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        self.store.subscribe(options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        self.hook.stream_info(&self.store, stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.hook.write(self.store.truncate(stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.hook.write(self.store.delete(stream, expected)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.hook.write(self.store.tombstone(stream, expected)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Hook> SnapshotStore for Hooked<H> {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        self.store.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.hook.save_snapshot(&self.store, stream, snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.hook.write(self.store.delete_snapshot(stream)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Hook> CheckpointStore for Hooked<H> {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.store.load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        self.hook.write(self.store.save_checkpoint(subscriber, position)).await
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        position: Position,
    ) -> Result<bool> {
        self.hook.write(self.store.swap_checkpoint(subscriber, expected, position)).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        self.hook.write(self.store.reset_checkpoint(subscriber, position)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Hook> LeaseStore for Hooked<H> {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.store.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.hook.write(self.store.swap_lease(name, record)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Hook> TransferStore for Hooked<H> {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        self.hook.list_streams(&self.store, after, limit).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.hook.write(self.store.import(events)).await
    }
}
