//! Events whose data can be forgotten: encrypted, with a key for each person.
//!
//! Events cannot be changed, and people may ask to be forgotten. So the data of an event that is
//! about someone, a [`Subject`], is encrypted before it is appended, with a key of that subject
//! alone. To forget the subject is to forget the key: the data is then unreadable in the store, in
//! every copy and in every backup, while the events, their order and their versions stay.
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
//! # What is not hidden
//!
//! * Stream ids, event types, event ids, metadata and the name of the subject are kept as they are
//!   and are never forgotten: put nothing personal into them.
//! * Snapshots, projections and logs made from opened data hold it in clear. Forgetting someone
//!   means clearing these too.
//! * Whoever can write to the store can put an event that is not sealed in the place of one that
//!   is: [`PersonalData::open`] gives back as it is what is not sealed.

mod keys;
mod sealed;
mod store_keys;
mod subject;

use std::sync::Arc;

use annals_core::{Error, ErrorKind, NewEvent, Payload, RecordedEvent, Result, StreamId};
use ring::rand::{SecureRandom, SystemRandom};

pub use keys::{Key, KeyStore, MemoryKeys};
pub use store_keys::StoreKeys;
pub use subject::Subject;

use sealed::{Found, Place, Sealed};

/// Seals the data of events before they are appended, and opens it when they were read.
///
/// What is sealed is bound to its stream, event id and event type: seal last, and open before an
/// event is upcast. To copy an event to another stream, open it and seal it again.
#[derive(Clone, Debug)]
pub struct PersonalData {
    keys: Arc<dyn KeyStore>,
}

/// What [`PersonalData::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The data, byte for byte as it was before it was sealed.
    Payload(Payload),
    /// The key of this subject is not there.
    Forgotten(Subject),
}

impl PersonalData {
    /// With the keys of this key store.
    #[must_use]
    pub fn new(keys: Arc<dyn KeyStore>) -> Self {
        Self { keys }
    }

    /// By how many bytes sealing makes the data longer: 55, and the bytes of the subject. They
    /// count against [`Capabilities::max_event_bytes`](annals_core::Capabilities::max_event_bytes).
    #[must_use]
    pub fn overhead(subject: &Subject) -> usize {
        sealed::OVERHEAD + subject.as_str().len()
    }

    /// Encrypts the data of an event that will be appended to `stream`, with AES-256-GCM and the
    /// key of `subject`, which is made where there is none. Id, type and metadata stay.
    ///
    /// Retry an append with the event as it was sealed: sealing it again gives other bytes under
    /// the same id. Nonces are random, so seal no more than 2³² events of one subject.
    ///
    /// # Errors
    /// [`ErrorKind::Forgotten`] for a subject that was forgotten; [`ErrorKind::InvalidInput`] for
    /// data that is sealed already; [`ErrorKind::LimitExceeded`] for data that is longer than
    /// AES-GCM takes, 64 GiB; those of the key store.
    pub async fn seal(
        &self,
        stream: &StreamId,
        event: NewEvent,
        subject: &Subject,
    ) -> Result<NewEvent> {
        if !matches!(Sealed::find(event.data()), Found::Plain) {
            let message = format!(
                "the data of event {} of type {:?} is sealed already; seal an event once",
                event.id(),
                event.event_type()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message).with_stream(stream));
        }
        let key = self.keys.key(subject).await?;
        let place = Place { stream, id: event.id(), event_type: event.event_type() };
        let data = sealed::seal(&key, subject, &place, event.data())
            .map_err(|error| error.with_stream(stream))?;
        // Not `NewEvent::new`: it would infer the content kind of the metadata anew.
        let (id, event_type) = (event.id(), event.event_type().clone());
        Ok(NewEvent::from_stored(id, event_type, data, event.metadata().clone()))
    }

    /// Whose data a payload is, as it says itself; none where it is not sealed, or is damaged.
    /// Needs no key, and so tells it of forgotten data too.
    #[must_use]
    pub fn subject(payload: &Payload) -> Option<Subject> {
        match Sealed::find(payload) {
            Found::Sealed(sealed) => Some(sealed.subject),
            Found::Plain | Found::Damaged(_) => None,
        }
    }

    /// The data of an event as it was before it was sealed. Data that was never sealed comes back
    /// as it is.
    ///
    /// [`Opened::Forgotten`] says only that the key is not there: a key store that never held it,
    /// such as that of another installation, gives the same answer.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], with the stream, version and type, where the data is damaged, or was
    /// sealed with another key or for another event; [`ErrorKind::Incompatible`] where a later
    /// version of annals sealed it; those of the key store.
    pub async fn open(&self, event: &RecordedEvent) -> Result<Opened> {
        let sealed = match Sealed::find(&event.data) {
            Found::Plain => return Ok(Opened::Payload(event.data.clone())),
            Found::Damaged(error) => return Err(within(event, &error)),
            Found::Sealed(sealed) => sealed,
        };
        let Some(key) = self.keys.find(&sealed.subject).await? else {
            return Ok(Opened::Forgotten(sealed.subject));
        };
        let place = Place { stream: &event.stream, id: event.id, event_type: &event.event_type };
        sealed.open(&key, &place).map(Opened::Payload).map_err(|error| within(event, &error))
    }
}

/// The error, with the event that it is about.
fn within(event: &RecordedEvent, error: &sealed::Fault) -> Error {
    let RecordedEvent { version, event_type, .. } = event;
    let message = format!("event {version} of type {event_type:?} cannot be opened: {error}");
    Error::new(error.kind(), message).with_stream(&event.stream)
}

/// Random bytes from the operating system.
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::new(ErrorKind::Internal, "the system gives no random numbers"))?;
    Ok(bytes)
}
