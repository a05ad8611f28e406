//! How the events of an enum are stored and read.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use annals_core::{
    Error, ErrorKind, EventType, Filter, NewEvent, Payload, RecordedEvent, Result, Store, StreamId,
};
use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "personal")]
use crate::personal::{Opened, PersonalData, Subject};
use crate::{
    Context, Upcasters,
    codec::{self, Unreadable},
    observe,
};

/// How the events of an enum are stored: the name of the variant is the event's type, and the content
/// of the variant is the event's data, as JSON. `#[serde(rename = "…")]` sets a type that stays the
/// same when the variant is renamed, and `#[serde(alias = "…")]` reads an old type as well.
///
/// ```
/// use annals_core::StreamId;
/// use annals_domain::{Context, Schema};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// enum OrderEvent {
///     #[serde(rename = "order-placed")]
///     Placed { sku: String, cents: u64 },
///     #[serde(rename = "order-cancelled")]
///     Cancelled, // the data is {}
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> annals_core::Result<()> {
/// let schema = Schema::<OrderEvent>::new()?;
/// let placed = OrderEvent::Placed { sku: "mug".into(), cents: 1800 };
/// let new = schema.encode(&StreamId::new("order-42")?, &placed, &Context::new()).await?;
/// assert_eq!(new.event_type().as_str(), "order-placed");
/// assert_eq!(new.data().bytes().as_ref(), br#"{"sku":"mug","cents":1800}"#);
/// # Ok(()) }
/// ```
pub struct Schema<E> {
    names: &'static [&'static str],
    upcasters: Arc<Upcasters>,
    #[cfg(feature = "personal")]
    personal: Option<Arc<Personal<E>>>,
    /// The store of the events, which keeps marks of the subjects that have keys.
    #[cfg(feature = "personal")]
    marks: Option<Arc<dyn Store>>,
    /// How many events were skipped. `None` if unreadable events are errors.
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
    /// A schema without upcasters and without personal data.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `E` is not an enum that derives `Serialize` and `Deserialize`
    /// without `tag`, `content` or `untagged`, and if the name of a variant is not a valid
    /// [`EventType`].
    pub fn new() -> Result<Self> {
        let Some(names) = codec::names::<E>() else {
            let message = format!("{}: {}", std::any::type_name::<E>(), codec::NOT_AN_ENUM);
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
            #[cfg(feature = "personal")]
            marks: None,
            skipped: None,
            events: PhantomData,
        })
    }

    /// Sets the upcasters, by which the schema also reads events of old types.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if upcasters lead in a circle, or to a type for which there is
    /// neither a variant nor an upcaster.
    pub fn with_upcasters(mut self, upcasters: Upcasters) -> Result<Self> {
        upcasters.check(self.names)?;
        self.upcasters = Arc::new(upcasters);
        Ok(self)
    }

    /// Encrypts the data of events that are about a subject, so that the subject can be forgotten.
    /// A [`CommandHandler`](crate::CommandHandler) refuses to make a second key for a subject, as with a
    /// key store that is not the right one: the store of the events keeps a mark, which does not name the
    /// subject, of each that got one.
    /// `subject` returns the subject of an event, or `None` for an event that is not about anybody.
    /// If it returns an error, the event is not written.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use annals_domain::{Schema, personal::{MemoryKeys, PersonalData, Subject}};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # enum Event {
    /// #     #[serde(rename = "registered")] Registered { customer: u64, name: String },
    /// #     #[serde(rename = "paid")] Paid,
    /// # }
    /// let personal = PersonalData::new(Arc::new(MemoryKeys::new()));
    /// let schema = Schema::<Event>::new()?.with_personal_data(personal, |event| match event {
    ///     Event::Registered { customer, .. } => Subject::new(format!("customer-{customer}")).map(Some),
    ///     Event::Paid => Ok(None),
    /// });
    /// # Ok::<(), annals_core::Error>(())
    /// ```
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

    /// Encodes events for this store.
    #[must_use]
    #[cfg_attr(not(feature = "personal"), expect(unused_mut, unused_variables))]
    pub(crate) fn for_store(mut self, store: &Arc<dyn Store>) -> Self {
        #[cfg(feature = "personal")]
        if self.personal.is_some() && store.capabilities().checkpoints {
            self.marks = Some(store.clone());
        }
        self
    }

    /// Skips and [counts](Schema::skipped) events that cannot be read, instead of failing. Do not
    /// use this for deciders, whose decisions would then be based on a part of the events.
    #[must_use]
    pub fn skip_unreadable(mut self) -> Self {
        self.skipped = Some(Arc::default());
        self
    }

    /// How many events this schema and all its clones have skipped.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.as_ref().map_or(0, |skipped| skipped.load(Relaxed))
    }

    /// All event types that the schema reads, including the old ones.
    #[must_use]
    pub fn types(&self) -> Vec<EventType> {
        let mut types: Vec<&str> =
            self.upcasters.types().chain(self.names.iter().copied()).collect();
        types.sort_unstable();
        types.dedup();
        types.into_iter().filter_map(|name| EventType::new(name).ok()).collect()
    }

    /// Whether the schema reads events of this type.
    #[must_use]
    pub fn reads(&self, event_type: &EventType) -> bool {
        let name = event_type.as_str();
        self.names.contains(&name) || self.upcasters.has(name)
    }

    /// A filter that passes the event types that the schema reads.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter::default().with_event_types(self.types())
    }

    /// Makes the event to append to a stream. The event is decoded again and compared with what was
    /// encoded, so that no event is written that could not be read, or would be read as another one.
    /// This costs about as much as encoding it twice and decoding it once, which is little beside an
    /// append.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the event cannot be serialised, or would not be read as it is
    /// written: a number that is infinite or NaN, `Some(None)`, a structure more than 127 levels deep,
    /// a field that is written but not read, or an attribute of `serde` that differs for the two. For
    /// personal data also those of the key store.
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
            .map_err(|e| unwritable(format!("cannot be written: {e}")).with_source(e))?;
        if !self.names.contains(&name.as_str()) {
            let why = format!("is written as {name:?}, which none of its variants would read");
            return Err(unwritable(why));
        }
        self.check_readable(&name, &data).map_err(|(why, cause)| match cause {
            Some(cause) => unwritable(why.to_owned()).with_source(cause),
            None => unwritable(why.to_owned()),
        })?;
        let new = context.attach(NewEvent::new(EventType::new(name)?, data))?;
        #[cfg(feature = "personal")]
        if let Some(personal) = &self.personal
            && let Some(subject) = (personal.subject)(event)?
        {
            let marks = self.marks.as_deref();
            return personal.data.seal_for(marks, stream, new, &subject).await;
        }
        Ok(new)
    }

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

    pub(crate) fn upcasters(&self) -> &Upcasters {
        &self.upcasters
    }

    /// Reads data of a type, by upcasters if there are any for it.
    pub(crate) fn read_type(&self, name: &str, data: &Payload) -> Result<Vec<E>> {
        let made = self.upcasters.apply(name, data.clone())?;
        made.iter().map(|made| self.read_one(&made.event_type, &made.data)).collect()
    }

    fn check_readable(&self, name: &str, data: &Payload) -> Result<(), Unreadable> {
        if !self.upcasters.has(name) {
            return codec::check_readable::<E>(name, data);
        }
        // The type is an old one, too: what is read is what its upcaster makes.
        let read = self.read_type(name, data).map(drop);
        read.map_err(|e| ("could not be read again by the upcaster of its type", Some(e.into())))
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

impl<E> Clone for Schema<E> {
    fn clone(&self) -> Self {
        Self {
            names: self.names,
            upcasters: self.upcasters.clone(),
            #[cfg(feature = "personal")]
            personal: self.personal.clone(),
            #[cfg(feature = "personal")]
            marks: self.marks.clone(),
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
