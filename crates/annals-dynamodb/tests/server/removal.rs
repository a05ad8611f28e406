//! Removed events leave their keys behind, and do not come back.

use std::time::Duration;

use annals_core::{
    Append, EventStore, EventStoreExt,
    ExpectedVersion::{Any, Exact, NoStream},
    NewEvent, Subscribe, Version,
};
use annals_dynamodb::DynamoDbStore;

use crate::{
    common::{
        Place, any, contains, event, everything, gapless, id, noise, options, read_all, soon, take,
    },
    gate::{Door, Fate, Gate},
};

fn mark(n: u64) -> String {
    format!("<mark {n}>")
}

async fn versions(store: &DynamoDbStore) -> Vec<u64> {
    gapless(store, &id("a-1")).await.iter().map(|event| event.version.get()).collect()
}

#[tokio::test]
async fn versions_that_were_removed_are_not_free() {
    for order in [true, false] {
        for delete in [false, true] {
            let place = Place::new().await;
            let (stale, other) = (place.open(order).await, place.open(order).await);
            for n in 1..=2 {
                stale.append(any("a-1", n)).await.unwrap();
            }
            // The first store does not know these events. They are removed.
            for n in 3..=5 {
                other.append(any("a-1", n)).await.unwrap();
            }
            if delete {
                other.delete(&id("a-1"), Any).await.unwrap();
            } else {
                other.truncate(&id("a-1"), Version::new(6)).await.unwrap();
            }
            let append = Append::new(id("a-1"), Exact(2.into()), [event(9)]);
            let error = stale.append(append).await.unwrap_err();
            assert_eq!(error.conflict().unwrap().actual.get(), 5, "{error:?}");
            let next = Append::new(id("a-1"), Exact(5.into()), [event(6)]);
            assert_eq!(stale.append(next).await.unwrap().last_version.get(), 6);
            assert_eq!(versions(&other).await, [6]);
            if order {
                everything(&place.open(true).await).await;
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_knows_a_stream_from_before_its_deletion_can_append() {
    for order in [true, false] {
        for expected in [Any, NoStream, Exact(2.into())] {
            let place = Place::new().await;
            let (stale, other) = (place.open(order).await, place.open(order).await);
            for n in 1..=2 {
                stale.append(any("a-1", n)).await.unwrap();
            }
            other.delete(&id("a-1"), Exact(2.into())).await.unwrap();
            let append = Append::new(id("a-1"), expected, [event(3)]);
            let appended = stale.append(append.clone()).await.unwrap();
            assert_eq!((appended.last_version.get(), appended.replayed), (3, false));
            assert!(other.append(append).await.unwrap().replayed);
            assert_eq!(versions(&other).await, [3]);
        }
    }
}

#[tokio::test]
async fn a_closed_stream_takes_no_append_of_a_store_with_old_knowledge() {
    for order in [true, false] {
        let place = Place::new().await;
        let (stale, other) = (place.open(order).await, place.open(order).await);
        stale.append(any("a-1", 1)).await.unwrap();
        other.tombstone(&id("a-1"), Any).await.unwrap();
        for expected in [Any, NoStream, Exact(1.into())] {
            let append = Append::new(id("a-1"), expected, [event(2)]);
            let error = stale.append(append).await.unwrap_err();
            assert_eq!(error.kind(), annals_core::ErrorKind::StreamClosed);
        }
    }
}

/// A truncation that is delayed, at the request that `is_late` picks, undoes nothing of another
/// that removed more meanwhile.
async fn a_late_truncation(is_late: fn(&str, i64) -> bool) {
    let (place, door) = (Place::new().await, Door::default());
    let other = place.open(true).await;
    let events = (1..=6).map(|n| NewEvent::binary("Marked", mark(n)).unwrap());
    other.append_to("a-1", Any, events).await.unwrap();
    let waits = door.clone();
    let gate = Gate::new(move |operation, body| {
        let key = &body["Key"];
        let (pk, sk) = (key["pk"]["S"].as_str(), key["sk"]["N"].as_str());
        let late = is_late(pk.unwrap_or_default(), sk.map_or(-2, |sk| sk.parse().unwrap()));
        if operation == "UpdateItem" && late && !waits.is_open() {
            Fate::Wait(waits.clone())
        } else {
            Fate::Pass
        }
    });
    let options = options(true).with_request_timeout(Duration::from_secs(60));
    let late = place.open_through(gate.http_client(), options).await.unwrap();
    let task = tokio::spawn(async move { late.truncate(&id("a-1"), Version::new(3)).await });
    soon("the truncation is under way", door.reached_by(1)).await;
    other.truncate(&id("a-1"), Version::new(5)).await.unwrap();
    door.open();
    soon("the truncation", task).await.unwrap().unwrap();
    let items = place.items().await;
    for n in 1..=6 {
        assert_eq!(contains(&items, &mark(n)), n >= 5, "the bytes of {n}");
    }
    assert_eq!(versions(&place.open(true).await).await, [5, 6]);
    let info = other.stream_info(&id("a-1")).await.unwrap();
    assert_eq!(info.first_version, Some(Version::new(5)));
    let all = everything(&place.open(true).await).await;
    assert_eq!(all.iter().map(|event| event.version.get()).collect::<Vec<_>>(), [5, 6]);
}

#[tokio::test]
async fn a_truncation_that_is_late_to_say_so_undoes_nothing() {
    a_late_truncation(|pk, sk| pk == "s:a-1" && sk == 0).await;
}

#[tokio::test]
async fn a_truncation_that_is_late_at_the_log_undoes_nothing() {
    a_late_truncation(|pk, _| pk.starts_with("l:")).await;
}

#[tokio::test]
async fn a_truncation_that_is_late_at_the_events_undoes_nothing() {
    a_late_truncation(|pk, sk| pk == "s:a-1" && sk == 1).await;
}

#[tokio::test]
async fn events_of_many_items_are_gone() {
    for order in [true, false] {
        let place = Place::new().await;
        let store = place.open(order).await;
        let events = (1..=3).map(|n| noise(&mark(n), 210_000));
        store.append_to("a-1", Any, events).await.unwrap();
        store.append_to("a-1", Any, [NewEvent::binary("Marked", mark(4)).unwrap()]).await.unwrap();
        store.truncate(&id("a-1"), Version::new(3)).await.unwrap();
        let items = place.items().await;
        assert_eq!([1, 2, 3, 4].map(|n| contains(&items, &mark(n))), [false, false, true, true]);
        assert_eq!(versions(&place.open(order).await).await, [3, 4]);
        if order {
            assert_eq!(everything(&store).await.len(), 2);
        }
    }
}

/// A deletion that an append overtakes deletes the new event, too, or is refused if it expected
/// another version; it does not overwrite the event.
#[tokio::test]
async fn a_late_deletion_writes_over_no_event() {
    for order in [true, false] {
        for expected in [Any, Exact(1.into())] {
            let (place, door) = (Place::new().await, Door::default());
            let other = place.open(order).await;
            other.append(any("a-1", 1)).await.unwrap();
            let waits = door.clone();
            let gate = Gate::new(move |operation, _| match operation {
                "TransactWriteItems" if !waits.is_open() => Fate::Wait(waits.clone()),
                _ => Fate::Pass,
            });
            let options = options(order).with_request_timeout(Duration::from_secs(60));
            let late = place.open_through(gate.http_client(), options).await.unwrap();
            let task = tokio::spawn(async move { late.delete(&id("a-1"), expected).await });
            soon("the deletion is under way", door.reached_by(1)).await;
            other.append(any("a-1", 2)).await.unwrap();
            door.open();
            let deleted = soon("the deletion", task).await.unwrap();
            let info = other.stream_info(&id("a-1")).await.unwrap();
            assert_eq!((info.version.get(), info.exists()), (2, expected != Any));
            if expected == Any {
                deleted.unwrap();
                assert!(versions(&other).await.is_empty());
            } else {
                assert_eq!(deleted.unwrap_err().conflict().unwrap().actual.get(), 2);
                assert_eq!(versions(&other).await, [1, 2]);
            }
        }
    }
}

/// The rest of a shortened item can be longer than what the log takes, although the log has its events.
#[tokio::test]
async fn a_removal_finds_the_events_in_the_log_whatever_the_item_became() {
    let place = Place::new().await;
    let store = place.open(true).await;
    let small = (1..=5).map(|n| noise(&mark(n), 20));
    store.append(Append::new(id("a-1"), NoStream, small)).await.unwrap();
    store.truncate(&id("a-1"), Version::new(2)).await.unwrap();
    // Replace the four events that are left by four long ones.
    let long = (2..=5).map(|n| noise(&mark(n), 300));
    store.append(Append::new(id("b-1"), NoStream, long)).await.unwrap();
    let body = place.item("s:b-1", 1).await.unwrap().remove("b").unwrap();
    place.set("s:a-1", 1, "b", body).await;
    store.delete(&id("b-1"), Any).await.unwrap();
    store.truncate(&id("a-1"), Version::new(4)).await.unwrap();
    let versions: Vec<_> = read_all(&store).await.iter().map(|event| event.version.get()).collect();
    assert_eq!(versions, [4, 5]);
}

/// What the subscriptions of a process have read together does not outlive a removal by this process.
#[tokio::test]
async fn a_new_subscription_gets_nothing_that_was_removed_before() {
    let place = Place::new().await;
    let store = place.open(true).await;
    for n in 1..=3 {
        store.append(any("a-1", n)).await.unwrap();
    }
    let subscribe = async || store.subscribe(Subscribe::default()).await.unwrap();
    take(&mut subscribe().await, 3).await;
    store.truncate(&id("a-1"), Version::new(3)).await.unwrap();
    assert_eq!(take(&mut subscribe().await, 1).await[0].version.get(), 3);
}
