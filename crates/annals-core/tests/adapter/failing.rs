//! The adapter that the tests call.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_core::{
    Append, Appended, Capabilities, Error, ErrorKind, ExpectedVersion, Filter, LeaseName,
    LeaseRecord, Position, ReadAll, ReadStream, RecordedEvent, Result, Snapshot, StreamId,
    StreamInfo, SubscriberId, Version,
    adapter::{Adapter, Page, Pages, Tail},
};
use async_trait::async_trait;

/// An adapter that counts the calls that reach it, and fails each of them.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    capabilities: Capabilities,
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Failing {
    pub(crate) fn new(declare: impl FnOnce(&mut Capabilities)) -> Self {
        let mut capabilities = Capabilities::new("failing");
        declare(&mut capabilities);
        Self { capabilities, calls: Arc::default() }
    }

    fn fail<T>(&self) -> Result<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Err(failure())
    }
}

fn failure() -> Error {
    Error::new(ErrorKind::Internal, "as it should")
}

struct FailingPages;

#[async_trait]
impl Pages for FailingPages {
    async fn next_page(&mut self) -> Result<Page> {
        Err(failure())
    }
}

#[async_trait]
impl Tail for FailingPages {
    async fn changed(&mut self) -> Result<()> {
        Err(failure())
    }
}

impl Adapter for Failing {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, _: Vec<Append>) -> Result<Vec<Appended>> {
        self.fail()
    }

    fn stream_pages(&self, _: StreamId, _: ReadStream) -> impl Pages {
        FailingPages
    }

    fn all_pages(&self, _: ReadAll) -> impl Pages {
        self.calls.fetch_add(1, Ordering::Relaxed);
        FailingPages
    }

    fn follow_stream(&self, _: StreamId, _: Version, _: Position) -> impl Tail {
        FailingPages
    }

    fn follow_all(&self, _: Filter, _: Position) -> impl Tail {
        FailingPages
    }

    async fn last_position(&self) -> Result<Position> {
        self.fail()
    }

    async fn version_at(&self, _: &StreamId, _: Position) -> Result<Version> {
        self.fail()
    }

    async fn stream_info(&self, _: &StreamId) -> Result<StreamInfo> {
        self.fail()
    }

    async fn truncate(&self, _: &StreamId, _: Version) -> Result<()> {
        self.fail()
    }

    async fn delete(&self, _: &StreamId, _: ExpectedVersion) -> Result<()> {
        self.fail()
    }

    async fn tombstone(&self, _: &StreamId, _: ExpectedVersion) -> Result<()> {
        self.fail()
    }

    async fn load_snapshot(&self, _: &StreamId) -> Result<Option<Snapshot>> {
        self.fail()
    }

    async fn save_snapshot(&self, _: &StreamId, _: Snapshot) -> Result<()> {
        self.fail()
    }

    async fn delete_snapshot(&self, _: &StreamId) -> Result<()> {
        self.fail()
    }

    async fn load_checkpoint(&self, _: &SubscriberId) -> Result<Option<Position>> {
        self.fail()
    }

    async fn save_checkpoint(&self, _: &SubscriberId, _: Position) -> Result<Position> {
        self.fail()
    }

    async fn reset_checkpoint(&self, _: &SubscriberId, _: Option<Position>) -> Result<()> {
        self.fail()
    }

    async fn load_lease(&self, _: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.fail()
    }

    async fn swap_lease(&self, _: &LeaseName, _: &LeaseRecord) -> Result<bool> {
        self.fail()
    }

    async fn list_streams(
        &self,
        _: Option<&StreamId>,
        _: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        self.fail()
    }

    async fn import(&self, _: Vec<RecordedEvent>) -> Result<()> {
        self.fail()
    }
}
