//! A writer that dies between any two requests, or before it gets the answer to one, leaves a
//! consistent store.

use annals_core::{
    Append, EventStore, EventStoreExt,
    ExpectedVersion::{Any, Exact, NoStream},
    NewEvent, Result, Subscribe, Version,
};
use annals_dynamodb::DynamoDbStore;
use annals_test_servers::dynamodb::Dying;

use crate::common::{
    Place, any, contains, event, everything, gapless, id, noise, options, read_all, soon, take,
};

/// More requests than any operation here takes.
const MOST: u64 = 60;

/// An operation that takes several requests.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Append(Vec<Append>),
    Delete(&'static str),
    Tombstone(&'static str),
    Truncate(&'static str, u64),
}

impl Act {
    pub(crate) async fn run(&self, store: &DynamoDbStore) -> Result<Option<bool>> {
        match self {
            Self::Append(appends) => {
                let answers = match appends.as_slice() {
                    [one] => vec![store.append(one.clone()).await?],
                    several => store.append_multi(several.to_vec()).await?,
                };
                let replayed = answers[0].replayed;
                assert!(answers.iter().all(|answer| answer.replayed == replayed));
                return Ok(Some(replayed));
            }
            Self::Delete(stream) => store.delete(&id(stream), Any).await?,
            Self::Tombstone(stream) => store.tombstone(&id(stream), Any).await?,
            Self::Truncate(stream, before) => {
                store.truncate(&id(stream), Version::new(*before)).await?;
            }
        }
        Ok(None)
    }
}

/// What a writer left that has died.
pub(crate) struct Left {
    pub(crate) place: Place,
    pub(crate) order: bool,
    /// The store that prepared the table.
    pub(crate) prepared_by: DynamoDbStore,
    /// A store that was opened after the death.
    pub(crate) stranger: DynamoDbStore,
    /// Whether the writer died after, or before, request `requests + 1`.
    pub(crate) after: bool,
    pub(crate) requests: u64,
}

impl Left {
    /// The store that goes on: by turns one that knows the streams and one that does not.
    pub(crate) fn healthy(&self) -> &DynamoDbStore {
        if self.requests.is_multiple_of(2) { &self.stranger } else { &self.prepared_by }
    }
}

/// Runs an operation again and again. The writer dies before its first request, its second and so
/// on until the operation needs no more, and then after each.
pub(crate) async fn deaths(
    order: bool,
    prepare: impl AsyncFn(&DynamoDbStore),
    act: &Act,
    check: impl AsyncFn(&Left),
) {
    for after in [false, true] {
        for requests in 0.. {
            assert!(requests < MOST, "the operation never ends");
            let place = Place::new().await;
            let prepared_by = place.open(order).await;
            prepare(&prepared_by).await;
            // Opening a store takes requests, too.
            let opening = Dying::before(u64::MAX);
            place.open_through(opening.http_client(), options(order)).await.unwrap();
            let whole = opening.requests() + requests;
            let dying = if after { Dying::after(whole) } else { Dying::before(whole) };
            let store = place.open_through(dying.http_client(), options(order)).await.unwrap();
            let died = soon("death or success", async {
                tokio::select! {
                    done = act.run(&store) => {
                        done.unwrap();
                        false
                    }
                    () = dying.died() => true,
                }
            })
            .await;
            drop(store);
            let stranger = place.open(order).await;
            let left = Left { place, order, prepared_by, stranger, after, requests };
            check(&left).await;
            if !died {
                assert!(requests > 0, "the operation sends no request");
                break;
            }
        }
    }
}

/// Appends whose writer dies are written as a whole or not at all, and can be repeated.
async fn appends_that_die(
    order: bool,
    prepare: impl AsyncFn(&DynamoDbStore),
    appends: Vec<Append>,
) {
    let act = Act::Append(appends.clone());
    deaths(order, prepare, &act, async |left| {
        let what = format!("{:?} {}", left.after, left.requests);
        let of = async |store: &DynamoDbStore, append: &Append| {
            let found = gapless(store, &append.stream).await;
            let is_ours = |id| append.events.iter().any(|event: &NewEvent| event.id() == id);
            found.iter().filter(|event| is_ours(event.id)).count()
        };
        let mut written = Vec::new();
        for append in &appends {
            let count = of(&left.stranger, append).await;
            assert!(count == 0 || count == append.events.len(), "{what}: {count} of an append");
            written.push(count > 0);
        }
        assert!(written.iter().all(|w| *w == written[0]), "{what}: some of {written:?}");
        if left.order {
            everything(&left.stranger).await;
        }
        // Another store can append to another stream, whether the append was written or not.
        soon("another append", left.prepared_by.append(any("other-1", 1))).await.unwrap();
        let replayed = soon("a retry", act.run(left.healthy())).await.unwrap();
        assert_eq!(replayed, Some(written[0]), "{what}");
        for append in &appends {
            assert_eq!(of(&left.stranger, append).await, append.events.len(), "{what}: once");
            // And to the same streams.
            let next = Append::new(append.stream.clone(), Any, [event(99)]);
            soon("the next append", left.prepared_by.append(next)).await.unwrap();
        }
        if left.order {
            let all = everything(&left.stranger).await;
            let mut subscription = left.prepared_by.subscribe(Subscribe::default()).await.unwrap();
            assert_eq!(take(&mut subscription, all.len()).await, all, "{what}");
            for append in &appends {
                for event in &append.events {
                    let times = all.iter().filter(|found| found.id == event.id()).count();
                    assert_eq!(times, 1, "{what}");
                }
            }
        }
    })
    .await;
}

async fn nothing(_: &DynamoDbStore) {}

async fn three(store: &DynamoDbStore) {
    for number in 1..=3 {
        store.append(any("a-1", number)).await.unwrap();
    }
}

#[tokio::test]
async fn a_small_append_is_whole() {
    for order in [true, false] {
        appends_that_die(order, nothing, vec![Append::new(id("a-1"), NoStream, [event(1)])]).await;
        let next = Append::new(id("a-1"), Exact(3.into()), [event(4), event(5)]);
        appends_that_die(order, three, vec![next]).await;
    }
}

#[tokio::test]
async fn an_append_whatever_the_version_is_whole() {
    for order in [true, false] {
        appends_that_die(order, three, vec![any("a-1", 4)]).await;
    }
}

/// Events of which no two fit into one item.
fn large() -> [NewEvent; 3] {
    std::array::from_fn(|n| noise("large", 210_000 + n))
}

#[tokio::test]
async fn an_append_of_several_items_is_whole() {
    let append = Append::new(id("a-1"), Exact(3.into()), large());
    appends_that_die(true, three, vec![append]).await;
}

#[tokio::test]
async fn an_append_of_several_items_is_whole_without_order() {
    let append = Append::new(id("a-1"), NoStream, large());
    appends_that_die(false, nothing, vec![append]).await;
}

#[tokio::test]
async fn an_append_to_several_streams_is_whole() {
    for order in [true, false] {
        let to = |stream, expected| Append::new(id(stream), expected, [event(1), event(2)]);
        let appends = vec![to("a-1", Exact(3.into())), to("b-1", NoStream), to("b-2", NoStream)];
        appends_that_die(order, three, appends).await;
    }
}

#[tokio::test]
async fn an_append_that_revives_a_stream_is_whole() {
    async fn deleted(store: &DynamoDbStore) {
        three(store).await;
        store.delete(&id("a-1"), Any).await.unwrap();
    }
    for order in [true, false] {
        for expected in [NoStream, Exact(3.into())] {
            let append = Append::new(id("a-1"), expected, [event(4)]);
            appends_that_die(order, deleted, vec![append]).await;
        }
    }
}

/// Two streams of events with marks, by which their bytes are found in the table.
async fn marked(store: &DynamoDbStore) {
    for stream in ["a-1", "b-1"] {
        let mark = |n: u64| format!("<{stream}:{n}>");
        let small = |n| NewEvent::binary("Small", mark(n)).unwrap();
        for first in [1, 4, 7] {
            let events = [small(first), small(first + 1), small(first + 2)];
            store.append_to(stream, Any, events).await.unwrap();
        }
        // Too large for the log.
        let medium = (10..=12).map(|n| noise(&mark(n), 1_000));
        store.append_to(stream, Any, medium).await.unwrap();
        store.append_to(stream, Any, [small(13)]).await.unwrap();
    }
}

/// A removal whose writer dies can be repeated, and then is complete: the events from `first` on
/// are left.
async fn a_removal_that_dies(order: bool, act: Act, first: u64, closed: bool) {
    deaths(order, marked, &act, async |left| {
        let what = format!("{act:?}: {:?} {}", left.after, left.requests);
        let (a, b) = (id("a-1"), id("b-1"));
        let versions = |events: &[annals_core::RecordedEvent]| {
            events.iter().map(|event| event.version.get()).collect::<Vec<_>>()
        };
        let found = versions(&gapless(&left.stranger, &a).await);
        let (before, removed) = ((1..=13).collect::<Vec<_>>(), (first..=13).collect::<Vec<_>>());
        assert!(found == before || found == removed, "{what}: {found:?}");
        if left.order {
            // Whoever opened the store after the death has finished the removal.
            let of_a = |event: &annals_core::RecordedEvent| event.stream == a;
            let all: Vec<_> = read_all(&left.stranger).await.into_iter().filter(of_a).collect();
            assert_eq!(versions(&all), found, "{what}: a read of all");
        }
        let info = left.stranger.stream_info(&a).await.unwrap();
        assert_eq!((info.version.get(), info.exists()), (13, !found.is_empty()), "{what}");
        // On a stream that is closed already, the repeated call fails, and completes the removal.
        match soon("a repetition", act.run(left.healthy())).await {
            Ok(_) => {}
            Err(error) => {
                assert!(closed, "{what}: {error:?}");
                assert_eq!(error.kind(), annals_core::ErrorKind::StreamClosed, "{what}");
            }
        }
        assert_eq!(versions(&gapless(&left.stranger, &a).await), removed, "{what}");
        let items = left.place.items().await;
        for n in 1..=13 {
            let (of_a, of_b) = (format!("<a-1:{n}>"), format!("<b-1:{n}>"));
            assert!(contains(&items, &of_b), "{what}: the other stream's {n}");
            assert_eq!(contains(&items, &of_a), n >= first, "{what}: bytes of {n}");
        }
        assert_eq!(versions(&gapless(&left.stranger, &b).await), before, "{what}");
        let next = soon("the next append", left.prepared_by.append(any("a-1", 14))).await;
        match next {
            Ok(next) => assert_eq!(next.last_version.get(), 14, "{what}"),
            Err(error) => assert!(closed, "{what}: {error:?}"),
        }
        if left.order {
            let all = read_all(&left.stranger).await;
            let of = |stream| all.iter().filter(|e| e.stream == stream).count() as u64;
            let left_of_a = removed.len() as u64 + u64::from(!closed);
            assert_eq!((of(a), of(b)), (left_of_a, 13), "{what}");
            let mut subscription = left.stranger.subscribe(Subscribe::default()).await.unwrap();
            assert_eq!(take(&mut subscription, all.len()).await, all, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_deletion_can_be_completed() {
    a_removal_that_dies(true, Act::Delete("a-1"), 14, false).await;
}

#[tokio::test]
async fn a_deletion_can_be_completed_without_order() {
    a_removal_that_dies(false, Act::Delete("a-1"), 14, false).await;
}

#[tokio::test]
async fn a_tombstone_can_be_completed() {
    a_removal_that_dies(true, Act::Tombstone("a-1"), 14, true).await;
}

#[tokio::test]
async fn a_tombstone_can_be_completed_without_order() {
    a_removal_that_dies(false, Act::Tombstone("a-1"), 14, true).await;
}

#[tokio::test]
async fn a_truncation_can_be_completed() {
    for before in [6, 12] {
        a_removal_that_dies(true, Act::Truncate("a-1", before), before, false).await;
    }
}

#[tokio::test]
async fn a_truncation_can_be_completed_without_order() {
    a_removal_that_dies(false, Act::Truncate("a-1", 11), 11, false).await;
}
