//! Appends each event with an id once, however often the same file is appended, and however it is
//! taken apart.
//!
//! A store recognises an append that is sent again, but not an event that comes in another append. So
//! the ids that a stream has are read before the first append to it. Each append then expects the
//! version up to which they are known: if another writer was faster, that conflicts, and the new ids
//! are read.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use annals::{
    Append, Appended, ExpectedVersion, NewEvent, ReadStream, Result, Store, StreamId, TryStreamExt,
    Version,
};
use uuid::Uuid;

/// The ids of the streams that were appended to.
#[derive(Default)]
pub(crate) struct Once(HashMap<StreamId, Known>);

/// The ids of the events of a stream up to a version.
struct Known {
    version: Version,
    ids: HashSet<Uuid>,
}

/// What became of events.
pub(crate) struct Outcome {
    /// The answer of the store, unless all events were there before.
    pub(crate) appended: Option<Appended>,
    /// How many of the events were written.
    pub(crate) written: usize,
    /// How many of the events were there before.
    pub(crate) before: usize,
}

impl Once {
    /// Appends those of the events whose ids the stream does not have yet.
    pub(crate) async fn append(
        &mut self,
        store: &Arc<dyn Store>,
        stream: &StreamId,
        events: Vec<NewEvent>,
    ) -> Result<Outcome> {
        let known = match self.0.entry(stream.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let mut known = Known { version: Version::NONE, ids: HashSet::new() };
                known.catch_up(store, stream).await?;
                place.insert(known)
            }
        };
        let all = events.len();
        loop {
            let mut ids = HashSet::new();
            let is_new =
                |event: &&NewEvent| !known.ids.contains(&event.id()) && ids.insert(event.id());
            let due: Vec<NewEvent> = events.iter().filter(is_new).cloned().collect();
            let (written, before) = (due.len(), all - due.len());
            if due.is_empty() {
                return Ok(Outcome { appended: None, written, before });
            }
            let expected = ExpectedVersion::Exact(known.version);
            let error = match store.append(Append::new(stream.clone(), expected, due)).await {
                Ok(appended) => {
                    known.version = appended.last_version;
                    known.ids.extend(ids);
                    return Ok(Outcome { appended: Some(appended), written, before });
                }
                Err(error) => error,
            };
            let version = known.version;
            if error.conflict().is_none() {
                return Err(error);
            }
            known.catch_up(store, stream).await?;
            if known.version == version {
                // The stream has not moved, so that the same append would fail again.
                return Err(error);
            }
        }
    }
}

impl Known {
    /// Reads the ids of the events after the version that is known.
    async fn catch_up(&mut self, store: &Arc<dyn Store>, stream: &StreamId) -> Result<()> {
        let info = store.stream_info(stream).await?;
        if info.version > self.version && info.first_version.is_some() {
            let options = ReadStream::default().with_from(self.version.plus(1));
            let mut events = store.read_stream(stream, options);
            while let Some(event) = events.try_next().await? {
                self.ids.insert(event.id);
                self.version = event.version;
            }
        }
        // Events that were removed count in the version, and have no ids any more.
        self.version = self.version.max(info.version);
        Ok(())
    }
}

#[cfg(all(test, feature = "memory"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use annals::{EventStore, EventStoreExt};

    use super::*;

    fn events(count: u64) -> Vec<NewEvent> {
        (0..count).map(|n| NewEvent::json("Counted", &n).unwrap()).collect()
    }

    async fn ids(store: &Arc<dyn Store>, stream: &StreamId) -> Vec<Uuid> {
        store.load_stream(stream).await.unwrap().iter().map(|event| event.id).collect()
    }

    #[tokio::test]
    async fn each_id_is_written_once_in_any_pieces_and_beside_others() {
        let store = annals::connect("memory:").await.unwrap();
        let (stream, events) = (StreamId::new("a-1").unwrap(), events(40));
        let due: Vec<_> = events.iter().map(NewEvent::id).collect();
        for size in [7, 3, 40, 1] {
            let mut once = Once::default();
            for (nth, piece) in events.chunks(size).enumerate() {
                let twice = [piece, piece].concat();
                let outcome = once.append(&store, &stream, twice).await.unwrap();
                assert_eq!(outcome.written + outcome.before, 2 * piece.len());
                if size == 7 && nth == 2 {
                    // Half-way the file is begun again by another process.
                    let mut other = Once::default();
                    other.append(&store, &stream, events[..30].to_vec()).await.unwrap();
                }
            }
            assert_eq!(ids(&store, &stream).await, due, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn another_writer_is_noticed_and_what_was_removed_is_not_there() {
        let store = annals::connect("memory:").await.unwrap();
        let (stream, events) = (StreamId::new("a-1").unwrap(), events(6));
        let mut once = Once::default();
        once.append(&store, &stream, events[..2].to_vec()).await.unwrap();
        let foreign = NewEvent::json("Foreign", &1).unwrap();
        store.append_to(&stream, ExpectedVersion::Any, [foreign.clone()]).await.unwrap();
        once.append(&store, &stream, events.clone()).await.unwrap();
        let mut due: Vec<_> = events.iter().map(NewEvent::id).collect();
        due.insert(2, foreign.id());
        assert_eq!(ids(&store, &stream).await, due);
        store.delete(&stream, ExpectedVersion::Any).await.unwrap();
        let outcome = Once::default().append(&store, &stream, events).await.unwrap();
        assert_eq!(outcome.appended.unwrap().first_version, Version::new(8));
    }
}
