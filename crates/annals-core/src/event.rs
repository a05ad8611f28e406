//! Events: [`NewEvent`], to be written, and [`RecordedEvent`], as a store holds it.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{Error, EventType, Payload, Position, Result, StreamId, Version, metadata};

/// An event to write. The store adds a version, a position and a time, and it becomes a
/// [`RecordedEvent`].
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
    /// An event with a new id (UUID version 7) and no metadata.
    #[must_use]
    pub fn new(event_type: EventType, data: Payload) -> Self {
        Self { id: Uuid::now_v7(), event_type, data, metadata: Payload::empty() }
    }

    /// An event whose data is a value, serialised as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the type is not a legal
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
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the type is not a legal
    /// name.
    pub fn binary(
        event_type: impl TryInto<EventType, Error: Into<Error>>,
        bytes: impl Into<Bytes>,
    ) -> Result<Self> {
        Ok(Self::new(event_type.try_into().map_err(Into::into)?, Payload::binary(bytes)))
    }

    /// Sets the id. A store recognises the retry of an append by the ids of its events, so a retry
    /// must use the same ids.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets the metadata. Its content kind is inferred from the bytes, because not every backend can
    /// store one for metadata: JSON if the bytes are one JSON text, else binary.
    #[must_use]
    pub fn with_metadata(mut self, bytes: impl Into<Bytes>) -> Self {
        self.metadata = Payload::inferred(bytes);
        self
    }

    /// Sets the metadata to a value, serialised as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it cannot be serialised.
    pub fn with_json_metadata<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self> {
        self.metadata = Payload::json(value)?;
        Ok(self)
    }

    /// Sets `$correlationId` in the metadata, and leaves its other members as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the event has metadata that
    /// is not a JSON object.
    pub fn with_correlation_id(mut self, id: impl AsRef<str>) -> Result<Self> {
        self.metadata = metadata::with(&self.metadata, metadata::CORRELATION_ID, id.as_ref())?;
        Ok(self)
    }

    /// Sets `$causationId` in the metadata, and leaves its other members as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the event has metadata that
    /// is not a JSON object.
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

    /// The string `$correlationId` of the metadata; `None` if the metadata has none.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CORRELATION_ID)
    }

    /// The string `$causationId` of the metadata; `None` if the metadata has none.
    #[must_use]
    pub fn causation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CAUSATION_ID)
    }

    /// The number of bytes of data and metadata together, which
    /// [`Capabilities::max_event_bytes`](crate::Capabilities::max_event_bytes) limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.metadata.len()
    }

    /// For adapters: an event from its stored parts. Nothing is checked, because everything was
    /// checked when the event was written.
    #[must_use]
    pub fn from_stored(id: Uuid, event_type: EventType, data: Payload, metadata: Payload) -> Self {
        Self { id, event_type, data, metadata }
    }

    /// For adapters: the event with what the store adds when it records it.
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
    /// The stream that the event is in.
    pub stream: StreamId,
    /// The event's place in its stream.
    pub version: Version,
    /// The event's place in the whole store.
    pub position: Position,
    /// When the event was recorded: UTC, in whole microseconds, by the clock of the machine that
    /// assigned its position. Clocks can go backwards, so order events by position, not by time.
    pub recorded_at: DateTime<Utc>,
    /// The id that the writer gave to the event.
    pub id: Uuid,
    /// The type.
    pub event_type: EventType,
    /// The data.
    pub data: Payload,
    /// The metadata.
    pub metadata: Payload,
}

impl RecordedEvent {
    /// The number of bytes of data and metadata together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.metadata.len()
    }

    /// Decodes the data, a JSON text.
    ///
    /// ```
    /// # use annals_core::{RecordedEvent, Result};
    /// #[derive(serde::Deserialize)]
    /// struct OrderPlaced {
    ///     total: u32,
    /// }
    ///
    /// fn total(event: &RecordedEvent) -> Result<u32> {
    ///     Ok(event.json::<OrderPlaced>()?.total)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), with the stream, version and type of the
    /// event, if the data is not JSON, or not a `T`.
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

    /// The string `$correlationId` of the metadata; `None` if the metadata has none.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CORRELATION_ID)
    }

    /// The string `$causationId` of the metadata; `None` if the metadata has none.
    #[must_use]
    pub fn causation_id(&self) -> Option<String> {
        metadata::get(&self.metadata, metadata::CAUSATION_ID)
    }
}
