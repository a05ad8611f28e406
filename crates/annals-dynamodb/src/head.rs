//! What is known of the ends of streams.

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
    item::{Batch, DELETED, Key, StreamItem, state, text},
    table::{Condition, Range, Table},
};

/// How many streams are remembered: a few MiB at most.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: StreamHead,
    /// The position of its last event, where there is an order over all streams.
    pub(crate) position: Option<u64>,
    /// The id of its last event, where it is known.
    pub(crate) last_id: Option<Uuid>,
}

impl Head {
    pub(crate) const MISSING: Self =
        Self { stream: StreamHead::MISSING, position: None, last_id: None };

    /// Reads the end of a stream.
    pub(crate) async fn load(table: &Table, stream: &StreamId) -> Result<Self> {
        let range = Range::new(Key::stream(stream), 1, i64::MAX).backwards().with_limit(1);
        let found = table.query(&range).await?;
        let last = found.items.first().map(StreamItem::of).transpose()?;
        let Some(StreamItem::Events(batch)) = &last else {
            let (state, version) = state(last.as_ref());
            let stream = StreamHead { state, version, deleted_at: version };
            let position = match last {
                Some(StreamItem::Marker(marker)) => marker.position,
                _ => None,
            };
            return Ok(Self { stream, position, last_id: None });
        };
        let last_id = match &batch.body {
            Some(body) if batch.append_last == batch.last => {
                codec::unpack(stream, batch.kept_from, None, body)?.last().map(|event| event.id)
            }
            _ => None,
        };
        Ok(Self::of(batch, last_id))
    }

    /// The end of a stream whose last event is in this item, or in that of the same append.
    pub(crate) fn of(batch: &Batch, last_id: Option<Uuid>) -> Self {
        let version = Version::new(batch.append_last);
        let deleted_at = Version::new(batch.deleted_at);
        let stream = StreamHead { state: StreamState::Live, version, deleted_at };
        Self { stream, position: batch.position_of(batch.append_last), last_id }
    }

    /// What an append after it must find at its key: nothing, or the marker of the deletion. That
    /// a version exists is true for ever, and what follows it stands at this very key.
    pub(crate) fn condition(&self) -> Condition {
        if self.stream.state == StreamState::Deleted {
            Condition::when("k = :deleted", [(":deleted", text(DELETED))])
        } else {
            Condition::ABSENT
        }
    }
}

/// The ends of streams that were read or written last. Each was one at some time, and may have
/// been passed since; whoever relies on one writes under a condition that finds that out.
#[derive(Debug)]
pub(crate) struct Heads(Mutex<LruCache<StreamId, Head>>);

impl Heads {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    fn cache(&self) -> MutexGuard<'_, LruCache<StreamId, Head>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream was found to have this end.
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

    /// A head after which the append can be written without looking, if it is still the head: what
    /// it expects is then true as well.
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
            // The same events again are looked for in the table.
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
        let batch = |last| Batch {
            first: last,
            last,
            append_last: last,
            position: None,
            entry: 0,
            deleted_at: 0,
            kept_from: last,
            body: None,
        };
        heads.learn(&stream, Head::of(&batch(3), Some(Uuid::nil())));
        heads.learn(&stream, Head::of(&batch(2), Some(Uuid::max())));
        assert_eq!([Any, StreamExists, Exact(3.into())].map(version), [Some(3); 3]);
        assert_eq!([NoStream, Exact(Version::NONE), Exact(2.into())].map(version), [None; 3]);
        heads.learn(&stream, Head::of(&batch(4), Some(event.id())));
        assert_eq!([Any, StreamExists].map(version), [None; 2]);
        heads.forget(&stream);
        assert_eq!(version(NoStream), Some(0));
    }
}
