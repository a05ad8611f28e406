//! The metadata of a stream, which hides some of its events.

use annals_core::{ReadStream, RecordedEvent, Store, StreamId, StreamState, TryStreamExt};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use tonic::Status;

use crate::{
    names::{described_by, metadata_of},
    status::status,
};

/// The type of the events of such a stream.
pub(crate) const TYPE: &str = "$metadata";
const TRUNCATE_BEFORE: &str = "$tb";
const MAX_COUNT: &str = "$maxCount";
const MAX_AGE: &str = "$maxAge";
/// `$tb` of a stream that was deleted.
const DELETED: u64 = i64::MAX as u64;

/// Which events of a stream are not shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hiding {
    /// Those before this revision.
    before: u64,
    /// Those that are older.
    max_age: Option<TimeDelta>,
}

impl Hiding {
    /// Of a stream, as its metadata is now.
    pub(crate) async fn of(store: &dyn Store, stream: &StreamId) -> Result<Self, Status> {
        let Some(properties) = properties(store, stream).await? else { return Ok(Self::default()) };
        let number = |name| properties.get(name).and_then(Value::as_u64);
        // The store has removed what was deleted; what came after that is shown.
        let mut before = number(TRUNCATE_BEFORE).filter(|tb| *tb < DELETED).unwrap_or(0);
        if let Some(count) = number(MAX_COUNT) {
            let info = store.stream_info(stream).await.map_err(|e| status(&e))?;
            before = before.max(info.version.get().saturating_sub(count));
        }
        let seconds = number(MAX_AGE).and_then(|seconds| i64::try_from(seconds).ok());
        Ok(Self { before, max_age: seconds.and_then(TimeDelta::try_seconds) })
    }

    /// The revision before which nothing is shown.
    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    pub(crate) fn hides(&self, event: &RecordedEvent) -> bool {
        let age = |max: TimeDelta| {
            let oldest: Option<DateTime<Utc>> = Utc::now().checked_sub_signed(max);
            oldest.is_some_and(|oldest| event.recorded_at < oldest)
        };
        event.version.get() <= self.before || self.max_age.is_some_and(age)
    }
}

/// The last event of a stream.
pub(crate) async fn last(
    store: &dyn Store,
    stream: &StreamId,
) -> Result<Option<RecordedEvent>, Status> {
    let options = ReadStream::default().backwards().with_limit(1);
    store.read_stream(stream, options).try_next().await.map_err(|e| status(&e))
}

async fn properties(
    store: &dyn Store,
    stream: &StreamId,
) -> Result<Option<Map<String, Value>>, Status> {
    let Some(metadata) = metadata_of(stream) else { return Ok(None) };
    // What is no JSON object hides nothing.
    let event = last(store, &metadata).await?;
    Ok(event.and_then(|event| serde_json::from_slice(event.data.bytes()).ok()))
}

/// The last event of a stream of metadata, the only one that is shown.
pub(crate) async fn event(
    store: &dyn Store,
    metadata: &StreamId,
    described: &StreamId,
) -> Result<Option<RecordedEvent>, Status> {
    let Some(mut event) = last(store, metadata).await? else { return Ok(None) };
    let properties = serde_json::from_slice::<Map<String, Value>>(event.data.bytes());
    if let Ok(mut properties) = properties
        && properties.get(TRUNCATE_BEFORE).and_then(Value::as_u64) == Some(DELETED)
    {
        let info = store.stream_info(described).await.map_err(|e| status(&e))?;
        if info.state == StreamState::Live {
            // It was deleted, and lives again: from then on it is cut off where it began anew.
            let first = info.first_version.unwrap_or(info.version.plus(1));
            properties.insert(TRUNCATE_BEFORE.to_owned(), first.minus(1).get().into());
            event.data = annals_core::Payload::json(&properties).map_err(|e| status(&e))?;
        }
    }
    Ok(Some(event))
}

/// What the metadata of a stream becomes when it is deleted.
pub(crate) async fn of_deleted(store: &dyn Store, stream: &StreamId) -> Result<Value, Status> {
    let mut properties = properties(store, stream).await?.unwrap_or_default();
    properties.insert(TRUNCATE_BEFORE.to_owned(), DELETED.into());
    Ok(Value::Object(properties))
}

/// After an append to a stream of metadata: what it hides for good is removed, as a scavenge would.
pub(crate) async fn apply(store: &dyn Store, metadata: &StreamId) {
    let Some(stream) = described_by(metadata) else { return };
    let before = properties(store, &stream).await.ok().flatten();
    let before = before.and_then(|p| p.get(TRUNCATE_BEFORE).and_then(Value::as_u64));
    let Some(before) = before.filter(|before| (1..DELETED).contains(before)) else { return };
    if store.capabilities().truncate
        && let Err(error) = store.truncate(&stream, (before + 1).into()).await
    {
        // It is hidden all the same.
        tracing::warn!(%stream, %error, "a stream could not be truncated");
    }
}
