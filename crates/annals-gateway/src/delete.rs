//! Deleting and tombstoning a stream.

use annals_core::{
    Append, Error, EventStoreExt, ExpectedVersion, NewEvent, Store, StreamId, StreamState, Version,
};
use tonic::Status;

use crate::{
    append::Appender,
    metadata,
    names::{metadata_stream, to_wire, type_from_wire},
    status::{status, stream_deleted},
    tombstones,
};

/// Deletes a stream, and records that in the stream's metadata, as EventStoreDB does. Returns the
/// position of the metadata, if it was written.
pub(crate) async fn delete(
    appender: &Appender,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Result<Option<u64>, Status> {
    let store = &*appender.store;
    let Some(metadata) = metadata_stream(stream) else {
        // As in EventStoreDB, deleting a metadata stream has no effect.
        let position = tombstones::record_nothing(store).await.map_err(|e| status(&e))?;
        return Ok(Some(position.get()));
    };
    let deleted = store.delete(stream, expected).await;
    let info = store.stream_info(stream).await.map_err(|e| status(&e))?;
    let has_metadata = metadata::exists(store, stream).await.map_err(|e| status(&e))?;
    match (deleted, info.state) {
        // A stream with metadata exists to EventStoreDB. Deleting it changes the metadata.
        (_, StreamState::Missing)
            if has_metadata && !matches!(expected, ExpectedVersion::Exact(_)) => {}
        // EventStoreDB refuses to delete a stream that does not exist.
        (Ok(()), StreamState::Missing) => {
            return Err(status(&Error::lost_race(stream, expected, Version::NONE)));
        }
        (Err(_), StreamState::Deleted) if expected == ExpectedVersion::StreamExists => {
            return Err(stream_deleted(to_wire(stream.as_str())));
        }
        (Err(error), _) => return Err(status(&error)),
        (Ok(()), StreamState::Deleted) => {}
        // Another client has appended to the stream since: it is not deleted any more.
        (Ok(()), _) => return Ok(None),
    }
    let event = NewEvent::json(type_from_wire(metadata::TYPE)?, &metadata::for_deleted());
    let event = event.map_err(|e| status(&e))?;
    let append = Append::new(metadata, ExpectedVersion::Any, [event]);
    match appender.write(append, Some(stream)).await {
        Ok(outcome) => Ok(Some(outcome.position)),
        Err(error) => {
            // The stream is deleted even so, and the client must learn that.
            tracing::warn!(%stream, %error, "could not write the metadata of a deleted stream");
            Ok(None)
        }
    }
}

/// Tombstones a stream. Returns the position of the tombstone.
pub(crate) async fn tombstone(
    store: &dyn Store,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Result<u64, Status> {
    let mut tombstoned = store.tombstone(stream, expected).await;
    if expected == ExpectedVersion::StreamExists
        && tombstoned.as_ref().is_err_and(|error| error.conflict().is_some())
    {
        let info = store.stream_info(stream).await.map_err(|e| status(&e))?;
        if info.state == StreamState::Deleted {
            return Err(stream_deleted(to_wire(stream.as_str())));
        }
        let has_metadata = metadata::exists(store, stream).await.map_err(|e| status(&e))?;
        if info.state == StreamState::Missing && has_metadata {
            tombstoned = store.tombstone(stream, ExpectedVersion::NoStream).await;
        }
    }
    tombstoned.map_err(|e| status(&e))?;
    match tombstones::record(store, stream).await {
        Ok(position) => Ok(position),
        Err(error) => {
            // The stream is tombstoned even so, and the client must learn that.
            tracing::warn!(%stream, %error, "could not write the record of a tombstone");
            Ok(store.last_position().await.map_err(|e| status(&e))?.get())
        }
    }
}
