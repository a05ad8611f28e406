//! Events of a server that other applications write to, whose streams or types have names that annals
//! does not take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use annals::{Filter, OpenMode, Position, RecordedEvent, Store, StoreUrl};
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::failure::Failure;

/// The longest name that annals takes, in bytes.
const LONGEST: usize = 255;
/// How many bytes of a name are kept before the digest.
const KEPT: usize = LONGEST - 1 - DIGITS;
/// How many digits of a digest follow a name that was changed.
const DIGITS: usize = 16;

/// The names that an event had before it was given names that annals takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "eventstoredb"),
    allow(dead_code, reason = "only EventStoreDB has such events")
)]
pub(crate) struct Original {
    /// The stream's name, if it was changed.
    pub(crate) stream: Option<String>,
    /// The type, if it was changed.
    pub(crate) event_type: Option<String>,
}

/// The original names of events, by their positions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Originals(Arc<Mutex<HashMap<Position, Original>>>);

impl Originals {
    fn names(&self) -> MutexGuard<'_, HashMap<Position, Original>> {
        // A panic cannot leave the map half changed, so a poisoned lock is usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, event: &RecordedEvent) -> bool {
        self.names().contains_key(&event.position)
    }

    pub(crate) fn take(&self, event: &RecordedEvent) -> Option<Original> {
        self.names().remove(&event.position)
    }
}

/// An event in a stream of the server's own.
#[cfg(feature = "eventstoredb")]
pub(crate) struct SystemEvent {
    pub(crate) stream: String,
    /// What the stream holds.
    pub(crate) holds: annals::eventstoredb::SystemStream,
    pub(crate) version: annals::Version,
    pub(crate) recorded_at: chrono::DateTime<chrono::Utc>,
    pub(crate) data: annals::Payload,
}

/// A server that may have events under such names, or links.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "eventstoredb"),
    allow(dead_code, reason = "only EventStoreDB has such events")
)]
pub(crate) struct Exporter {
    #[cfg(feature = "eventstoredb")]
    store: annals::eventstoredb::EventStoreDbStore,
    pub(crate) originals: Originals,
}

#[cfg_attr(
    not(feature = "eventstoredb"),
    allow(dead_code, reason = "only EventStoreDB has such events")
)]
impl Exporter {
    /// Opens a store, and what reads its foreign events if it may have any.
    pub(crate) async fn open(
        url: &StoreUrl,
        text: &str,
        mode: OpenMode,
    ) -> Result<(Arc<dyn Store>, Option<Self>), Failure> {
        #[cfg(feature = "eventstoredb")]
        if url.backend() == annals::Backend::EventStoreDb {
            use annals::eventstoredb::{EventStoreDbConfig, EventStoreDbStore};
            let opened = match EventStoreDbConfig::from_url(text) {
                Ok(config) => EventStoreDbStore::open(config).await,
                Err(error) => Err(error),
            };
            // As [`annals::connect_with`] says it.
            let name = url.backend().name();
            let store = opened.map_err(|e| e.with_backend(name).with_operation("connect"))?;
            let exporter = Self { store: store.clone(), originals: Originals::default() };
            return Ok((Arc::new(store), Some(exporter)));
        }
        let _ = url;
        Ok((annals::connect_with(text, mode).await?, None))
    }

    /// The events after a position, those with other names under names that annals takes.
    #[cfg(feature = "eventstoredb")]
    pub(crate) fn read(
        &self,
        filter: Filter,
        after: Position,
    ) -> BoxStream<'static, annals::Result<RecordedEvent>> {
        use annals::{EventType, NewEvent, StreamId, eventstoredb::Exported};
        use futures::{StreamExt, TryStreamExt};
        let originals = self.originals.clone();
        let named = move |exported: Exported| -> annals::Result<RecordedEvent> {
            let found = match exported {
                Exported::Event(event) => return Ok(event),
                Exported::Foreign(found) => found,
                // Kinds of events that a newer version of the store's crate gives.
                _ => return Err(annals::Error::unsupported("an event of this kind")),
            };
            let (stream, is_changed) = renamed(&found.stream);
            let original = Original {
                stream: is_changed.then(|| String::from_utf8_lossy(&found.stream).into_owned()),
                event_type: EventType::new(found.event_type.as_str())
                    .is_err()
                    .then(|| found.event_type.clone()),
            };
            let event_type = EventType::new(renamed(found.event_type.as_bytes()).0)?;
            let event = NewEvent::from_stored(found.id, event_type, found.data, found.metadata);
            let place = (StreamId::new(stream)?, found.version, found.position);
            let event = event.recorded(place.0, place.1, place.2, found.recorded_at);
            originals.names().insert(event.position, original);
            Ok(event)
        };
        let events = self.store.export(filter, after);
        events.and_then(move |event| std::future::ready(named(event))).boxed()
    }

    #[cfg(not(feature = "eventstoredb"))]
    pub(crate) fn read(
        &self,
        _: Filter,
        _: Position,
    ) -> BoxStream<'static, annals::Result<RecordedEvent>> {
        Box::pin(futures::stream::empty())
    }

    /// The events in streams of the server's own whose names begin with this text.
    #[cfg(feature = "eventstoredb")]
    pub(crate) fn read_system(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, annals::Result<SystemEvent>>, Failure> {
        use annals::{StreamPrefix, eventstoredb::Exported};
        use futures::{StreamExt, TryStreamExt};
        let filter = Filter::default().with_prefix(StreamPrefix::new(prefix)?).including_system();
        let store = self.store.clone();
        let of_system = move |exported: Exported| -> annals::Result<SystemEvent> {
            let (stream, version, recorded_at, data) = match exported {
                Exported::Event(event) => {
                    (event.stream.to_string(), event.version, event.recorded_at, event.data)
                }
                Exported::Foreign(found) => {
                    let stream = String::from_utf8_lossy(&found.stream).into_owned();
                    (stream, found.version, found.recorded_at, found.data)
                }
                _ => return Err(annals::Error::unsupported("an event of this kind")),
            };
            let holds = store.system_stream(&stream);
            Ok(SystemEvent { stream, holds, version, recorded_at, data })
        };
        let events = self.store.export(filter, Position::START);
        Ok(events.and_then(move |event| std::future::ready(of_system(event))).boxed())
    }

    /// The event that a link leads to, in the place of the link. `None` if it is gone.
    #[cfg(feature = "eventstoredb")]
    pub(crate) async fn resolve(
        &self,
        link: &RecordedEvent,
    ) -> Result<Option<RecordedEvent>, Failure> {
        Ok(self.store.resolve(link).await?)
    }

    #[cfg(not(feature = "eventstoredb"))]
    pub(crate) async fn resolve(
        &self,
        _: &RecordedEvent,
    ) -> Result<Option<RecordedEvent>, Failure> {
        Ok(None)
    }
}

/// A name that annals takes in place of another one, and whether it differs. Bytes that no name may have
/// are written as `%` and two digits, and so is a `$` at the beginning. A digest of the whole name follows,
/// so that no two names become one.
pub(crate) fn renamed(name: &[u8]) -> (String, bool) {
    let mut text = String::new();
    let mut is_changed = name.is_empty() || name.len() > LONGEST;
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '$' && text.is_empty() {
                is_changed = true;
                escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut text);
            } else {
                text.push(c);
            }
        }
        is_changed |= !chunk.invalid().is_empty();
        escape(chunk.invalid(), &mut text);
    }
    if is_changed {
        while text.len() > KEPT {
            text.pop();
        }
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, name).simple().to_string();
        text = format!("{text}~{digest:.DIGITS$}");
    }
    (text, is_changed)
}

fn escape(bytes: &[u8], text: &mut String) {
    bytes.iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
}

#[cfg(test)]
mod tests {
    use annals::{EventType, StreamId};

    use super::*;

    #[test]
    fn names_become_names_that_annals_takes_and_stay_apart() {
        let long = |last: &str| ["order-".to_owned(), "é".repeat(200), last.to_owned()].concat();
        let names = [
            String::new().into_bytes(),
            b"order-\n1".to_vec(),
            b"order-%0A1".to_vec(),
            b"order-\xff1".to_vec(),
            b"$custom".to_vec(),
            b"%24custom".to_vec(),
            long("1").into_bytes(),
            long("2").into_bytes(),
        ];
        let mut seen = std::collections::HashSet::new();
        for name in &names {
            let (to, is_changed) = renamed(name);
            assert!(StreamId::new(&*to).is_ok() && EventType::new(&*to).is_ok(), "{to:?}");
            assert!(!to.starts_with('$') && seen.insert(to.clone()), "{to:?}");
            assert_eq!(is_changed, to.as_bytes() != name.as_slice(), "{to:?}");
            assert_eq!(is_changed, !name.starts_with(b"order-%") && !name.starts_with(b"%"));
        }
        assert!(renamed(b"order-\n1").0.starts_with("order-%0A1~"));
    }
}
