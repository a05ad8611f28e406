//! From a stored event to the events of an enum.

use std::sync::atomic::Ordering::Relaxed;

use annals_core::{Error, ErrorKind, Payload, RecordedEvent, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::Schema;
#[cfg(feature = "personal")]
use crate::personal::Opened;
use crate::{codec, observe};

/// A stored event after decoding, from [`Schema::decode`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decoded<E> {
    /// One event. Always this if no upcaster applies.
    One(E),
    /// The events that upcasters made of the stored event: any number.
    Many(Vec<E>),
    /// The event's data is about a subject that was forgotten.
    Forgotten,
    /// The event cannot be read, and the schema [skips](Schema::skip_unreadable) such events.
    Skipped,
}

impl<E> Decoded<E> {
    /// The events, in order. A forgotten or skipped event gives none.
    pub fn into_events(self) -> impl Iterator<Item = E> {
        let (one, many) = match self {
            Self::One(event) => (Some(event), Vec::new()),
            Self::Many(events) => (None, events),
            Self::Forgotten | Self::Skipped => (None, Vec::new()),
        };
        one.into_iter().chain(many)
    }
}

impl<E: Serialize + DeserializeOwned> Schema<E> {
    /// Reads a stored event.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], with the stream, version and type, for an unknown type and for data
    /// that does not fit the variant, unless the schema [skips](Schema::skip_unreadable) such
    /// events; for personal data also those of the key store.
    pub async fn decode(&self, event: &RecordedEvent) -> Result<Decoded<E>> {
        #[cfg(feature = "personal")]
        if let Some(personal) = &self.personal {
            return match personal.data.open(event).await? {
                Opened::Payload(data) => self.read(event, &data),
                Opened::Forgotten(_) => Ok(Decoded::Forgotten),
            };
        }
        self.read(event, &event.data)
    }

    fn read(&self, event: &RecordedEvent, data: &Payload) -> Result<Decoded<E>> {
        let name = event.event_type.as_str();
        let read = if self.upcasters.has(name) {
            self.read_type(name, data).map(Decoded::Many)
        } else {
            self.read_one(name, data).map(Decoded::One)
        };
        match (read, &self.skipped) {
            (Ok(read), _) => Ok(read),
            (Err(why), Some(skipped)) => {
                skipped.fetch_add(1, Relaxed);
                let (stream, version) = (&event.stream, event.version.get());
                tracing::warn!(%stream, version, event_type = name, %why, "an event was skipped");
                metrics::counter!(observe::EVENTS_SKIPPED).increment(1);
                Ok(Decoded::Skipped)
            }
            (Err(why), None) => {
                let message = format!("event {} of type {name:?} cannot be read", event.version);
                Err(Error::new(ErrorKind::Corrupt, message)
                    .with_stream(&event.stream)
                    .with_source(why))
            }
        }
    }

    /// Reads data of a type, by upcasters if there are any for it.
    pub(crate) fn read_type(&self, name: &str, data: &Payload) -> Result<Vec<E>> {
        let made = self.upcasters.apply(name, data.clone())?;
        made.iter().map(|made| self.read_one(&made.event_type, &made.data)).collect()
    }

    fn read_one(&self, name: &str, data: &Payload) -> Result<E> {
        codec::decode(name, data.bytes()).map_err(|e| {
            let enum_name = std::any::type_name::<E>();
            let message = if self.names.contains(&name) {
                format!("the data does not fit the variant of {enum_name}")
            } else {
                format!("{enum_name} has no variant for the type {name:?}")
            };
            Error::new(ErrorKind::Corrupt, message).with_source(e)
        })
    }
}
