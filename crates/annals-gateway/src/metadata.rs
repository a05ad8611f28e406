//! The metadata of a stream, which hides some of the stream's events from clients.

use annals_core::{
    ContentKind, Error, Payload, ReadStream, RecordedEvent, Store, StreamId, StreamState,
    TryStreamExt,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
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
        let metadata = current(store, stream).await.map_err(|e| status(&e))?;
        let properties = metadata.and_then(|metadata| parse(&metadata));
        let Some(properties) = properties else { return Ok(Self::default()) };
        let number = |name| properties.get(name).and_then(Value::as_u64);
        // `DELETED` hides nothing: the store has removed the events that were deleted, and clients
        // see events appended after that.
        let mut before = number(TRUNCATE_BEFORE).filter(|tb| *tb < DELETED).unwrap_or(0);
        // EventStoreDB ignores a count of 0.
        if let Some(count) = number(MAX_COUNT).filter(|count| *count > 0) {
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

/// The last event of a stream, such as the metadata of another stream: only that one counts.
pub(crate) async fn last(
    store: &dyn Store,
    stream: &StreamId,
) -> Result<Option<RecordedEvent>, Error> {
    let options = ReadStream::default().backwards().with_limit(1);
    store.read_stream(stream, options).try_next().await
}

/// The metadata of a stream. `None` if there is none.
pub(crate) async fn current(
    store: &dyn Store,
    stream: &StreamId,
) -> Result<Option<RecordedEvent>, Error> {
    match metadata_stream(stream) {
        Some(metadata) => last(store, &metadata).await,
        None => Ok(None),
    }
}

/// True if a stream has metadata. To EventStoreDB, a stream with metadata exists, even if it never had
/// an event.
pub(crate) async fn exists(store: &dyn Store, stream: &StreamId) -> Result<bool, Error> {
    let Some(metadata) = metadata_stream(stream) else { return Ok(false) };
    Ok(store.stream_info(&metadata).await?.state == StreamState::Live)
}

/// True if the metadata of a stream says that the stream is deleted.
pub(crate) async fn is_deleted(store: &dyn Store, stream: &StreamId) -> Result<bool, Error> {
    Ok(current(store, stream).await?.is_some_and(|event| means_deleted(&event)))
}

/// True if this metadata says that its stream is deleted.
pub(crate) fn means_deleted(metadata: &RecordedEvent) -> bool {
    parse(metadata).is_some_and(|properties| {
        properties.get(TRUNCATE_BEFORE).and_then(Value::as_u64) == Some(DELETED)
    })
}

/// The properties of this metadata. `None` if it is not called JSON, or is not a JSON object:
/// EventStoreDB accepts such metadata, too, and hides nothing by it.
fn parse(metadata: &RecordedEvent) -> Option<Map<String, Value>> {
    /// .NET programs may write it before the text.
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let bytes = metadata.data.bytes().as_ref();
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let is_json = metadata.data.kind() == ContentKind::Json;
    is_json.then(|| serde_json::from_slice(text).ok()).flatten()
}

/// The metadata to write when a stream is deleted. As in EventStoreDB, it replaces the metadata that
/// was there.
pub(crate) fn for_deleted() -> Value {
    truncated(DELETED)
}

/// Metadata that only says which events are hidden.
pub(crate) fn truncated(before: u64) -> Value {
    json!({ TRUNCATE_BEFORE: before })
}

/// Metadata with another `$tb`. The rest keeps its text.
pub(crate) fn with_truncate_before(metadata: &[u8], before: u64) -> Vec<u8> {
    let Ok(mut properties) = serde_json::from_slice::<Map<String, Value>>(metadata) else {
        return truncated(before).to_string().into_bytes();
    };
    let text = metadata.trim_ascii_end();
    match text.strip_suffix(b"}") {
        Some(begin) if !properties.is_empty() && !properties.contains_key(TRUNCATE_BEFORE) => {
            let end = format!(",\"{TRUNCATE_BEFORE}\":{before}}}");
            [begin.trim_ascii_end(), end.as_bytes()].concat()
        }
        _ => {
            properties.insert(TRUNCATE_BEFORE.to_owned(), before.into());
            Value::Object(properties).to_string().into_bytes()
        }
    }
}

/// The event that clients see in a metadata stream: only the last one.
pub(crate) async fn visible_event(
    store: &dyn Store,
    metadata: &StreamId,
    described: &StreamId,
) -> Result<Option<RecordedEvent>, Status> {
    let last = last(store, metadata).await.map_err(|e| status(&e))?;
    let Some(mut event) = last else { return Ok(None) };
    if means_deleted(&event) {
        let info = store.stream_info(described).await.map_err(|e| status(&e))?;
        if info.state == StreamState::Live {
            // The stream was deleted and then appended to again, and not by this gateway: that would
            // have written where the stream begins. So compute it here.
            let first = info.first_version.unwrap_or(info.version.plus(1));
            let begins = truncated(first.minus(1).get());
            event.data = Payload::json(&begins).map_err(|e| status(&e))?;
        }
    }
    Ok(Some(event))
}

/// Truncates a stream in the store, as a scavenge would, after it got metadata with a new `$tb`.
pub(crate) async fn apply_truncation(
    store: &dyn Store,
    stream: &StreamId,
    metadata: &RecordedEvent,
) -> Result<(), Error> {
    let properties = parse(metadata).unwrap_or_default();
    let before = properties.get(TRUNCATE_BEFORE).and_then(Value::as_u64);
    let Some(before) = before.filter(|before| (1..DELETED).contains(before)) else { return Ok(()) };
    if store.capabilities().truncate {
        store.truncate(stream, (before + 1).into()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keeps_its_text_when_it_gets_a_begin() {
        for (before, after) in [
            (r#"{"own":1}"#, r#"{"own":1,"$tb":2}"#),
            ("{ \"own\" : 1 } ", "{ \"own\" : 1,\"$tb\":2}"),
            ("{}", r#"{"$tb":2}"#),
            (r#"{"$tb":9}"#, r#"{"$tb":2}"#),
            ("no json", r#"{"$tb":2}"#),
        ] {
            let with = with_truncate_before(before.as_bytes(), 2);
            assert_eq!(String::from_utf8(with).unwrap(), after);
        }
    }
}
