//! Events: to be written, and recorded.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{Error, EventType, Payload, Position, Result, StreamId, Version, metadata};

/// An event to be written.
///
/// ```
/// use annals_core::NewEvent;
/// let event = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?
///     .with_correlation_id("checkout-7")?;
/// assert_eq!(event.correlation_id().as_deref(), Some("checkout-7"));
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    id: Uuid,
    event_type: EventType,
    data: Payload,
    metadata: Payload,
}

impl NewEvent {
    /// An event with a fresh id (UUID version 7) and no metadata.
    #[must_use]
    pub fn new(event_type: EventType, data: Payload) -> Self {
        Self { id: Uuid::now_v7(), event_type, data, metadata: Payload::empty() }
    }

    /// An event whose data is a value, serialised as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where the type is not a legal
    /// name, or the value cannot be serialised.
    pub fn json<T: Serialize + ?Sized>(
        event_type: impl TryInto<EventType, Error: Into<Error>>,
        value: &T,
    ) -> Result<Self> {
        Ok(Self::new(event_type.try_into().map_err(Into::into)?, Payload::json(value)?))
    }

    /// An event whose data is bytes of any kind.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where the type is not a legal
    /// name.
    pub fn binary(
        event_type: impl TryInto<EventType, Error: Into<Error>>,
        bytes: impl Into<Bytes>,
    ) -> Result<Self> {
        Ok(Self::new(event_type.try_into().map_err(Into::into)?, Payload::binary(bytes)))
    }

    /// Sets the id. Appending the same ids again is how a retry is recognised.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets the metadata. Its content kind follows from the bytes, since not every backend can
    /// store one for metadata: JSON where they are one JSON text, else binary.
    #[must_use]
    pub fn with_metadata(mut self, bytes: impl Into<Bytes>) -> Self {
        self.metadata = Payload::inferred(bytes);
        self
    }

    /// Sets the metadata to a value, serialised as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where it cannot be serialised.
    pub fn with_json_metadata<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self> {
        self.metadata = Payload::json(value)?;
        Ok(self)
    }

    /// Sets `$correlationId` in the metadata, and leaves its other members as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where there is metadata that is
    /// not a JSON object.
    pub fn with_correlation_id(mut self, id: impl AsRef<str>) -> Result<Self> {
        self.metadata = metadata::with(&self.metadata, metadata::CORRELATION_ID, id.as_ref())?;
        Ok(self)
    }

    /// Sets `$causationId` in the metadata, and leaves its other members as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where there is metadata that is
    /// not a JSON object.
    pub fn with_causation_id(mut self, id: impl AsRef<str>) -> Result<Self> {
        self.metadata = metadata::with(&self.metadata, metadata::CAUSATION_ID, id.as_ref())?;
        Ok(self)
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The type.
    #[must_use]
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &Payload {
        &self.data
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Payload {
        &self.metadata
    }

    /// `$correlationId` of the metadata, where that is a JSON object with such a string.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CORRELATION_ID)
    }

    /// `$causationId` of the metadata, where that is a JSON object with such a string.
    #[must_use]
    pub fn causation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CAUSATION_ID)
    }

    /// What counts against [`Capabilities::max_event_bytes`](crate::Capabilities::max_event_bytes):
    /// the bytes of data and metadata.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.metadata.len()
    }

    /// For adapters: an event as it was stored, unchecked, since it was checked when it was written.
    #[must_use]
    pub fn from_stored(id: Uuid, event_type: EventType, data: Payload, metadata: Payload) -> Self {
        Self { id, event_type, data, metadata }
    }

    /// For adapters: the event as it stands once recorded.
    #[must_use]
    pub fn recorded(
        self,
        stream: StreamId,
        version: Version,
        position: Position,
        recorded_at: DateTime<Utc>,
    ) -> RecordedEvent {
        let Self { id, event_type, data, metadata } = self;
        RecordedEvent { stream, version, position, recorded_at, id, event_type, data, metadata }
    }
}

/// An event as a store holds it. Cloning one copies no payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// The stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its place in the whole store.
    pub position: Position,
    /// When the store recorded it, by the clock of whoever assigned the position: UTC, whole
    /// microseconds. Clocks go backwards; order is by position.
    pub recorded_at: DateTime<Utc>,
    /// The id it was given.
    pub id: Uuid,
    /// The type.
    pub event_type: EventType,
    /// The data.
    pub data: Payload,
    /// The metadata.
    pub metadata: Payload,
}

impl RecordedEvent {
    /// The bytes of data and metadata.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.metadata.len()
    }

    /// The value that the data, a JSON text, stands for.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the stream, version and type, where
    /// the data is not JSON, or not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        self.data.decode().map_err(|e| {
            let what = format!(
                "event {} of type {:?} cannot be read as {}",
                self.version,
                self.event_type,
                std::any::type_name::<T>()
            );
            Error::new(e.kind(), what).with_stream(&self.stream).with_source(e)
        })
    }

    /// `$correlationId` of the metadata, where that is a JSON object with such a string.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CORRELATION_ID)
    }

    /// `$causationId` of the metadata, where that is a JSON object with such a string.
    #[must_use]
    pub fn causation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CAUSATION_ID)
    }
}
