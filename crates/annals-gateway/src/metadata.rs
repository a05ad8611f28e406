//! The metadata of a stream, which hides some of the stream's events from clients.

use annals_core::{Error, ReadStream, RecordedEvent, Store, StreamId, StreamState, TryStreamExt};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use tonic::Status;

use crate::{names::metadata_stream, status::status};

/// The type of the events in a metadata stream.
pub(crate) const TYPE: &str = "$metadata";
const TRUNCATE_BEFORE: &str = "$tb";
const MAX_COUNT: &str = "$maxCount";
const MAX_AGE: &str = "$maxAge";
/// The value of `$tb` in the metadata of a deleted stream.
const DELETED: u64 = i64::MAX as u64;

/// Which events of a stream clients do not see, by the stream's metadata.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HiddenEvents {
    before_revision: u64,
    max_age: Option<TimeDelta>,
}

impl HiddenEvents {
    /// Reads the current metadata of a stream.
    pub(crate) async fn of(store: &dyn Store, stream: &StreamId) -> Result<Self, Status> {
        let Some(properties) = properties(store, stream).await? else { return Ok(Self::default()) };
        let number = |name| properties.get(name).and_then(Value::as_u64);
        // `DELETED` hides nothing: the store has removed the events that were deleted, and clients
        // see events appended after that.
        let mut before = number(TRUNCATE_BEFORE).filter(|tb| *tb < DELETED).unwrap_or(0);
        if let Some(count) = number(MAX_COUNT) {
            let info = store.stream_info(stream).await.map_err(|e| status(&e))?;
            before = before.max(info.version.get().saturating_sub(count));
        }
        let seconds = number(MAX_AGE).and_then(|seconds| i64::try_from(seconds).ok());
        let max_age = seconds.and_then(TimeDelta::try_seconds);
        Ok(Self { before_revision: before, max_age })
    }

    /// Every event below this revision is hidden.
    pub(crate) fn before_revision(&self) -> u64 {
        self.before_revision
    }

    pub(crate) fn hides(&self, event: &RecordedEvent) -> bool {
        let is_older = |max_age: TimeDelta| {
            let oldest: Option<DateTime<Utc>> = Utc::now().checked_sub_signed(max_age);
            oldest.is_some_and(|oldest| event.recorded_at < oldest)
        };
        event.version.get() <= self.before_revision || self.max_age.is_some_and(is_older)
    }
}

pub(crate) async fn last_event(
    store: &dyn Store,
    stream: &StreamId,
) -> Result<Option<RecordedEvent>, Status> {
    let options = ReadStream::default().backwards().with_limit(1);
    store.read_stream(stream, options).try_next().await.map_err(|e| status(&e))
}

/// True if a stream has metadata. To EventStoreDB, a stream with metadata exists, even if it never had
/// an event.
pub(crate) async fn exists(store: &dyn Store, stream: &StreamId) -> Result<bool, Error> {
    let Some(metadata) = metadata_stream(stream) else { return Ok(false) };
    Ok(store.stream_info(&metadata).await?.state == StreamState::Live)
}

/// The metadata of a stream. `None` if there is no metadata, or if it is not a JSON object:
/// EventStoreDB accepts such metadata, too, and hides nothing by it.
async fn properties(
    store: &dyn Store,
    stream: &StreamId,
) -> Result<Option<Map<String, Value>>, Status> {
    let Some(metadata) = metadata_stream(stream) else { return Ok(None) };
    let event = last_event(store, &metadata).await?;
    Ok(event.and_then(|event| serde_json::from_slice(event.data.bytes()).ok()))
}

/// The event that clients see in a metadata stream: only the last one.
pub(crate) async fn visible_event(
    store: &dyn Store,
    metadata: &StreamId,
    described: &StreamId,
) -> Result<Option<RecordedEvent>, Status> {
    let Some(mut event) = last_event(store, metadata).await? else { return Ok(None) };
    let properties = serde_json::from_slice::<Map<String, Value>>(event.data.bytes());
    if let Ok(mut properties) = properties
        && properties.get(TRUNCATE_BEFORE).and_then(Value::as_u64) == Some(DELETED)
    {
        let info = store.stream_info(described).await.map_err(|e| status(&e))?;
        if info.state == StreamState::Live {
            // The stream was deleted and then appended to again. EventStoreDB sets `$tb` to the
            // first revision after the deletion when that happens. The gateway computes it here.
            let first = info.first_version.unwrap_or(info.version.plus(1));
            properties.insert(TRUNCATE_BEFORE.to_owned(), first.minus(1).get().into());
            event.data = annals_core::Payload::json(&properties).map_err(|e| status(&e))?;
        }
    }
    Ok(Some(event))
}

/// The metadata to write when a stream is deleted: its present metadata, with `$tb` set.
pub(crate) async fn for_deleted(store: &dyn Store, stream: &StreamId) -> Result<Value, Status> {
    let mut properties = properties(store, stream).await?.unwrap_or_default();
    properties.insert(TRUNCATE_BEFORE.to_owned(), DELETED.into());
    Ok(Value::Object(properties))
}

/// Truncates a stream in the store, as a scavenge would, after its metadata got a new `$tb`.
pub(crate) async fn apply_truncation(store: &dyn Store, stream: &StreamId) {
    let before = properties(store, stream).await.ok().flatten();
    let before = before.and_then(|p| p.get(TRUNCATE_BEFORE).and_then(Value::as_u64));
    let Some(before) = before.filter(|before| (1..DELETED).contains(before)) else { return };
    if store.capabilities().truncate
        && let Err(error) = store.truncate(stream, (before + 1).into()).await
    {
        // `HiddenEvents` still hides the events, so the append has succeeded.
        tracing::warn!(%stream, %error, "could not truncate a stream to the $tb of its metadata");
    }
}
