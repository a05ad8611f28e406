//! Appends that wait for each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{Append, Appended, ErrorKind, EventStore, ExpectedVersion::Any, Result};
use annals_dynamodb::DynamoDbStore;
use futures::future::join_all;

use crate::{
    common::{Place, any, event, everything, gapless, id, options, soon},
    gate::{Door, Fate, Gate},
};

const WRITES: [&str; 2] = ["PutItem", "TransactWriteItems"];

/// A store that counts what it writes, and lets the write with this number wait for a door.
async fn counted(place: &Place, order: bool, waits: u64) -> (DynamoDbStore, Arc<AtomicU64>, Door) {
    let (writes, door) = (Arc::new(AtomicU64::new(0)), Door::default());
    // Opening a store writes as well.
    let opened = place.open(order).await;
    drop(opened);
    let gate = Gate::new({
        let (writes, door) = (writes.clone(), door.clone());
        move |operation, _| match operation {
            _ if !WRITES.contains(&operation) => Fate::Pass,
            _ if writes.fetch_add(1, SeqCst) + 1 == waits => Fate::Wait(door.clone()),
            _ => Fate::Pass,
        }
    });
    let store = place.open_through(gate.http_client(), options(order)).await.unwrap();
    writes.store(0, SeqCst);
    (store, writes, door)
}

/// Appends one event each, at the same time. The first to be polled is written alone, and the others
/// wait for it.
async fn append_all(
    store: &DynamoDbStore,
    appends: impl IntoIterator<Item = Append>,
) -> Vec<Result<Appended>> {
    soon("all appends", join_all(appends.into_iter().map(|one| store.append(one)))).await
}

async fn many_are_written_together(order: bool) {
    let place = Place::new().await;
    let (store, writes, _) = counted(&place, order, u64::MAX).await;
    let answers = append_all(&store, (0..200).map(|n| any("hot-1", n))).await;
    assert!(writes.load(SeqCst) <= 3, "200 appends took {writes:?} writes");
    let events = gapless(&store, &id("hot-1")).await;
    assert_eq!(events.len(), 200);
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        let found = &events[answer.last_version.get() as usize - 1];
        assert_eq!(found.json::<u64>().unwrap(), number as u64);
        assert_eq!((found.position, answer.replayed), (answer.position, false));
    }
    if order {
        assert_eq!(everything(&store).await.len(), 200);
    }
}

#[tokio::test]
async fn appends_that_wait_for_one_stream_are_written_together() {
    many_are_written_together(true).await;
}

#[tokio::test]
async fn appends_that_wait_for_one_stream_are_written_together_without_order() {
    many_are_written_together(false).await;
}

#[tokio::test]
async fn the_second_try_of_a_waiting_append_is_recognised() {
    let place = Place::new().await;
    let (store, _, _) = counted(&place, true, u64::MAX).await;
    let (first, again) = (any("hot-1", 1), any("hot-1", 2));
    let appends = [first, again.clone(), again.clone(), any("hot-1", 3), any("hot-1", 4)];
    let answers = append_all(&store, appends).await;
    let answers = answers.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(answers[1].last_version, answers[2].last_version);
    assert_eq!(answers.iter().filter(|answer| answer.replayed).count(), 1);
    assert_eq!(everything(&store).await.len(), 4);
    // The first that waits is a second try of the stream's last append, which another store wrote.
    let last = any("hot-1", 5);
    place.open(true).await.append(last.clone()).await.unwrap();
    let answers = append_all(&store, [last.clone(), last, any("hot-1", 6)]).await;
    assert!(answers.into_iter().take(2).all(|answer| answer.unwrap().replayed));
    assert_eq!(everything(&store).await.len(), 6);
}

#[tokio::test]
async fn another_process_comes_between_appends_that_wait() {
    let place = Place::new().await;
    // The second write of this store has the appends that waited for the first.
    let (store, writes, door) = counted(&place, true, 2).await;
    let together = append_all(&store, (0..10).map(|n| any("hot-1", n)));
    let between = async {
        door.reached_by(1).await;
        place.open(true).await.append(any("hot-1", 10)).await.unwrap();
        door.open();
    };
    let (answers, ()) = tokio::join!(together, between);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut numbers: Vec<u64> =
        everything(&store).await.iter().map(|event| event.json().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(0..=10));
    assert!(writes.load(SeqCst) <= 5, "{writes:?}");
}

#[tokio::test]
async fn a_closed_stream_refuses_each_append_that_waits() {
    let place = Place::new().await;
    let (store, _, _) = counted(&place, true, u64::MAX).await;
    store.append(any("hot-1", 1)).await.unwrap();
    store.tombstone(&id("hot-1"), Any).await.unwrap();
    for answer in append_all(&store, (2..6).map(|n| any("hot-1", n))).await {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::StreamClosed);
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_takes_no_other_with_it() {
    let place = Place::new().await;
    let (store, _, door) = counted(&place, true, 1).await;
    let store = Arc::new(store);
    let spawn = |n| {
        let store = store.clone();
        tokio::spawn(async move { store.append(any("hot-1", n)).await })
    };
    let first = spawn(0);
    door.reached_by(1).await;
    // On the test's only thread, each task runs until it waits for the first.
    let (second, third) = (spawn(1), spawn(2));
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    door.open();
    soon("the first", first).await.unwrap().unwrap();
    soon("the third", third).await.unwrap().unwrap();
    let numbers: Vec<u64> =
        everything(&store).await.iter().map(|event| event.json().unwrap()).collect();
    assert_eq!(numbers, [0, 2]);
}

/// An application may have several runtimes, and stop driving one of them.
#[test]
fn a_runtime_that_stands_still_holds_up_no_other() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (driven, stands_still) = (runtime(), runtime());
    let door = Door::default();
    let (place, store) = driven.block_on(async {
        let place = Place::new().await;
        drop(place.open(true).await);
        let gate = Gate::new({
            let door = door.clone();
            move |operation, _| match operation {
                "TransactWriteItems" if !door.is_open() => Fate::Wait(door.clone()),
                _ => Fate::Pass,
            }
        });
        // A connection that the other runtime has opened never answers.
        let options =
            options(true).with_writers(1).with_request_timeout(Duration::from_millis(200));
        let store = place.open_through(gate.http_client(), options).await.unwrap();
        (place, Arc::new(store))
    });
    let appends = ["a-1", "a-2"].map(|stream| {
        let store = store.clone();
        stands_still.spawn(async move { store.append(any(stream, 1)).await })
    });
    stands_still.block_on(door.reached_by(1));
    door.open();
    driven.block_on(async {
        for stream in ["a-1", "a-2", "a-3"] {
            let append = Append::new(id(stream), Any, [event(2)]);
            soon("an append of the other runtime", store.append(append)).await.unwrap();
        }
        drop(place);
    });
    drop(appends);
}
