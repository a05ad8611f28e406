//! How the events of one enum are stored, and read again.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use annals_core::{
    Error, ErrorKind, EventType, Filter, NewEvent, Payload, RecordedEvent, Result, StreamId,
};
use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "personal")]
use crate::personal::{Opened, PersonalData, Subject};
use crate::{Context, Upcasters, codec, observe};

/// How the events of an enum are stored: the name of the variant is the event's type, its content
/// the data, as JSON. So `#[serde(rename = "…")]` gives a type that is stable whatever the variant
/// is called, and `#[serde(alias = "…")]` reads an old name.
///
/// ```
/// # use annals_domain::Schema;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// enum OrderEvent {
///     #[serde(rename = "order-placed")]
///     Placed { sku: String, cents: u64 }, // {"sku":"mug","cents":1800}
///     #[serde(rename = "order-cancelled")]
///     Cancelled, // {}
/// }
/// let schema = Schema::<OrderEvent>::new()?;
/// # Ok::<(), annals_core::Error>(())
/// ```
pub struct Schema<E> {
    names: &'static [&'static str],
    upcasters: Arc<Upcasters>,
    #[cfg(feature = "personal")]
    personal: Option<Arc<Personal<E>>>,
    /// How many events were skipped; none where that is not wanted.
    skipped: Option<Arc<AtomicU64>>,
    events: PhantomData<fn() -> E>,
}

#[cfg(feature = "personal")]
struct Personal<E> {
    data: PersonalData,
    subject: SubjectOf<E>,
}

#[cfg(feature = "personal")]
type SubjectOf<E> = Box<dyn Fn(&E) -> Result<Option<Subject>> + Send + Sync>;

/// What a stored event says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decoded<E> {
    /// One event: where nothing was upcast, always.
    One(E),
    /// What an upcaster made of it: any number of events.
    Many(Vec<E>),
    /// The data was encrypted for somebody who has been forgotten.
    Forgotten,
    /// It cannot be read, and [was to be skipped](Schema::skip_unreadable).
    Skipped,
}

impl<E> Decoded<E> {
    /// The events, in order; of what is forgotten or skipped none.
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
    /// Without upcasters.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a type that is no enum as `serde` derives it, and for
    /// variants whose names are no [`EventType`].
    pub fn new() -> Result<Self> {
        let Some(names) = codec::names::<E>() else {
            let message = format!("{}: {}", std::any::type_name::<E>(), codec::NO_ENUM);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        for name in names {
            EventType::new(*name)?;
        }
        Ok(Self {
            names,
            upcasters: Arc::default(),
            #[cfg(feature = "personal")]
            personal: None,
            skipped: None,
            events: PhantomData,
        })
    }

    /// Reads old events, too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where an upcaster leads back to where it began, or to a type
    /// that nothing reads.
    pub fn with_upcasters(mut self, upcasters: Upcasters) -> Result<Self> {
        upcasters.check(self.names)?;
        self.upcasters = Arc::new(upcasters);
        Ok(self)
    }

    /// Encrypts the events that are about somebody, so that they can be forgotten. Where it fails to
    /// say about whom, the event is not written.
    #[cfg(feature = "personal")]
    #[must_use]
    pub fn with_personal_data(
        mut self,
        data: PersonalData,
        subject: impl Fn(&E) -> Result<Option<Subject>> + Send + Sync + 'static,
    ) -> Self {
        self.personal = Some(Arc::new(Personal { data, subject: Box::new(subject) }));
        self
    }

    /// Leaves out what cannot be read, and [counts](Schema::skipped) it, instead of failing. Not
    /// for deciders, whose decisions would rest on less than what happened.
    #[must_use]
    pub fn skip_unreadable(mut self) -> Self {
        self.skipped = Some(Arc::default());
        self
    }

    /// How many events were skipped, by this and all its clones.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.as_ref().map_or(0, |skipped| skipped.load(Relaxed))
    }

    /// Every type of event that it reads, old ones too.
    #[must_use]
    pub fn types(&self) -> Vec<EventType> {
        let mut types: Vec<&str> =
            self.upcasters.types().chain(self.names.iter().copied()).collect();
        types.sort_unstable();
        types.dedup();
        types.into_iter().filter_map(|name| EventType::new(name).ok()).collect()
    }

    /// A filter that lets through what it reads.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter::default().with_event_types(self.types())
    }

    /// An event, as it is to be appended to a stream.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where it cannot be serialised, or not be read again; for
    /// personal data those of its key store.
    pub async fn encode(
        &self,
        stream: &StreamId,
        event: &E,
        context: &Context,
    ) -> Result<NewEvent> {
        let unwritable = |why: String| {
            let message = format!("an event of {} {why}", std::any::type_name::<E>());
            Error::new(ErrorKind::InvalidInput, message).with_stream(stream)
        };
        let (name, data) = codec::encode(event)
            .map_err(|e| unwritable("cannot be written as JSON".to_owned()).with_source(e))?;
        if !self.names.contains(&name.as_str()) {
            let why = format!("is written as {name:?}, which none of its variants would read");
            return Err(unwritable(why));
        }
        let new = context.attach(NewEvent::new(EventType::new(name)?, data))?;
        #[cfg(feature = "personal")]
        if let Some(personal) = &self.personal
            && let Some(subject) = (personal.subject)(event)?
        {
            return personal.data.seal(stream, new, &subject).await;
        }
        Ok(new)
    }

    /// What a stored event says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the stream, the version and the type, for a type that is not
    /// known and for data that does not fit; unless that [is skipped](Schema::skip_unreadable). For
    /// personal data those of its key store.
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
        let read = if self.upcasters.knows(name) {
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

    pub(crate) fn upcasters(&self) -> &Upcasters {
        &self.upcasters
    }

    /// What data of a type says, upcast where that is due.
    pub(crate) fn read_type(&self, name: &str, data: &Payload) -> Result<Vec<E>> {
        let made = self.upcasters.apply(name, data.clone())?;
        made.iter().map(|made| self.read_one(&made.event_type, &made.data)).collect()
    }

    fn read_one(&self, name: &str, data: &Payload) -> Result<E> {
        codec::decode(name, data.bytes()).map_err(|e| {
            let what = if self.names.contains(&name) { "data" } else { "type" };
            let message = format!("the {what} is none of {}", std::any::type_name::<E>());
            Error::new(ErrorKind::Corrupt, message).with_source(e)
        })
    }
}

impl<E> Clone for Schema<E> {
    fn clone(&self) -> Self {
        Self {
            names: self.names,
            upcasters: self.upcasters.clone(),
            #[cfg(feature = "personal")]
            personal: self.personal.clone(),
            skipped: self.skipped.clone(),
            events: PhantomData,
        }
    }
}

impl<E> fmt::Debug for Schema<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("names", &self.names)
            .field("upcasters", &self.upcasters)
            .finish_non_exhaustive()
    }
}
