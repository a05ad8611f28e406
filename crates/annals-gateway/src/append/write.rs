//! What all kinds of appends share: reading the request, its limit, and the write to the store.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Error, ExpectedVersion, NewEvent, Position, Store, StreamId, StreamState,
    Version, adapter::StreamHead,
};
use tonic::Status;

use super::recent::RecentAppends;
use crate::{
    metadata,
    names::writable_stream,
    proto::{
        shared::Empty,
        streams::{
            ProposedMessage, Success, WriteOptions,
            success::{CurrentRevisionOption, PositionOption},
            write_options::Expected,
        },
    },
    status::too_large,
    wire::{new_event, wire_position},
};

/// Every event counts at least this many bytes, so that the limit also bounds the number of events
/// without data.
const MIN_EVENT_BYTES: usize = 32;

/// The events of one append, within the limit of its size.
pub(super) struct LimitedEvents {
    max_bytes: usize,
    bytes: usize,
    events: Vec<NewEvent>,
}

impl LimitedEvents {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: 0, events: Vec::new() }
    }

    pub(super) fn push(&mut self, message: ProposedMessage) -> Result<(), Status> {
        let event = new_event(message)?;
        self.bytes += event.size() + MIN_EVENT_BYTES;
        if self.bytes > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        self.events.push(event);
        Ok(())
    }

    pub(super) fn into_events(self) -> Vec<NewEvent> {
        self.events
    }
}

/// The greatest revision. Clients read revisions as signed numbers.
const MAX_REVISION: u64 = i64::MAX as u64;

/// The stream that a client wants to change, and the version that it expects.
pub(crate) fn write_target(options: &WriteOptions) -> Result<(StreamId, ExpectedVersion), Status> {
    let expected = match options.expected {
        // The .NET client sends `StreamRevision.None`, which is -1, as an unsigned number.
        Some(Expected::Revision(u64::MAX)) => ExpectedVersion::NoStream,
        Some(Expected::Revision(revision)) if revision > MAX_REVISION => {
            let message =
                format!("the expected revision {revision} is greater than {MAX_REVISION}");
            return Err(Status::invalid_argument(message));
        }
        Some(Expected::Revision(revision)) => ExpectedVersion::Exact((revision + 1).into()),
        Some(Expected::NoStream(_)) => ExpectedVersion::NoStream,
        Some(Expected::Any(_)) => ExpectedVersion::Any,
        Some(Expected::StreamExists(_)) => ExpectedVersion::StreamExists,
        None => return Err(Status::invalid_argument("the expected revision is missing")),
    };
    Ok((writable_stream(options.stream_identifier.as_ref())?, expected))
}

/// What an append answers.
pub(crate) struct AppendOutcome {
    /// The last revision of the stream. `None` if the stream has no event.
    revision: Option<u64>,
    /// The position of the last event of the append. `None` if the append had no event.
    pub(crate) position: Option<u64>,
}

impl AppendOutcome {
    fn of(last_version: Version, position: Position) -> Self {
        Self { revision: last_version.get().checked_sub(1), position: Some(position.get()) }
    }

    pub(super) fn success(&self) -> Success {
        success(self.revision, self.position)
    }
}

/// The answer to an append that was written, or that was written before.
pub(crate) fn success(revision: Option<u64>, position: Option<u64>) -> Success {
    let current = match revision {
        Some(revision) => CurrentRevisionOption::CurrentRevision(revision),
        None => CurrentRevisionOption::NoStream(Empty {}),
    };
    let position = match position {
        Some(position) => PositionOption::Position(wire_position(position)),
        None => PositionOption::NoPosition(Empty {}),
    };
    Success { current_revision_option: Some(current), position_option: Some(position) }
}

/// Appends to a store for clients.
#[derive(Clone, Debug)]
pub(crate) struct Appender {
    pub(crate) store: Arc<dyn Store>,
    pub(super) max_bytes: usize,
    recent: Arc<RecentAppends>,
}

impl Appender {
    /// `max_bytes` is the most that one append may have.
    pub(crate) fn new(store: Arc<dyn Store>, max_bytes: usize) -> Self {
        let recent = Arc::new(RecentAppends::new(&*store));
        Self { store, max_bytes, recent }
    }

    /// Appends to the store. If the stream is a metadata stream, this also truncates the stream that
    /// it describes.
    pub(crate) async fn write(
        &self,
        append: Append,
        described: Option<&StreamId>,
    ) -> Result<AppendOutcome, Error> {
        let store = &*self.store;
        if append.events.is_empty() {
            return append_nothing(store, &append.stream, append.expected).await;
        }
        if let Some(last) = self.recent.replayed(store, &append).await? {
            return Ok(AppendOutcome::of(last.version, last.position));
        }
        let key = self.recent.key(&append);
        let existing = append.expected == ExpectedVersion::StreamExists;
        let retry = existing.then(|| append.clone());
        let appended = match (store.append(append).await, retry) {
            (Err(error), Some(append)) if error.conflict().is_some() => {
                self.append_first(append, error).await?
            }
            (result, _) => result?,
        };
        self.recent.remember(key, &appended);
        if let Some(stream) = described {
            metadata::apply_truncation(store, stream).await;
        }
        Ok(AppendOutcome::of(appended.last_version, appended.position))
    }

    /// Appends to a stream that exists to EventStoreDB, since it has metadata, but has no event.
    /// `conflict` is the store's answer to the append under `StreamExists`.
    async fn append_first(&self, append: Append, conflict: Error) -> Result<Appended, Error> {
        let (store, stream) = (&*self.store, &append.stream);
        match store.stream_info(stream).await?.state {
            StreamState::Deleted => Err(Error::stream_closed(stream)),
            StreamState::Missing if metadata::exists(store, stream).await? => {
                let mut first = append.clone();
                first.expected = ExpectedVersion::NoStream;
                match store.append(first).await {
                    // Another append has created the stream, so now it exists to the store, too.
                    Err(error) if error.conflict().is_some() => store.append(append).await,
                    result => result,
                }
            }
            _ => Err(conflict),
        }
    }
}

/// An append without events. EventStoreDB accepts it, checks the expected version, and answers the
/// stream's last revision; an annals store refuses it.
async fn append_nothing(
    store: &dyn Store,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Result<AppendOutcome, Error> {
    let info = store.stream_info(stream).await?;
    // `deleted_at` only matters for recognising a retry, and without events there is nothing to
    // retry.
    let head = StreamHead { state: info.state, version: info.version, deleted_at: Version::NONE };
    head.check(stream, expected)?;
    Ok(AppendOutcome { revision: info.version.get().checked_sub(1), position: None })
}
