//! Where a copy writes events: a store, or a file.

use std::{sync::Arc, time::Duration};

use annals::{
    EventType, ExpectedVersion, NewEvent, PLACEHOLDER, Payload, Position, ReadStream,
    RecordedEvent, Store, StoreUrl, StreamId, StreamState, SubscriberId, TryStreamExt, Version,
};
use chrono::Utc;
use futures::future::try_join_all;

use super::file_target::FileTarget;
use crate::{
    carry::{Limits, placeholder_id},
    deletions::Deletions,
    failure::Failure,
    file::EventFile,
    source::Source,
};

/// The most events, and bytes of payloads, in one import: enough that the cost of a commit does not
/// matter, and few enough that Ctrl-C loses little work.
const MOST_EVENTS: usize = 5_000;
const MOST_BYTES: usize = 8 << 20;
/// The most events in one import of a store that may need an append for each event.
const MOST_APPENDS: usize = 500;
/// The pauses before an import is tried again after a failure that may pass. An import can be
/// repeated safely.
const PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 1_600];

#[derive(Debug)]
pub(crate) enum Target {
    Store(StoreTarget),
    File(FileTarget),
}

#[derive(Debug)]
pub(crate) struct StoreTarget {
    url: StoreUrl,
    pub(crate) store: Arc<dyn Store>,
    /// Whether all streams of the target come from the source, so that events that the source has
    /// removed may be removed here.
    pub(crate) may_remove: bool,
    /// How many streams are written at once.
    lanes: usize,
    most_events: usize,
    most_bytes: usize,
}

impl Target {
    /// Opens a target, and creates a store that is missing.
    pub(crate) async fn open(url: &str, lanes: usize) -> Result<Self, Failure> {
        if let Some(file) = EventFile::of(url) {
            return Ok(Self::File(FileTarget::new(file)));
        }
        let store = annals::connect(url).await?;
        Ok(Self::Store(StoreTarget::new(StoreUrl::parse(url)?, store, lanes)))
    }

    /// The target as messages name it, without secrets.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Store(target) => target.url.to_string(),
            Self::File(target) => target.shown(),
        }
    }

    /// What an event may be.
    pub(crate) fn limits(&self) -> Limits {
        match self {
            Self::Store(target) => Limits::of(Some(target.store.capabilities())),
            Self::File(_) => Limits::of(None),
        }
    }

    /// The most events, and bytes of payloads, in one import.
    pub(crate) fn import_limits(&self) -> (usize, usize) {
        match self {
            Self::Store(target) => (target.most_events, target.most_bytes),
            Self::File(_) => (MOST_EVENTS, MOST_BYTES),
        }
    }

    pub(crate) async fn write(
        &mut self,
        source: &Source,
        events: Vec<RecordedEvent>,
        deletions: Deletions,
    ) -> Result<(), Failure> {
        match self {
            Self::Store(target) => {
                let events = target.follow_deletions(events, deletions).await?;
                target.write(source, events).await
            }
            Self::File(target) => tokio::task::block_in_place(|| target.write(&events, deletions)),
        }
    }

    /// Saves that all events up to a position are written.
    pub(crate) async fn save_progress(
        &mut self,
        copy: &SubscriberId,
        position: Position,
    ) -> Result<(), Failure> {
        match self {
            Self::Store(target) if target.store.capabilities().checkpoints => {
                target.store.save_checkpoint(copy, position).await?;
                Ok(())
            }
            // The next run starts from the beginning. Events that are written already stay as they
            // are.
            Self::Store(_) => Ok(()),
            Self::File(target) => tokio::task::block_in_place(|| target.sync()),
        }
    }
}

impl StoreTarget {
    pub(super) fn new(url: StoreUrl, store: Arc<dyn Store>, lanes: usize) -> Self {
        let capabilities = store.capabilities();
        let most = if capabilities.exact_import { MOST_EVENTS } else { MOST_APPENDS };
        let most_events = capabilities.max_append_events.min(most);
        let most_bytes = capabilities.max_append_bytes.min(MOST_BYTES);
        Self { url, store, may_remove: false, lanes, most_events, most_bytes }
    }

    async fn write(&self, source: &Source, events: Vec<RecordedEvent>) -> Result<(), Failure> {
        if self.lanes == 1 {
            return self.import(source, events).await;
        }
        let mut lanes = vec![Vec::new(); self.lanes];
        for event in events {
            let lane = lane(&event.stream, self.lanes);
            if let Some(lane) = lanes.get_mut(lane) {
                lane.push(event);
            }
        }
        try_join_all(lanes.into_iter().map(|events| self.import(source, events))).await?;
        Ok(())
    }

    async fn import(&self, source: &Source, events: Vec<RecordedEvent>) -> Result<()> {
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        loop {
            let error = match self.store.import(events.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.is_retryable() || error.outcome_unknown() {
                let Some(pause) = pauses.next() else { return Err(error.into()) };
                tokio::time::sleep(pause).await;
                continue;
            }
            let Some(conflict) = error.conflict() else { return Err(error.into()) };
            let stream = conflict.stream.clone();
            if !self.has_followed(source, &stream).await? {
                return Err(differs(&stream, error));
            }
        }
    }

    /// If the source has removed the events that the target has, or should get next: removes them from
    /// the target as well, so that the stream continues after them. Returns whether that was so.
    async fn has_followed(&self, source: &Source, stream: &StreamId) -> Result<bool, Failure> {
        let Some(source) = source.store() else { return Ok(false) };
        let there = source.stream_info(stream).await?;
        let here = self.store.stream_info(stream).await?;
        let begins = there.first_version.unwrap_or(there.version.plus(1));
        let behind = here.first_version.is_some() && begins > here.version.plus(1);
        if behind {
            self.check_removal(stream)?;
            self.store.truncate(stream, begins).await?;
        }
        Ok(behind)
    }
}

impl StoreTarget {
    /// Deletes the streams that the source had deleted before these events. Returns the events that
    /// are not deleted.
    async fn follow_deletions(
        &self,
        mut events: Vec<RecordedEvent>,
        deletions: Deletions,
    ) -> Result<Vec<RecordedEvent>> {
        for (stream, at) in deletions {
            self.delete_up_to(&stream, at).await?;
            events.retain(|event| event.stream != stream || event.version > at);
        }
        Ok(events)
    }

    /// Brings a stream of the target to the version at which the source deleted it, and deletes it. Does
    /// nothing if the target has deleted it before, or has later events.
    pub(crate) async fn delete_up_to(&self, stream: &StreamId, at: Version) -> Result<()> {
        let is = self.store.stream_info(stream).await?;
        if is.deleted_at >= at || is.version > at || is.state == StreamState::Tombstoned {
            return Ok(());
        }
        if is.first_version.is_some() && !self.has_only_placeholder(stream, at).await? {
            self.check_removal(stream)?;
        }
        if is.version < at {
            self.raise(stream, is.first_version.map(|_| is.version), at).await?;
        }
        self.store.delete(stream, ExpectedVersion::Exact(at)).await?;
        Ok(())
    }

    /// Raises a stream of the target to the version that it has in the source, where its events are
    /// gone: imports one placeholder at that version, after the version `last` was removed.
    pub(crate) async fn raise(
        &self,
        stream: &StreamId,
        last: Option<Version>,
        version: Version,
    ) -> Result<()> {
        if let Some(last) = last {
            self.store.truncate(stream, last.plus(1)).await?;
        }
        let (id, kind) = (placeholder_id(stream, version), EventType::new(PLACEHOLDER)?);
        let placeholder = NewEvent::new(kind, Payload::empty()).with_id(id);
        let event = placeholder.recorded(stream.clone(), version, Position::START, Utc::now());
        self.store.import(vec![event]).await?;
        Ok(())
    }

    /// Whether the stream has nothing but the placeholder that a copy has left which was killed.
    async fn has_only_placeholder(&self, stream: &StreamId, at: Version) -> Result<bool> {
        let first = ReadStream::default().with_limit(1);
        let first = self.store.read_stream(stream, first).try_next().await?;
        Ok(first.is_some_and(|event| event.id == placeholder_id(stream, at)))
    }

    /// Refuses to remove events that may not come from the source.
    pub(crate) fn check_removal(&self, stream: &StreamId) -> Result<()> {
        if self.may_remove {
            return Ok(());
        }
        Err(Failure::conflict(format!(
            "the target has events in {stream} that the source has removed or never had; copy into \
             an empty store, or leave this stream out"
        )))
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

fn differs(stream: &StreamId, error: annals::Error) -> Failure {
    let message = format!(
        "the target has other events in {stream} than the source (`annals verify` shows the first); \
         copy into an empty store, or leave this stream out"
    );
    Failure::conflict(message).because(&error)
}

fn lane(stream: &StreamId, lanes: usize) -> usize {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(stream);
    usize::try_from(hash % lanes as u64).unwrap_or(0)
}
