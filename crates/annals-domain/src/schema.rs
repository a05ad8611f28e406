//! How the events of an enum are stored and read.

mod read;
mod write;

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use annals_core::{Error, ErrorKind, EventType, Filter, Result, Store};
use serde::{Serialize, de::DeserializeOwned};

pub use self::read::Decoded;
#[cfg(feature = "personal")]
use crate::personal::{PersonalData, Subject};
use crate::{Upcasters, codec};

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

    /// A filter that passes the event types that the schema reads. A projection of two schemas takes the
    /// types of both:
    ///
    /// ```
    /// # use annals_core::{Filter, Result};
    /// # use annals_domain::Schema;
    /// # #[derive(serde::Serialize, serde::Deserialize)] enum OrderEvent { Placed }
    /// # #[derive(serde::Serialize, serde::Deserialize)] enum StockEvent { Received }
    /// let (orders, stock) = (Schema::<OrderEvent>::new()?, Schema::<StockEvent>::new()?);
    /// let filter = Filter::default().with_event_types(orders.types().into_iter().chain(stock.types()));
    /// # assert_eq!(filter.event_types.len(), 2);
    /// # Ok::<(), annals_core::Error>(())
    /// ```
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter::default().with_event_types(self.types())
    }

    pub(crate) fn upcasters(&self) -> &Upcasters {
        &self.upcasters
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
