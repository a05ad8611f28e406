//! Events on which a handler fails for good.

use annals_core::{
    Append, ExpectedVersion, NewEvent, Position, ReadStream, RecordedEvent, Result, Store,
    StreamId, SubscriberId, TryStreamExt, Version,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::BoxError;
use crate::{RetryPolicy, observe};

/// What becomes of an event on which the handler fails for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnPoison {
    /// The projection stops with an error that names it, and begins there again.
    Stop,
    /// A [`Poison`] that names it is appended to this stream of the event store, and the projection
    /// goes on with the next. Later events of its stream are then handled without it.
    Park(StreamId),
}

/// The type of the events in a stream of parked ones.
const PARKED: &str = "annals.parked";

/// What is kept of an event on which a handler failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "camelCase")]
pub struct Poison {
    /// Which projection it was: the name of its checkpoint.
    pub projection: String,
    /// The stream of the event.
    pub stream: String,
    /// Its version.
    pub version: Version,
    /// Its position.
    pub position: Position,
    /// Its id.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// What the handler said, the last time.
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
            error: error.to_string(),
        }
    }

    /// What was parked in a stream, in order, and the version of each there. What has
    /// been dealt with is [truncated](annals_core::EventStore::truncate).
    ///
    /// # Errors
    /// Those of the store; [`ErrorKind::Corrupt`](annals_core::ErrorKind::Corrupt) for a stream of other events.
    pub async fn parked(store: &dyn Store, stream: &StreamId) -> Result<Vec<(Version, Self)>> {
        let events = store.read_stream(stream, ReadStream::default());
        events.and_then(async |event| Ok((event.version, event.json()?))).try_collect().await
    }

    /// The event itself.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn event(&self, store: &dyn Store) -> Result<Option<RecordedEvent>> {
        let one = ReadStream::default().with_from(self.version).with_limit(1);
        let event = store.read_stream(&StreamId::new(&*self.stream)?, one).try_next().await?;
        Ok(event.filter(|event| event.version == self.version))
    }

    /// Keeps it where it will be found. What is parked again, after a crash, has the same id, by
    /// which a store knows it again as surely as it declares.
    pub(super) async fn park(
        &self,
        store: &dyn Store,
        retry: &RetryPolicy,
        parking: &StreamId,
    ) -> Result<()> {
        let id = Uuid::new_v5(&self.event_id, self.projection.as_bytes());
        let event = NewEvent::json(PARKED, self)?.with_id(id);
        let append = Append::new(parking.clone(), ExpectedVersion::Any, [event]);
        retry.run(|| store.append(append.clone())).await?;
        metrics::counter!(observe::PROJECTION_PARKED, "projection" => self.projection.clone())
            .increment(1);
        tracing::error!(
            projection = self.projection,
            stream = self.stream,
            version = self.version.get(),
            event_type = self.event_type,
            error = self.error,
            "parked"
        );
        Ok(())
    }
}
