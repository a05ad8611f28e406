//! Events whose data can be forgotten: it is encrypted, with one key for each person.
//!
//! Events cannot be changed, but people may ask to be forgotten. So the data of an event about a
//! person, the [`Subject`], is encrypted before it is appended, with a key that only this subject
//! has. Deleting the key forgets the subject: the data cannot be read any more, neither in the store
//! nor in any copy or backup, while the events, their order and their versions stay.
//!
//! ```
//! # use std::sync::Arc;
//! # use annals_core::{EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//! # use annals_domain::personal::{KeyStore, Opened, PersonalData, StoreKeys, Subject};
//! # use annals_memory::MemoryStore;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! # let (store, store_of_keys) = (MemoryStore::new(), MemoryStore::new());
//! let keys = Arc::new(StoreKeys::new(Arc::new(store_of_keys))?);
//! let personal = PersonalData::new(keys.clone());
//! let subject = Subject::new("customer-7")?;
//! let stream = StreamId::new("order-42")?;
//!
//! let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "name": "Ada" }))?;
//! let placed = personal.seal(&stream, placed, &subject).await?;
//! store.append_to(&stream, ExpectedVersion::NoStream, [placed]).await?;
//!
//! for event in store.load_stream(&stream).await? {
//!     assert!(matches!(personal.open(&event).await?, Opened::Payload(_)));
//!     keys.forget(&subject).await?;
//!     assert_eq!(personal.open(&event).await?, Opened::Forgotten(subject.clone()));
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Schema`](crate::Schema::with_personal_data) does this for typed events.
//!
//! # What is not protected
//!
//! * Stream ids, event types, event ids, metadata and the name of the subject are stored unencrypted
//!   and are never forgotten: put nothing personal into them.
//! * Snapshots, projections and logs that were made from decrypted data contain it unencrypted. To
//!   forget a person, clear these too.
//! * Anybody who can write to the store can replace a sealed event by an unsealed one, since
//!   [`PersonalData::open`] returns unsealed data as it is.

mod keys;
mod lost;
mod random;
mod sealed;
mod store_keys;
mod subject;

use std::sync::Arc;

use annals_core::{Error, ErrorKind, NewEvent, Payload, RecordedEvent, Result, Store, StreamId};

pub use keys::{Key, KeyStore, MemoryKeys};
pub use store_keys::StoreKeys;
pub use subject::Subject;

use lost::LostKeys;
use sealed::{Binding, Sealed, Unsealed};

/// Seals (encrypts) the data of events before they are appended, and opens (decrypts) it after they
/// were read.
///
/// Sealed data is bound to its stream, event id and event type. So seal an event when nothing else
/// of it will change, and open it before it is upcast. To copy an event to another stream, open it
/// and seal it again.
#[derive(Clone, Debug)]
pub struct PersonalData {
    keys: Arc<dyn KeyStore>,
    lost: LostKeys,
}

/// The result of [`PersonalData::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The data, byte for byte as it was before it was sealed.
    Payload(Payload),
    /// The subject was forgotten.
    Forgotten(Subject),
}

impl PersonalData {
    /// Seals and opens with the keys in this key store.
    #[must_use]
    pub fn new(keys: Arc<dyn KeyStore>) -> Self {
        Self { keys, lost: LostKeys::default() }
    }

    /// The number of bytes that sealing adds to the data: 55, and the length of the subject. They
    /// count towards [`Capabilities::max_event_bytes`](annals_core::Capabilities::max_event_bytes).
    #[must_use]
    pub fn overhead(subject: &Subject) -> usize {
        sealed::OVERHEAD + subject.as_str().len()
    }

    /// Encrypts the data of an event that will be appended to `stream`, by AES-256-GCM with the key
    /// of `subject`. If the subject has no key yet, it gets one. The event's id, type and metadata
    /// stay as they are.
    ///
    /// To retry an append, use the sealed event again: sealing a second time gives other bytes under
    /// the same id. Nonces are random, so do not seal more than 2³² events of one subject.
    ///
    /// # Errors
    /// [`ErrorKind::Forgotten`] for a subject that was forgotten; [`ErrorKind::InvalidInput`] for
    /// data that is sealed already; [`ErrorKind::Incompatible`] if the key of a subject that has sealed
    /// events is lost, as far as this `PersonalData` has tried to open one; a
    /// [`CommandHandler`](crate::CommandHandler) notices that for every subject;
    /// [`ErrorKind::LimitExceeded`] for more data than AES-GCM can encrypt, 64 GiB; those of the key
    /// store.
    pub async fn seal(
        &self,
        stream: &StreamId,
        event: NewEvent,
        subject: &Subject,
    ) -> Result<NewEvent> {
        self.seal_for(None, stream, event, subject).await
    }

    /// Seals for a store that keeps marks of the subjects that have keys.
    pub(crate) async fn seal_for(
        &self,
        marks: Option<&dyn Store>,
        stream: &StreamId,
        event: NewEvent,
        subject: &Subject,
    ) -> Result<NewEvent> {
        if !matches!(Sealed::parse(event.data()), Err(Unsealed::Plain)) {
            let message = format!(
                "the data of event {} of type {:?} is sealed already; seal an event once",
                event.id(),
                event.event_type()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message).with_stream(stream));
        }
        let key = self.lost.key(&*self.keys, subject, marks).await;
        let key = key.map_err(|error| error.with_stream(stream))?;
        let binding = Binding { stream, id: event.id(), event_type: event.event_type() };
        let data = sealed::seal(&key, subject, &binding, event.data())
            .map_err(|error| error.with_stream(stream))?;
        // `NewEvent::new` would guess the content kind of the metadata again.
        let (id, event_type) = (event.id(), event.event_type().clone());
        Ok(NewEvent::from_stored(id, event_type, data, event.metadata().clone()))
    }

    /// The subject of a sealed payload, or `None` if the payload is not sealed or is damaged. The
    /// subject is not encrypted, so this works without the key, and for forgotten data too.
    #[must_use]
    pub fn subject(payload: &Payload) -> Option<Subject> {
        Sealed::parse(payload).ok().map(|sealed| sealed.subject)
    }

    /// The data of an event as it was before it was sealed. Data that was never sealed is returned as
    /// it is.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] if the key store has never held the key of the subject, although the
    /// subject was not forgotten: it is that of another installation, or an old copy;
    /// [`ErrorKind::Corrupt`], with the stream, version and type, if the data is damaged, or was
    /// sealed with another key or for another event; [`ErrorKind::Incompatible`] if a later version
    /// of annals sealed it; those of the key store.
    pub async fn open(&self, event: &RecordedEvent) -> Result<Opened> {
        let sealed = match Sealed::parse(&event.data) {
            Ok(sealed) => sealed,
            Err(Unsealed::Plain) => return Ok(Opened::Payload(event.data.clone())),
            Err(Unsealed::Fault(fault)) => return Err(cannot_open(event, &fault)),
        };
        let Some(key) = self.keys.find(&sealed.subject).await? else {
            if self.keys.is_forgotten(&sealed.subject).await? {
                return Ok(Opened::Forgotten(sealed.subject));
            }
            return Err(self.lost.report(&sealed.subject).with_stream(&event.stream));
        };
        let binding =
            Binding { stream: &event.stream, id: event.id, event_type: &event.event_type };
        sealed.open(&key, &binding).map(Opened::Payload).map_err(|fault| cannot_open(event, &fault))
    }
}

fn cannot_open(event: &RecordedEvent, fault: &sealed::Fault) -> Error {
    let RecordedEvent { version, event_type, .. } = event;
    let message = format!("event {version} of type {event_type:?} cannot be opened: {fault}");
    Error::new(fault.kind(), message).with_stream(&event.stream)
}
