//! The ends of streams: reading them, and remembering them.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{
    Append, ExpectedVersion, NewEvent, Result, StreamId, StreamState, Version, adapter::StreamHead,
};
use lru::LruCache;
use uuid::Uuid;

use crate::{
    codec,
    item::{
        EventsItem, Key, StreamItem,
        attribute::{DELETED, KIND},
        end_state, text,
    },
    table::{Condition, KeyRange, Table},
};

/// How many streams a store remembers, in a few MiB at most.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The end of a stream, as it was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: StreamHead,
    /// The position of the last event, if the store has an order over all streams.
    pub(crate) position: Option<u64>,
    /// The id of the last event, if it is known.
    pub(crate) last_id: Option<Uuid>,
}

impl Head {
    pub(crate) const MISSING: Self =
        Self { stream: StreamHead::MISSING, position: None, last_id: None };

    /// Reads the end of a stream.
    pub(crate) async fn load(table: &Table, stream: &StreamId) -> Result<Self> {
        let range = KeyRange::new(Key::stream_partition(stream), 1, i64::MAX).backwards();
        let last = table.first(range).await?.as_ref().map(StreamItem::of).transpose()?;
        let Some(StreamItem::Events(events)) = &last else {
            let (state, version) = end_state(last.as_ref());
            let stream = StreamHead { state, version, deleted_at: version };
            let position = match last {
                Some(StreamItem::Marker(marker)) => marker.position,
                _ => None,
            };
            return Ok(Self { stream, position, last_id: None });
        };
        let last_id = match &events.body {
            Some(body) if events.append_last == events.last => {
                codec::unpack(stream, events.kept_from, None, body)?.last().map(|event| event.id)
            }
            _ => None,
        };
        Ok(Self::of(events, last_id))
    }

    /// The end of a stream whose last append has written this item.
    pub(crate) fn of(item: &EventsItem, last_id: Option<Uuid>) -> Self {
        let version = Version::new(item.append_last);
        let deleted_at = Version::new(item.deleted_at);
        let stream = StreamHead { state: StreamState::Live, version, deleted_at };
        Self { stream, position: item.position_of(item.append_last), last_id }
    }

    /// What an append after this end must find at its key: no item, or the marker of the deletion.
    /// A version that exists never stops existing, and its successor can only stand at this key:
    /// so the condition holds if and only if this still is the end of the stream.
    pub(crate) fn condition(&self) -> Condition {
        if self.stream.state == StreamState::Deleted {
            Condition::when(format!("{KIND} = :deleted"), [(":deleted", text(DELETED))])
        } else {
            Condition::absent()
        }
    }
}

/// The ends of the streams that were read or written last. Another process may have appended since,
/// so an append that relies on one is written under [`Head::condition`].
#[derive(Debug)]
pub(crate) struct Heads(Mutex<LruCache<StreamId, Head>>);

impl Heads {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    fn cache(&self) -> MutexGuard<'_, LruCache<StreamId, Head>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the end of a stream, unless a later one is known.
    pub(crate) fn learn(&self, stream: &StreamId, head: Head) {
        let mut cache = self.cache();
        let is_newer = |known: &Head| {
            (known.stream.version, known.last_id.is_some()) < (head.stream.version, true)
        };
        if head.stream.state == StreamState::Live && cache.peek(stream).is_none_or(is_newer) {
            cache.put(stream.clone(), head);
        }
    }

    pub(crate) fn forget(&self, stream: &StreamId) {
        self.cache().pop(stream);
    }

    /// A remembered end after which the append can be written without reading the stream: if it
    /// still is the end, then what the append expects holds.
    pub(crate) fn presume(&self, append: &Append) -> Option<Head> {
        let known = self.cache().get(&append.stream).copied();
        match (append.expected, known) {
            (ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE), None) => {
                Some(Head::MISSING)
            }
            (ExpectedVersion::NoStream, Some(_)) => None,
            (ExpectedVersion::Exact(version), known) => {
                known.filter(|known| known.stream.version == version)
            }
            // An append that ends with the last event may be a retry: the table has to be read.
            (ExpectedVersion::Any | ExpectedVersion::StreamExists, known) => {
                known.filter(|known| {
                    known.last_id.is_some()
                        && known.last_id != append.events.last().map(NewEvent::id)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presumes_only_what_the_append_expects() {
        use ExpectedVersion::{Any, Exact, NoStream, StreamExists};
        let (stream, heads) = (StreamId::new("order-1").unwrap(), Heads::new());
        let event = NewEvent::json("Placed", &1).unwrap();
        let version = |expected| {
            let append = Append::new(stream.clone(), expected, [event.clone()]);
            heads.presume(&append).map(|head| head.stream.version.get())
        };
        assert_eq!([Any, StreamExists, Exact(3.into())].map(version), [None; 3]);
        assert_eq!([NoStream, Exact(Version::NONE)].map(version), [Some(0); 2]);
        let item = |last| EventsItem {
            first: last,
            last,
            append_last: last,
            position: None,
            entry_index: 0,
            deleted_at: 0,
            kept_from: last,
            body: None,
        };
        heads.learn(&stream, Head::of(&item(3), Some(Uuid::nil())));
        heads.learn(&stream, Head::of(&item(2), Some(Uuid::max())));
        assert_eq!([Any, StreamExists, Exact(3.into())].map(version), [Some(3); 3]);
        assert_eq!([NoStream, Exact(Version::NONE), Exact(2.into())].map(version), [None; 3]);
        heads.learn(&stream, Head::of(&item(4), Some(event.id())));
        assert_eq!([Any, StreamExists].map(version), [None; 2]);
        heads.forget(&stream);
        assert_eq!(version(NoStream), Some(0));
    }
}
