//! The store, and its methods mapped to the files that do the work.

use std::{fmt, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, Error, ExpectedVersion, Filter, Position, ReadAll, ReadStream,
    RecordedEvent, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::{Adapter, Pages, Tail},
};
use annals_postgres_shared::{streams, subscribe};

use crate::{
    append,
    config::{self, MartenOptions},
    database::Database,
    import, manage,
    read::StreamPages,
    read_all,
};

/// The event tables of Marten as an event store. A clone is another handle to the same store. It works
/// in the Tokio runtime in which it was opened.
#[derive(Clone)]
pub struct MartenStore {
    pub(crate) database: Arc<Database>,
    pub(crate) options: Arc<MartenOptions>,
    pub(crate) capabilities: Arc<Capabilities>,
}

impl fmt::Debug for MartenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MartenStore").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Adapter for MartenStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn without_order(&self) -> Error {
        config::without_order()
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        append::append(&self.database, appends).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        StreamPages::new(self.database.clone(), stream, options)
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        read_all::pages(self.database.clone(), options)
    }

    fn follow_stream(&self, stream: StreamId, after: Version, _at: Position) -> impl Tail {
        let pages = StreamPages::live(self.database.clone(), stream, after);
        subscribe::tail(&self.database.connections, &self.database.notifier, pages)
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        let pages = read_all::live(self.database.clone(), &filter, after);
        subscribe::tail(&self.database.connections, &self.database.notifier, pages)
    }

    async fn last_position(&self) -> Result<Position> {
        self.database.horizon.reach().await
    }

    async fn greatest_position(&self) -> Result<Position> {
        self.database.greatest_position().await
    }

    async fn version_at(&self, stream: &StreamId, position: Position) -> Result<Version> {
        manage::version_at(&self.database, stream, position).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        Ok(streams::load(&*self.database, stream).await?.info())
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        streams::truncate(&self.database, stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.database.check_stream(stream)?;
        streams::close(&self.database, stream, expected, StreamState::Deleted).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.database.check_stream(stream)?;
        streams::close(&self.database, stream, expected, StreamState::Tombstoned).await
    }

    annals_postgres_shared::record_methods!();

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        streams::list(&*self.database, after, limit).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        import::import(&self.database, events).await
    }
}
