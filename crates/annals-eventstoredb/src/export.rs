//! Reads of all that leave nothing out, for those who move the events of a server elsewhere.

use std::{collections::HashMap, sync::Arc};

use annals_core::{Error, EventType, Filter, Payload, Position, RecordedEvent, Result, Version};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt, try_unfold};
use uuid::Uuid;

use crate::{
    codec::recorded,
    connection::Target,
    filter::ServerFilter,
    message::{GREATEST, ServerEvent, version_of},
    reader::{Place, ReadItem, Reader, Seen, greatest_position, look},
    rpc::ReadSource,
    server::Server,
    store::EventStoreDbStore,
};

/// An event that [`EventStoreDbStore::export`] gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Exported {
    /// An event as reads of all give it.
    Event(RecordedEvent),
    /// An event whose stream or type has a name that annals does not allow.
    Foreign(ForeignEvent),
}

/// An event that another application wrote under a name that annals does not allow: one that is longer
/// than 255 bytes, empty, or no UTF-8, or that has control characters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForeignEvent {
    /// The stream's name, without the prefix of the store's namespace.
    pub stream: Bytes,
    /// The version.
    pub version: Version,
    /// The position.
    pub position: Position,
    /// When the event was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The event's id.
    pub id: Uuid,
    /// The type.
    pub event_type: String,
    /// The data.
    pub data: Payload,
    /// The metadata.
    pub metadata: Payload,
}

impl EventStoreDbStore {
    /// Reads all events after a position, as [`read_all`](annals_core::EventStore::read_all) does, and
    /// also those whose stream or type has a name that annals does not allow. The filter is applied to
    /// these only as far as the server applies it, and those that were deleted or truncated are left out.
    ///
    /// # Errors
    /// Those of [`read_all`](annals_core::EventStore::read_all).
    #[must_use]
    pub fn export(&self, filter: Filter, after: Position) -> BoxStream<'static, Result<Exported>> {
        let place = match after {
            Position::START => Place::First,
            after => Place::AfterPosition(after),
        };
        let source = ReadSource::All(ServerFilter::new(&filter, &self.server.names));
        let reader = Reader::new(self.server.clone(), source, Target::Events, false, place);
        let firsts = HashMap::new();
        let export = Export { server: self.server.clone(), reader, filter, after, firsts };
        try_unfold(export, |mut export| async move {
            Ok::<_, Error>(export.next().await?.map(|exported| (exported, export)))
        })
        .boxed()
    }

    /// The event that a link (an event of the type `$>`) leads to, at the place and with the id of the
    /// link. `None` if there is no such event any more, or if annals does not allow the name of its type.
    ///
    /// # Errors
    /// Those of [`read_stream`](annals_core::EventStore::read_stream).
    pub async fn resolve(&self, link: &RecordedEvent) -> Result<Option<RecordedEvent>> {
        let place = std::str::from_utf8(link.data.bytes()).ok().and_then(|text| {
            let (revision, stream) = text.trim_start_matches('\u{feff}').split_once('@')?;
            Some((revision.parse().ok().filter(|at| *at < GREATEST)?, stream.to_owned()))
        });
        let Some((revision, stream)) = place else { return Ok(None) };
        let seen =
            look(&self.server, Target::Events, stream, false, Place::Revision(revision)).await?;
        let found = seen.event().filter(|found| found.revision == revision);
        Ok(found.filter(|found| !found.is_tombstone()).and_then(|found| {
            let mut event = link.clone();
            event.event_type = EventType::new(std::str::from_utf8(&found.event_type).ok()?).ok()?;
            (event.data, event.metadata) = payloads(found);
            Some(event)
        }))
    }
}

struct Export {
    server: Arc<Server>,
    reader: Reader,
    filter: Filter,
    /// Where the read begins, until it was compared with the end of all events.
    after: Position,
    /// The first revision that is left of streams with such events; `None` if nothing is left.
    firsts: HashMap<Bytes, Option<u64>>,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Exported>> {
        if self.after > Position::START {
            let greatest = greatest_position(&self.server).await?;
            if self.after > greatest {
                return Err(Error::beyond_end(self.after, greatest));
            }
            self.after = Position::START;
        }
        loop {
            let event = match self.reader.next(GREATEST).await? {
                ReadItem::Event(event) => event,
                ReadItem::CountReached => continue,
                ReadItem::End => return Ok(None),
            };
            if let Some(event) = recorded(event.clone(), &self.server.names) {
                if self.filter.matches(&event.stream, &event.event_type) {
                    return Ok(Some(Exported::Event(event)));
                }
            } else if let Some(stream) = self.own_name(&event)
                && self.is_left(&event).await?
            {
                return Ok(Some(Exported::Foreign(foreign(event, stream))));
            }
        }
    }

    /// The stream's name without the prefix of the namespace. `None` if it is in another namespace.
    fn own_name(&self, event: &ServerEvent) -> Option<Bytes> {
        if event.stream.starts_with(b"$") {
            return Some(event.stream.clone()).filter(|_| self.filter.include_system);
        }
        let prefix = self.server.names.prefix().len();
        let is_own = event.stream.starts_with(self.server.names.prefix().as_bytes());
        is_own.then(|| event.stream.slice(prefix..))
    }

    /// False if the event was deleted or truncated.
    async fn is_left(&mut self, event: &ServerEvent) -> Result<bool> {
        let Ok(name) = std::str::from_utf8(&event.stream) else { return Ok(true) };
        if name.starts_with('$') {
            return Ok(true);
        }
        let first = match self.firsts.get(&event.stream) {
            Some(first) => *first,
            None => {
                let seen = look(&self.server, Target::Events, name.to_owned(), false, Place::First)
                    .await?;
                let first = match seen {
                    Seen::Event(first) => Some(first.revision),
                    _ => None,
                };
                self.firsts.insert(event.stream.clone(), first);
                first
            }
        };
        Ok(first.is_some_and(|first| event.revision >= first))
    }
}

fn foreign(event: ServerEvent, stream: Bytes) -> ForeignEvent {
    let recorded_at = DateTime::<Utc>::from_timestamp_micros(event.created / 10);
    let (id, position, version) = (event.id, event.position, version_of(event.revision));
    let event_type = String::from_utf8_lossy(&event.event_type).into_owned();
    let (data, metadata) = payloads(event);
    ForeignEvent {
        stream,
        version,
        position,
        recorded_at: recorded_at.unwrap_or_default(),
        id,
        event_type,
        data,
        metadata,
    }
}

fn payloads(event: ServerEvent) -> (Payload, Payload) {
    crate::codec::payloads(event.is_json, event.data, event.metadata)
}
