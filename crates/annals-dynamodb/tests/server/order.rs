//! The log: a late append gets another position, readers do not wait for it for long, and no event
//! appears below one that a reader has seen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, ErrorKind, EventStore, EventStoreExt,
    ExpectedVersion::{Any, Exact},
    ReadAll, RecordedEvent, Start, Subscribe, Subscription, TryStreamExt,
};
use annals_dynamodb::DynamoDbStore;
use annals_test_servers::dynamodb::Meter;
use fastrand::Rng;
use futures::future::join_all;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    common::{Place, any, event, everything, id, options, seed, soon, take},
    gate::{Door, Fate, Gate},
};

/// A store whose transactions wait before a door.
async fn behind(place: &Place, door: &Door) -> DynamoDbStore {
    let waits = door.clone();
    let gate = Gate::new(move |operation, _| match operation {
        "TransactWriteItems" if !waits.is_open() => Fate::Wait(waits.clone()),
        _ => Fate::Pass,
    });
    let options = options(true).with_request_timeout(Duration::from_secs(60));
    place.open_through(gate.http_client(), options).await.unwrap()
}

/// Starts an append that has allocated a slot, and does not write to it before the door opens.
async fn hesitate(
    store: &DynamoDbStore,
    door: &Door,
    append: Append,
) -> JoinHandle<annals_core::Result<annals_core::Appended>> {
    let store = store.clone();
    let task = tokio::spawn(async move { store.append(append).await });
    soon("a slot is allocated", door.reached_by(1)).await;
    task
}

#[tokio::test]
async fn a_late_writer_gets_another_position() {
    let (place, door) = (Place::new().await, Door::default());
    let (late, other) = (behind(&place, &door).await, place.open(true).await);
    other.append(any("a-1", 1)).await.unwrap();
    let mut live = other.subscribe(Subscribe::default()).await.unwrap();
    take(&mut live, 1).await;
    let append = Append::new(id("a-1"), Exact(1.into()), [event(2), event(3)]);
    let task = hesitate(&late, &door, append).await;
    let passed = other.append(any("b-1", 1)).await.unwrap();
    // So the reader has closed the slot of the late append.
    assert_eq!(take(&mut live, 1).await[0].position, passed.position);
    door.open();
    let written = soon("the late append", task).await.unwrap().unwrap();
    assert!(written.position > passed.position);
    assert_eq!(written.last_version.get(), 3);
    other.append(any("b-1", 2)).await.unwrap();
    let seen = take(&mut live, 3).await;
    let seen: Vec<_> = seen.iter().map(|e| (e.stream.as_str(), e.version.get())).collect();
    assert_eq!(seen, [("a-1", 2), ("a-1", 3), ("b-1", 2)]);
    assert_eq!(everything(&place.open(true).await).await.len(), 5);
}

#[tokio::test]
async fn a_late_writer_that_was_overtaken_conflicts() {
    let (place, door) = (Place::new().await, Door::default());
    let (late, other) = (behind(&place, &door).await, place.open(true).await);
    other.append(any("a-1", 1)).await.unwrap();
    let append = Append::new(id("a-1"), Exact(1.into()), [event(2)]);
    let task = hesitate(&late, &door, append).await;
    other.append(any("a-1", 3)).await.unwrap();
    other.append(any("b-1", 1)).await.unwrap();
    assert_eq!(everything(&other).await.len(), 3);
    door.open();
    let error = soon("the late append", task).await.unwrap().unwrap_err();
    assert_eq!(error.conflict().unwrap().actual.get(), 2);
    assert_eq!(everything(&other).await.len(), 3);
}

/// While a store looks for the end of all streams, another append may be under way, with a slot
/// before that of the last event or after it.
async fn nothing_appears_below(
    look: impl AsyncFn(&DynamoDbStore) -> annals_core::Position,
    in_front: bool,
) {
    let (place, door) = (Place::new().await, Door::default());
    let (late, other) = (behind(&place, &door).await, place.open(true).await);
    other.append(any("a-1", 1)).await.unwrap();
    let task = hesitate(&late, &door, any("late-1", 1)).await;
    if in_front {
        other.append(any("a-1", 2)).await.unwrap();
    }
    // A store that has not read any slot.
    let stranger = place.open(true).await;
    let last = soon("the end of all streams", look(&stranger)).await;
    door.open();
    let written = soon("the late append", task).await.unwrap().unwrap();
    assert!(written.position > last, "{:?} is not beyond {last:?}", written.position);
    let mut after = stranger.subscribe(Subscribe::default().after(last)).await.unwrap();
    assert_eq!(take(&mut after, 1).await[0].position, written.position);
    everything(&place.open(true).await).await;
}

#[tokio::test]
async fn nothing_appears_below_the_last_position() {
    let look = async |store: &DynamoDbStore| store.last_position().await.unwrap();
    for in_front in [true, false] {
        nothing_appears_below(look, in_front).await;
    }
}

#[tokio::test]
async fn nothing_appears_between_what_was_read_backwards() {
    let look = async |store: &DynamoDbStore| {
        let read = store.read_all(ReadAll::default().backwards());
        let read: Vec<RecordedEvent> = read.try_collect().await.unwrap();
        read[0].position
    };
    for in_front in [true, false] {
        nothing_appears_below(look, in_front).await;
    }
}

#[tokio::test]
async fn the_end_is_beyond_nothing_that_is_still_to_come() {
    for in_front in [true, false] {
        let (place, door) = (Place::new().await, Door::default());
        let (late, other) = (behind(&place, &door).await, place.open(true).await);
        other.append(any("a-1", 1)).await.unwrap();
        let task = hesitate(&late, &door, any("late-1", 1)).await;
        if in_front {
            other.append(any("a-1", 2)).await.unwrap();
        }
        let stranger = place.open(true).await;
        let end = Subscribe::default().with_start(Start::End);
        let mut live = soon("the end", stranger.subscribe(end)).await.unwrap();
        door.open();
        soon("the late append", task).await.unwrap().unwrap();
        assert_eq!(take(&mut live, 1).await[0].stream, id("late-1"), "in front: {in_front}");
    }
}

/// All events up to the last.
async fn tail(mut subscription: Subscription) -> Vec<RecordedEvent> {
    let mut seen: Vec<RecordedEvent> = Vec::new();
    while seen.last().is_none_or(|event| event.stream != id("last")) {
        seen.push(soon("an event", subscription.next_event()).await.unwrap());
    }
    seen
}

const WRITERS: u64 = 8;
const APPENDS: u64 = 25;

/// An append that has returned: when it was called and when it returned, and its last position.
type Span = (u64, u64, u64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_sees_all_whatever_writers_do() {
    let seed = seed("every_subscriber_sees_all_whatever_writers_do");
    let place = Place::new().await;
    let mut stores = Vec::new();
    for number in 0..3 {
        // Some transactions take longer than readers wait for their slot.
        let rng = Mutex::new(Rng::with_seed(seed ^ number));
        let gate = Gate::new(move |operation, _| {
            let mut rng = rng.lock().unwrap();
            let late = operation == "TransactWriteItems" && rng.u8(..20) == 0;
            if late { Fate::Late(Duration::from_millis(rng.u64(..120))) } else { Fate::Pass }
        });
        stores.push(place.open_through(gate.http_client(), options(true)).await.unwrap());
    }
    let mut tailing = JoinSet::new();
    for store in &stores {
        tailing.spawn(tail(store.subscribe(Subscribe::default()).await.unwrap()));
        let end = Subscribe::default().with_start(Start::End);
        tailing.spawn(tail(store.subscribe(end).await.unwrap()));
    }
    let (clock, spans) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::<Span>::new())));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = stores[usize::try_from(writer).unwrap() % stores.len()].clone();
        let (clock, spans) = (clock.clone(), spans.clone());
        let mut rng = Rng::with_seed(seed.wrapping_add(100 + writer));
        writers.spawn(async move {
            for number in 0..APPENDS {
                let append = any(&format!("s-{}", rng.u64(..6)), number);
                let (store, clock, spans) = (store.clone(), clock.clone(), spans.clone());
                let task = tokio::spawn(async move {
                    let called = clock.fetch_add(1, SeqCst);
                    let done = store.append(append).await.unwrap();
                    let span = (called, clock.fetch_add(1, SeqCst), done.position.get());
                    spans.lock().unwrap().push(span);
                });
                if rng.u8(..4) == 0 {
                    // Cancel the append at a random point.
                    tokio::time::sleep(Duration::from_micros(rng.u64(..20_000))).await;
                    task.abort();
                }
                match task.await {
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    _ => {}
                }
            }
        });
    }
    // A subscription that begins in the middle.
    let middle = stores[0].append(any("s-1", 0)).await.unwrap().position;
    let after = Subscribe::default().after(middle);
    tailing.spawn(tail(stores[1].subscribe(after).await.unwrap()));
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    // Cancelled appends may still be written, after the last event, where the test does not look.
    stores[2].append(any("last", 0)).await.unwrap();
    let all = everything(&place.open(true).await).await;
    let last = all.iter().position(|event| event.stream == id("last")).unwrap();
    let all = &all[..=last];
    while let Some(seen) = tailing.join_next().await {
        let seen = seen.unwrap();
        let first = seen[0].position;
        let from = all.iter().position(|event| event.position == first).unwrap();
        assert!(from == 0 || first > middle || all[from - 1].position <= middle);
        assert_eq!(&all[from..], seen, "skipped, twice or out of order");
    }
    let mut spans = spans.lock().unwrap().clone();
    assert!(spans.len() as u64 > WRITERS * APPENDS / 2);
    // Rule 13: an append has a greater position than all that had returned before it was called.
    spans.sort_unstable();
    for (called, _, position) in &spans {
        let returned = spans.iter().filter(|(_, returned, _)| returned < called);
        assert!(returned.max_by_key(|(.., p)| p).is_none_or(|(.., before)| before < position));
    }
}

#[tokio::test]
async fn appends_share_a_slot_and_do_not_disturb_each_other() {
    let (place, meter) = (Place::new().await, Meter::new());
    let store = place.open_through(meter.http_client(), options(true)).await.unwrap();
    let other = place.open(true).await;
    store.append(any("stale-1", 1)).await.unwrap();
    other.append(any("stale-1", 2)).await.unwrap();
    meter.take();
    // The store believes that the stream is at version 1, and it is not.
    let stale = Append::new(id("stale-1"), Exact(1.into()), [event(3)]);
    let mut appends: Vec<_> = (0..64)
        .map(|n| {
            Append::new(id(&format!("s-{n}")), annals_core::ExpectedVersion::NoStream, [event(n)])
        })
        .collect();
    appends.insert(20, stale);
    let all = join_all(appends.into_iter().map(|append| store.append(append))).await;
    let failed: Vec<_> = all.into_iter().filter_map(Result::err).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].conflict().unwrap().actual.get(), 2);
    let usage = meter.take();
    assert!(usage.by_operation["TransactWriteItems"] <= 12, "{usage:?}");
    assert_eq!(everything(&other).await.len(), 66);
}

#[tokio::test]
async fn without_order_calls_that_need_it_are_refused() {
    let place = Place::new().await;
    let store = place.open(false).await;
    assert!(!store.capabilities().global_order);
    let mut read = store.read_all(ReadAll::default());
    assert_eq!(read.try_next().await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(store.last_position().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let refused = store.subscribe(Subscribe::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let appended = store.append(Append::new(id("a-1"), Any, [event(1)])).await.unwrap();
    assert_eq!(appended.position.get(), 0);
}
