//! A writer that dies between any two requests, or before it knows the answer to one, leaves the
//! store whole.

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

/// More requests than any of this takes.
const MOST: u64 = 60;

/// Something that is done in several requests.
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

/// What a death left.
pub(crate) struct Left {
    pub(crate) place: Place,
    pub(crate) order: bool,
    /// Who prepared it.
    pub(crate) prepared_by: DynamoDbStore,
    /// Who sees it for the first time.
    pub(crate) stranger: DynamoDbStore,
    /// Before, or after, how many requests.
    pub(crate) after: bool,
    pub(crate) requests: u64,
}

impl Left {
    /// One that goes on: who has been there or not, by turns.
    pub(crate) fn healthy(&self) -> &DynamoDbStore {
        if self.requests.is_multiple_of(2) { &self.stranger } else { &self.prepared_by }
    }
}

/// Lets whoever acts die before each request, and after each, until it is done without dying.
pub(crate) async fn deaths(
    order: bool,
    prepare: impl AsyncFn(&DynamoDbStore),
    act: &Act,
    check: impl AsyncFn(&Left),
) {
    for after in [false, true] {
        for requests in 0.. {
            assert!(requests < MOST, "it never ends");
            let place = Place::new().await;
            let prepared_by = place.open(order).await;
            prepare(&prepared_by).await;
            // To open takes some requests as well.
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
                assert!(requests > 0, "it sends nothing");
                break;
            }
        }
    }
}

/// Appends that die are there as a whole or not at all, and can be repeated.
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
        // Others go on, with other streams, whatever became of it.
        soon("another append", left.prepared_by.append(any("other-1", 1))).await.unwrap();
        let replayed = soon("a retry", act.run(left.healthy())).await.unwrap();
        assert_eq!(replayed, Some(written[0]), "{what}");
        for append in &appends {
            assert_eq!(of(&left.stranger, append).await, append.events.len(), "{what}: once");
            // And with these.
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

/// Of which no two fit into one item.
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

/// Streams whose events can be found in the table.
async fn marked(store: &DynamoDbStore) {
    for stream in ["a-1", "b-1"] {
        let mark = |n: u64| format!("<{stream}:{n}>");
        let small = |n| NewEvent::binary("Small", mark(n)).unwrap();
        for first in [1, 4, 7] {
            let events = [small(first), small(first + 1), small(first + 2)];
            store.append_to(stream, Any, events).await.unwrap();
        }
        // More than the log takes.
        let medium = (10..=12).map(|n| noise(&mark(n), 1_000));
        store.append_to(stream, Any, medium).await.unwrap();
        store.append_to(stream, Any, [small(13)]).await.unwrap();
    }
}

/// A removal that dies can be repeated, and then all of it is done. What is left is from `first`.
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
        let info = left.stranger.stream_info(&a).await.unwrap();
        assert_eq!((info.version.get(), info.exists()), (13, !found.is_empty()), "{what}");
        // A closed stream says so, and what is left of its removal is done all the same.
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
