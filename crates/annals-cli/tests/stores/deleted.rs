//! Streams that were deleted and written to again: in a copy, they begin anew as they do in the source.

use std::{convert::Infallible, sync::Arc};

use annals::{
    EventStore, EventStoreExt, ExpectedVersion, NewEvent, Payload, Snapshot, SnapshotStore, Store,
    StreamId, StreamInfo,
};
use annals_domain::{CommandHandler, Decider};
use annals_test_stores::{Fresh, Kind};
use serde::{Deserialize, Serialize};

use crate::command::{ok, url_of};

/// Counts the events since the stream was deleted.
struct Counter;

#[derive(Serialize, Deserialize)]
enum Event {
    #[serde(rename = "counted")]
    Counted,
}

impl Decider for Counter {
    const CATEGORY: &'static str = "counter";
    type State = u64;
    type Command = ();
    type Event = Event;
    type Rejection = Infallible;

    fn initial(&self) -> u64 {
        0
    }

    fn decide(&self, (): &(), _: &u64) -> Result<Vec<Event>, Infallible> {
        Ok(vec![Event::Counted])
    }

    fn evolve(&self, count: &mut u64, Event::Counted: &Event) {
        *count += 1;
    }
}

async fn count(store: &Arc<dyn Store>, id: &str) -> u64 {
    let counters = CommandHandler::new(store.clone(), Counter).unwrap();
    counters.load(id).await.unwrap_or_else(|error| panic!("{id}: {error}")).state
}

fn stream(id: &str) -> StreamId {
    StreamId::new(format!("counter-{id}")).unwrap()
}

async fn append(store: &Arc<dyn Store>, id: &str, count: usize) {
    let events = (0..count).map(|_| NewEvent::json("counted", &serde_json::json!({})).unwrap());
    store.append_to(stream(id), ExpectedVersion::Any, events).await.unwrap();
}

async fn delete(store: &Arc<dyn Store>, id: &str) {
    store.delete(&stream(id), ExpectedVersion::Any).await.unwrap();
}

/// Streams, and their counts after [`begin`] and [`go_on`].
const COUNTS: [(&str, u64); 5] =
    [("whole", 4), ("once", 2), ("twice", 1), ("between", 2), ("unseen", 1)];

async fn begin(store: &Arc<dyn Store>) {
    append(store, "whole", 3).await;
    append(store, "between", 3).await;
    append(store, "unseen", 2).await;
    append(store, "once", 3).await;
    delete(store, "once").await;
    append(store, "once", 2).await;
    for _ in 0..2 {
        append(store, "twice", 2).await;
        delete(store, "twice").await;
    }
    append(store, "twice", 1).await;
    // No event is left to tell of the deletion.
    append(store, "emptied", 2).await;
    delete(store, "emptied").await;
    append(store, "emptied", 1).await;
    store.truncate(&stream("emptied"), annals::Version::new(4)).await.unwrap();
}

/// What happens between two copies.
async fn go_on(store: &Arc<dyn Store>) {
    append(store, "whole", 1).await;
    delete(store, "between").await;
    append(store, "between", 2).await;
    // The last event before the deletion is never copied.
    append(store, "unseen", 1).await;
    delete(store, "unseen").await;
    append(store, "unseen", 1).await;
}

/// Versions, and up to which one the stream was deleted.
async fn versions(store: &Arc<dyn Store>, id: &str) -> (u64, Option<u64>, u64) {
    let StreamInfo { version, first_version, deleted_at, .. } =
        store.stream_info(&stream(id)).await.unwrap();
    (version.get(), first_version.map(annals::Version::get), deleted_at.get())
}

async fn assert_alike(from: &Fresh, to: &Fresh) {
    for (id, due) in COUNTS {
        assert_eq!(count(&from.store, id).await, due, "{id} in the source");
        assert_eq!(count(&to.store, id).await, due, "{id}");
        assert_eq!(versions(&to.store, id).await, versions(&from.store, id).await, "{id}");
    }
    // A snapshot of what was deleted is none, as everywhere.
    let once = stream("once");
    for (version, is_kept) in [(3, false), (5, true)] {
        let snapshot = Snapshot::new(version, Payload::binary("a state"));
        to.store.save_snapshot(&once, snapshot).await.unwrap();
        assert_eq!(to.store.load_snapshot(&once).await.unwrap().is_some(), is_kept, "{version}");
    }
    to.store.delete_snapshot(&once).await.unwrap();
}

pub(crate) async fn what_was_deleted_is_not_missing_in_a_copy(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    begin(&from.store).await;
    ok(&["copy", &from.url, &to.url]).await;
    go_on(&from.store).await;
    for _ in 0..2 {
        ok(&["copy", &from.url, &to.url]).await;
        assert_alike(&from, &to).await;
    }
    if from.store.capabilities().list_streams {
        assert_eq!(versions(&to.store, "emptied").await, (3, None, 2));
    }
    ok(&["verify", &from.url, &to.url]).await;
    // Beside other events, and into a store that cannot begin a stream late without placeholders.
    for other in annals_test_stores::kinds() {
        if ["sqlite", "eventstoredb"].contains(&other.name()) {
            let to = Fresh::open(&other).await;
            append(&to.store, "other", 1).await;
            ok(&["copy", &from.url, &to.url]).await;
            assert_alike(&from, &to).await;
        }
    }
}

pub(crate) async fn what_was_deleted_is_not_missing_after_an_import(kind: Kind) {
    for scheme in ["jsonl", "cloudevents"] {
        let (from, dir) = (Fresh::open(&kind).await, tempfile::tempdir().unwrap());
        let (growing, whole) = (url_of(scheme, &dir, "growing"), url_of(scheme, &dir, "whole"));
        begin(&from.store).await;
        ok(&["copy", &from.url, &growing]).await;
        go_on(&from.store).await;
        for file in [growing, whole] {
            ok(&["copy", &from.url, &file]).await;
            let to = Fresh::open(&kind).await;
            for _ in 0..2 {
                ok(&["copy", &file, &to.url]).await;
                assert_alike(&from, &to).await;
            }
        }
    }
}
