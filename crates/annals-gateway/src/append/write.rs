//! The write to the store, which all kinds of appends share, and what it answers.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Error, ExpectedVersion, Position, Store, StreamId, StreamState, Version,
};

use super::{
    empty::append_nothing,
    recent::{Known, RecentEvents},
    request::Limits,
    revival::{self, Revivals},
};
use crate::{
    metadata,
    proto::{
        shared::Empty,
        streams::{
            Success,
            success::{CurrentRevisionOption, PositionOption},
        },
    },
    wire::wire_position,
};

/// What an append answers.
pub(crate) struct AppendOutcome {
    /// The last revision of the stream. `None` if the stream has no event.
    revision: Option<u64>,
    /// The position of the last event of the append, or of the record of an append without events.
    pub(crate) position: u64,
}

impl AppendOutcome {
    pub(super) fn of(last_version: Version, position: Position) -> Self {
        Self { revision: last_version.get().checked_sub(1), position: position.get() }
    }

    pub(super) fn success(&self) -> Success {
        success(self.revision, Some(self.position))
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
    pub(super) limits: Limits,
    recent: Arc<RecentEvents>,
    revivals: Arc<Revivals>,
}

impl Appender {
    pub(crate) fn new(store: Arc<dyn Store>, limits: Limits) -> Self {
        let recent = Arc::new(RecentEvents::new(&*store));
        Self { store, limits, recent, revivals: Arc::new(Revivals::new()) }
    }

    /// Appends to the store. `described` is the stream that the append's stream describes, if that is
    /// a metadata stream.
    pub(crate) async fn write(
        &self,
        append: Append,
        described: Option<&StreamId>,
    ) -> Result<AppendOutcome, Error> {
        let store = &*self.store;
        let mut was_deleted = false;
        if let Some(described) = described {
            if store.stream_info(described).await?.state == StreamState::Tombstoned {
                // The metadata of a tombstoned stream is closed, too.
                return Err(Error::stream_closed(&append.stream));
            }
            was_deleted = metadata::is_deleted(store, described).await?;
        }
        if append.events.is_empty() {
            return append_nothing(store, &append.stream, append.expected).await;
        }
        match self.recent.known(store, &append).await? {
            Known::No => {}
            Known::All(last) => {
                // A retry in another order answers the revision of its last event, as EventStoreDB.
                return Ok(AppendOutcome::of(last.version, last.position));
            }
            Known::Some => {
                let actual = store.stream_info(&append.stream).await?.version;
                return Err(Error::lost_race(&append.stream, append.expected, actual));
            }
        }
        let stream = append.stream.clone();
        let ids: Vec<_> = append.events.iter().map(|event| event.id()).collect();
        let appended = self.append(append).await?;
        self.recent.remember(&stream, ids, appended.first_version);
        match described {
            Some(described) => self.metadata_written(described, was_deleted).await,
            None => self.revivals.appended(store, &stream, appended.first_version).await,
        }
        Ok(AppendOutcome::of(appended.last_version, appended.position))
    }

    async fn append(&self, append: Append) -> Result<Appended, Error> {
        let existing = append.expected == ExpectedVersion::StreamExists;
        let retry = existing.then(|| append.clone());
        match (self.store.append(append).await, retry) {
            (Err(error), Some(append)) if error.conflict().is_some() => {
                self.append_first(append, error).await
            }
            (result, _) => result,
        }
    }

    /// Appends to a stream that exists to EventStoreDB, since it has metadata, but has no event.
    /// `conflict` is the store's answer to the append under `StreamExists`.
    async fn append_first(&self, append: Append, conflict: Error) -> Result<Appended, Error> {
        let (store, stream) = (&*self.store, &append.stream);
        let state = store.stream_info(stream).await?.state;
        match state {
            StreamState::Deleted if metadata::is_deleted(store, stream).await? => {
                Err(Error::stream_closed(stream))
            }
            StreamState::Deleted | StreamState::Missing
                if metadata::exists(store, stream).await? =>
            {
                let mut first = append.clone();
                first.expected = ExpectedVersion::NoStream;
                match store.append(first).await {
                    // Another append has created the stream, so now it exists to the store, too.
                    Err(error) if error.conflict().is_some() => store.append(append).await,
                    result => result,
                }
            }
            StreamState::Deleted => Err(Error::stream_closed(stream)),
            _ => Err(conflict),
        }
    }

    /// Applies the new metadata of a stream to the stream. If that fails, the write has succeeded all
    /// the same: reads go by the metadata.
    async fn metadata_written(&self, stream: &StreamId, was_deleted: bool) {
        if let Err(error) = self.apply_metadata(stream, was_deleted).await {
            tracing::warn!(%stream, %error, "could not apply the metadata of a stream");
        }
    }

    async fn apply_metadata(&self, stream: &StreamId, was_deleted: bool) -> Result<(), Error> {
        let store = &*self.store;
        let info = store.stream_info(stream).await?;
        let Some(last) = metadata::current(store, stream).await? else { return Ok(()) };
        match (info.state, metadata::means_deleted(&last)) {
            (StreamState::Live, true) => {
                store.delete(stream, ExpectedVersion::Any).await?;
                self.revivals.deleted(stream);
            }
            (StreamState::Deleted, true) => self.revivals.deleted(stream),
            (StreamState::Deleted, false) if was_deleted => {
                revival::revive_by_metadata(store, &last, info.version).await?;
            }
            (StreamState::Live, false) => metadata::apply_truncation(store, stream, &last).await?,
            _ => {}
        }
        Ok(())
    }
}
