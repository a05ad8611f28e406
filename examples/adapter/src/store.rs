//! The store: each method of [`Adapter`] is a transaction.

use std::{ops::Bound, path::Path, sync::Arc};

use annals_core::{
    Append, Appended, Capabilities, Error, ErrorKind, ExpectedVersion, Filter, Position, ReadAll,
    ReadStream, Recognition, RecordedEvent, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::{
        Adapter, Cursor, Live, Pages, RecordChange, RecordKey, StreamHead, StreamsMut, Tail,
        context,
    },
};
use bytes::Bytes;

use crate::{
    read::EventPages,
    tables::{File, NUMBERS, RECORDS, STREAMS, info, last_position},
    write::Streams,
};

/// An event store in a `redb` file. A clone is another handle to the same store.
#[derive(Clone, Debug)]
pub struct RedbStore {
    file: Arc<File>,
    capabilities: Capabilities,
}

impl RedbStore {
    /// Opens a file, and creates it if it does not exist. `redb` lets no other process open it
    /// meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has opened the file, [`ErrorKind::Incompatible`] if a
    /// newer version of this crate has written it, [`ErrorKind::InvalidInput`] for an empty path.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut capabilities = Capabilities::new("redb");
        capabilities.durable = true;
        capabilities.retry_recognition = Recognition::Guaranteed;
        capabilities.list_streams = true;
        capabilities.exact_import = true;
        let path = std::path::absolute(path)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "not a path").with_source(e))?;
        let file = File::open(path).await.map_err(context(capabilities.backend, "open"))?;
        Ok(Self { file, capabilities })
    }
}

impl Adapter for RedbStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.file.write(|to| Streams::open(to)?.append(appends)).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        let (file, filter, cursor) =
            (self.file.clone(), Filter::default(), Cursor::of_stream(&options));
        EventPages { file, stream: Some(stream), filter, cursor }
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        let (file, cursor) = (self.file.clone(), Cursor::of_all(&options));
        EventPages { file, stream: None, filter: options.filter, cursor }
    }

    fn follow_stream(&self, stream: StreamId, after: Version, _at: Position) -> impl Tail {
        let options = ReadStream::default().with_from(after.plus(1));
        Live::new(self.stream_pages(stream, options), self.file.written.subscribe())
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        let options = ReadAll::default().with_filter(filter).after(after);
        Live::new(self.all_pages(options), self.file.written.subscribe())
    }

    async fn last_position(&self) -> Result<Position> {
        self.file.read(|transaction| last_position(&transaction.open_table(NUMBERS)?)).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let stream = stream.clone();
        self.file.read(move |from| info(from, stream.as_str())).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let stream = stream.clone();
        self.file.write(move |to| Streams::open(to)?.truncate(&stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, state) = (stream.clone(), StreamState::Deleted);
        self.file.write(move |to| Streams::open(to)?.close(&stream, expected, state)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let (stream, state) = (stream.clone(), StreamState::Tombstoned);
        self.file.write(move |to| Streams::open(to)?.close(&stream, expected, state)).await
    }

    async fn load_record(&self, key: RecordKey) -> Result<Option<Bytes>> {
        let load = self.file.read(move |transaction| {
            let record = transaction.open_table(RECORDS)?.get((key.kind(), key.name()))?;
            Ok(record.map(|record| Bytes::copy_from_slice(record.value())))
        });
        load.await
    }

    async fn change_record<T: Send + 'static>(
        &self,
        key: RecordKey,
        change: impl Fn(Option<Bytes>, StreamHead) -> Result<(RecordChange, T)> + Send + 'static,
    ) -> Result<T> {
        self.file.write(move |to| Streams::open(to)?.change_record(&key, change)).await
    }

    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let after = after.map_or_else(String::new, ToString::to_string);
        let list = self.file.read(move |from| {
            let streams = from.open_table(STREAMS)?;
            let after = (Bound::Excluded(after.as_str()), Bound::Unbounded);
            let listed = streams.range::<&str>(after)?.take(limit).map(|entry| {
                let (name, _) = entry?;
                Ok((StreamId::new(name.value())?, info(from, name.value())?))
            });
            listed.collect()
        });
        list.await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.file.write(|to| Streams::open(to)?.import(events)).await
    }
}
