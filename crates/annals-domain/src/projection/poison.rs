//! Poison: events on which a handler fails at every try.

use std::future::ready;

use annals_core::{
    Append, ExpectedVersion, NewEvent, Position, ReadStream, RecordedEvent, Result, Store,
    StreamId, SubscriberId, TryStreamExt, Version,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BoxError, error::chain};
use crate::{RetryPolicy, observe};

/// What a projection does with an event on which the handler fails at every try.
///
/// ```
/// use annals_core::{Store, StreamId};
/// use annals_domain::projection::{Handler, OnPoison, Poison, Projection};
/// # use std::sync::Arc;
/// # async fn run(store: Arc<dyn Store>, handler: impl Handler) -> Result<(), Box<dyn std::error::Error>> {
/// let parking = StreamId::new("parked-letters")?;
/// let mut projection = Projection::at_least_once(store.clone(), "letters", handler)?
///     .with_poison(OnPoison::Park(parking.clone()));
/// projection.catch_up().await?;
/// for (version, poison) in Poison::parked(&*store, &parking).await? {
///     println!("{}: event {} of {}", poison.error, poison.version, poison.stream);
///     store.truncate(&parking, version.plus(1)).await?; // this entry is dealt with
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnPoison {
    /// The projection stops with [`ProjectionError::Poison`](super::ProjectionError::Poison). The
    /// next run begins with this event.
    Stop,
    /// The projection appends a [`Poison`], which names the event, to this stream of the event store,
    /// and goes on with the next event. It then handles later events of the same stream without
    /// having handled this one.
    ///
    /// A projection that parks is not given the parked events of any projection, so that what was
    /// parked is not parked again. To handle them, use a projection that stops.
    Park(StreamId),
}

/// The type of the events in a stream of parked events.
pub(super) const PARKED: &str = "annals.parked";

/// A reference to an event on which a handler failed, without the event's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "camelCase")]
pub struct Poison {
    /// The projection, by the name of its checkpoint.
    pub projection: String,
    /// The stream of the event.
    pub stream: String,
    /// The version of the event.
    pub version: Version,
    /// The position of the event.
    pub position: Position,
    /// The id of the event.
    pub event_id: Uuid,
    /// The type of the event.
    pub event_type: String,
    /// The text of the handler's last error and of its causes.
    pub error: String,
}

impl Poison {
    pub(super) fn new(projection: &SubscriberId, event: &RecordedEvent, error: &BoxError) -> Self {
        Self {
            projection: projection.to_string(),
            stream: event.stream.to_string(),
            version: event.version,
            position: event.position,
            event_id: event.id,
            event_type: event.event_type.to_string(),
            error: chain(&**error),
        }
    }

    /// Everything that was parked in the stream, in order, each with its version in that stream. When
    /// you have dealt with an event, [truncate](annals_core::EventStore::truncate) the stream after
    /// it.
    ///
    /// # Errors
    /// Those of the store; [`ErrorKind::Corrupt`](annals_core::ErrorKind::Corrupt) if the stream
    /// contains other events.
    pub async fn parked(store: &dyn Store, stream: &StreamId) -> Result<Vec<(Version, Self)>> {
        let events = store.read_stream(stream, ReadStream::default());
        events.and_then(async |event| Ok((event.version, event.json()?))).try_collect().await
    }

    /// Reads the event itself. `None` if it was removed from its stream.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn event(&self, store: &dyn Store) -> Result<Option<RecordedEvent>> {
        let one = ReadStream::default().with_from(self.version).with_limit(1);
        let event = store.read_stream(&StreamId::new(&*self.stream)?, one).try_next().await?;
        Ok(event.filter(|event| event.version == self.version))
    }

    /// Appends this to the parking stream, unless it is there already: after a crash, or when its
    /// checkpoint was reset, the projection comes to the same event again.
    pub(super) async fn park(
        &self,
        store: &dyn Store,
        retry: &RetryPolicy,
        parking: &StreamId,
    ) -> Result<()> {
        let id = Uuid::new_v5(&self.event_id, self.projection.as_bytes());
        let event = NewEvent::json(PARKED, self)?.with_id(id);
        let is_parked = || {
            let parked = store.read_stream(parking, ReadStream::default());
            parked.try_any(|parked| ready(parked.id == id))
        };
        if retry.run(is_parked).await? {
            return Ok(());
        }
        let append = Append::new(parking.clone(), ExpectedVersion::Any, [event]);
        retry.write(|| store.append(append.clone())).await?;
        metrics::counter!(observe::PROJECTION_PARKED, "projection" => self.projection.clone())
            .increment(1);
        tracing::error!(
            projection = self.projection,
            stream = self.stream,
            version = self.version.get(),
            event_type = self.event_type,
            error = self.error,
            "an event was parked"
        );
        Ok(())
    }
}
