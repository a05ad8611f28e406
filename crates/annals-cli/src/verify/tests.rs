//! Stores that hide something from one of their reads: verify has to find it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use annals::{
    EventStore, EventStoreExt, EventStream, ExpectedVersion, NewEvent, ReadAll, ReadStream,
    RecordedEvent, Result, Store, StoreUrl, StreamId, StreamInfo, TransferStore, TryStreamExt,
    Version,
};
use annals_test_stores::{Hook, Hooked};
use futures::StreamExt;

use super::{alone, census::Census, findings::Findings};
use crate::{interrupt::Interrupt, select::Select, source::Source};

/// Whether a store shows an event.
type Shown = fn(&RecordedEvent) -> bool;

/// Which events and streams a store shows.
#[derive(Clone, Copy, Debug)]
struct Shows {
    in_all: Shown,
    in_stream: Shown,
    in_list: fn(&StreamId) -> bool,
}

const EVERYTHING: Shows = Shows { in_all: |_| true, in_stream: |_| true, in_list: |_| true };

fn only(events: EventStream, shown: Shown) -> EventStream {
    events.try_filter(move |event| futures::future::ready(shown(event))).boxed()
}

impl Hook for Shows {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        call.await
    }

    fn read_stream(
        &self,
        store: &Arc<dyn Store>,
        stream: &StreamId,
        options: ReadStream,
    ) -> EventStream {
        only(store.read_stream(stream, options), self.in_stream)
    }

    fn read_all(&self, store: &Arc<dyn Store>, mut options: ReadAll) -> EventStream {
        let limit = options.limit.take().unwrap_or(u64::MAX);
        let events = only(store.read_all(options), self.in_all);
        events.take(usize::try_from(limit).unwrap()).boxed()
    }

    async fn list_streams(
        &self,
        store: &Arc<dyn Store>,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let page = store.list_streams(after, limit).await?;
        Ok(page.into_iter().filter(|(stream, _)| (self.in_list)(stream)).collect())
    }
}

/// The streams `a-1`, `a-2` and `a-3` with the versions 1 to 4 each, in turn, at positions 1 to 12.
async fn filled() -> Arc<dyn Store> {
    let store = annals::connect("memory:").await.unwrap();
    for n in 0..12 {
        let stream = format!("a-{}", n % 3 + 1);
        let event = NewEvent::json("Numbered", &n).unwrap();
        store.append_to(stream.as_str(), ExpectedVersion::Any, [event]).await.unwrap();
    }
    store
}

/// What verify finds in a store, after `meanwhile` was done between the read of all and the others.
async fn found<F: Future<Output = ()>>(
    store: Arc<dyn Store>,
    meanwhile: impl FnOnce() -> F,
) -> Vec<String> {
    let source = Source::Store { url: StoreUrl::parse("memory:").unwrap(), store, exporter: None };
    let (select, findings, interrupt) =
        (Select::default(), Findings::default(), Interrupt::listen());
    let census = Census::take(&source, &select, None, &interrupt, &findings, |_| ()).await.unwrap();
    meanwhile().await;
    alone::compare(&source, &census, &select, &interrupt, &findings, |_| ()).await.unwrap();
    findings.lists().broken
}

async fn found_in(shows: Shows) -> Vec<String> {
    found(Hooked::new(&filled().await, shows), || async {}).await
}

fn of(event: &RecordedEvent, stream: &str) -> bool {
    event.stream.as_str() == stream
}

#[tokio::test]
async fn a_good_store_has_no_breach() {
    assert_eq!(found_in(EVERYTHING).await, [""; 0]);
    let store = filled().await;
    let id = |text: &str| StreamId::new(text).unwrap();
    store.truncate(&id("a-1"), Version::new(3)).await.unwrap();
    store.truncate(&id("a-2"), Version::new(9)).await.unwrap();
    store.delete(&id("a-3"), ExpectedVersion::Any).await.unwrap();
    store.append_to("a-3", ExpectedVersion::Any, [NewEvent::json("E", &1).unwrap()]).await.unwrap();
    store.append_to("a-4", ExpectedVersion::Any, [NewEvent::json("E", &1).unwrap()]).await.unwrap();
    store.tombstone(&id("a-4"), ExpectedVersion::Any).await.unwrap();
    assert_eq!(found(Hooked::new(&store, EVERYTHING), || async {}).await, [""; 0]);
}

#[tokio::test]
async fn what_a_read_of_all_hides_is_found() {
    let hidden: [(Shown, &str); 6] = [
        (|e| !of(e, "a-2"), "a-2: a read of all lacks events from version 1 to "),
        (
            |e| !of(e, "a-2") || e.version.get() > 2,
            "a-2: a read of all lacks events from version 1 to 2",
        ),
        (|e| !of(e, "a-2") || e.version.get() != 2, "version 3 of a-2: comes after version 1"),
        (|e| !of(e, "a-2") || e.version.get() != 4, "a-2: a read of all lacks version 4"),
        (|e| e.position.get() < 12, "a-3: a read of all lacks version 4"),
        (|_| false, "a-1: a read of all lacks events from version 1 to 4"),
    ];
    for (in_all, due) in hidden {
        let found = found_in(Shows { in_all, ..EVERYTHING }).await;
        assert!(found.iter().any(|found| found.contains(due)), "{due}: {found:?}");
    }
}

#[tokio::test]
async fn what_a_read_of_a_stream_hides_is_found() {
    let hidden: [(Shown, &str); 5] = [
        (|e| !of(e, "a-2"), "a-2: the 0 events of a read of the stream differ"),
        (
            |e| !of(e, "a-2") || e.version.get() > 2,
            "a-2: the 2 events of a read of the stream differ",
        ),
        (|e| !of(e, "a-2") || e.version.get() != 2, "version 3 of a-2 comes after version 1"),
        (
            |e| !of(e, "a-2") || e.version.get() != 4,
            "a-2: the 3 events of a read of the stream differ",
        ),
        (|_| false, "a-3: the 0 events"),
    ];
    for (in_stream, due) in hidden {
        let found = found_in(Shows { in_stream, ..EVERYTHING }).await;
        assert!(found.iter().any(|found| found.contains(due)), "{due}: {found:?}");
    }
}

#[tokio::test]
async fn what_both_reads_hide_is_found_by_the_list() {
    let hidden: Shown = |e| !of(e, "a-2");
    let found = found_in(Shows { in_all: hidden, in_stream: hidden, ..EVERYTHING }).await;
    assert_eq!(found, ["a-2: stream_info says version 4, but a read of the stream ends with 0"]);
}

#[tokio::test]
async fn what_the_list_hides_is_found() {
    let in_list: fn(&StreamId) -> bool = |id| id.as_str() != "a-2";
    let found = found_in(Shows { in_list, ..EVERYTHING }).await;
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("a-2: list_streams lacks the stream"), "{found:?}");
}

#[tokio::test]
async fn writers_meanwhile_are_no_breach() {
    let store = filled().await;
    let writer = store.clone();
    let found = found(Hooked::new(&store, EVERYTHING), || async move {
        for stream in ["a-1", "b-1", "a-1"] {
            let event = NewEvent::json("Late", &1).unwrap();
            writer.append_to(stream, ExpectedVersion::Any, [event]).await.unwrap();
        }
        writer.truncate(&StreamId::new("a-2").unwrap(), Version::new(3)).await.unwrap();
        writer.delete(&StreamId::new("a-3").unwrap(), ExpectedVersion::Any).await.unwrap();
    });
    assert_eq!(found.await, [""; 0]);
}

/// A store whose list has its streams in another order.
#[derive(Debug)]
struct Backwards;

impl Hook for Backwards {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        call.await
    }

    async fn list_streams(
        &self,
        store: &Arc<dyn Store>,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        // One page of all streams, and then the end.
        let all = if after.is_none() { store.list_streams(None, limit).await? } else { vec![] };
        Ok(all.into_iter().rev().collect())
    }
}

/// A store whose list never ends.
#[derive(Debug)]
struct Again;

impl Hook for Again {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        call.await
    }

    async fn list_streams(
        &self,
        store: &Arc<dyn Store>,
        _: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        store.list_streams(None, limit).await
    }
}

#[tokio::test]
async fn a_list_without_order_or_end_is_a_breach() {
    let found = found(Hooked::new(&filled().await, Again), || async {}).await;
    assert!(found[0].starts_with("list_streams gives a-1 after a greater id"), "{found:?}");
    let found = self::found(Hooked::new(&filled().await, Backwards), || async {}).await;
    assert!(found[0].starts_with("list_streams gives a-2 after a greater id"), "{found:?}");
}

#[tokio::test]
async fn a_filter_by_time_makes_no_breach() {
    let at = |minute: i64| chrono::DateTime::from_timestamp(60 * minute, 0).unwrap();
    let event = |n: u64, minute| {
        let event = NewEvent::json("Timed", &n).unwrap();
        event.recorded(StreamId::new("a-1").unwrap(), n.into(), n.into(), at(minute))
    };
    let store = annals::connect("memory:").await.unwrap();
    let events = [(1, 100), (2, 40), (3, 101), (4, 39), (5, 102)];
    store.import(events.map(|(n, minute)| event(n, minute)).to_vec()).await.unwrap();
    let source = Source::Store { url: StoreUrl::parse("memory:").unwrap(), store, exporter: None };
    for (since, until, due) in [(Some(90), None, 3), (None, Some(90), 2), (Some(40), Some(102), 3)]
    {
        let mut select = Select::default();
        (select.times.since, select.times.until) = (since.map(at), until.map(at));
        let findings = Findings::default();
        let interrupt = Interrupt::listen();
        let take = Census::take(&source, &select, None, &interrupt, &findings, |_| ());
        assert_eq!(take.await.unwrap().events, due);
        assert_eq!(findings.lists().broken, [""; 0]);
    }
}
