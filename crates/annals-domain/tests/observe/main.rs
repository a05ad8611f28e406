//! What [`Observed`] reports about a store, and what it must not report.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;
#[cfg(feature = "opentelemetry")]
mod traces;

use std::{collections::BTreeMap, future::Future, sync::Arc};

use annals_core::{
    Append, CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, LeaseName,
    LeaseStore, NewEvent, Payload, ReadAll, ReadStream, Snapshot, SnapshotStore, Start, StreamId,
    Subscribe, SubscriberId, TryStreamExt,
};
use annals_domain::observe::{
    APPEND_DURATION, APPENDS, CONFLICTS, ERRORS, EVENTS_APPENDED, EVENTS_READ, Observed,
};
use annals_memory::MemoryStore;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use support::{Failing, Recording, Spans};
use tracing_subscriber::layer::SubscriberExt;

/// A word that is in every payload and nowhere else.
const SECRET: &str = "hush";

fn observed() -> Observed {
    Observed::new(Arc::new(MemoryStore::new()))
}

fn id(text: &str) -> StreamId {
    StreamId::new(text).unwrap()
}

fn event() -> NewEvent {
    let data = NewEvent::json("OrderPlaced", &serde_json::json!({ "name": SECRET })).unwrap();
    data.with_json_metadata(&serde_json::json!({ "who": SECRET })).unwrap()
}

fn append(stream: &str, expected: impl Into<ExpectedVersion>, events: usize) -> Append {
    Append::new(id(stream), expected, (0..events).map(|_| event()))
}

/// Runs it on one thread, with a subscriber and a recorder of its own: the spans, and the metrics
/// as `name{label=value,…}`.
fn watch<F: Future<Output = ()>>(test: impl FnOnce() -> F) -> (Spans, BTreeMap<String, u64>) {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(Recording(spans.clone()));
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&recorder, || runtime.block_on(async { test().await }));
    });
    let metrics = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, text, value)| {
        assert!(text.is_some(), "{key:?} is not described");
        let labels: Vec<_> =
            key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => panic!("there are no gauges"),
        };
        (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
    });
    (spans, metrics.collect())
}

fn on_memory(name: &str) -> String {
    format!("{name}{{backend=memory}}")
}

#[test]
fn an_append_has_the_fields_of_the_conventions() {
    let (spans, metrics) = watch(|| async {
        observed().append(append("order-42", ExpectedVersion::NoStream, 3)).await.unwrap();
    });
    let span = spans.only("append");
    for (field, value) in [
        ("otel.name", "append order"),
        ("otel.kind", "client"),
        ("db.system.name", "memory"),
        ("db.operation.name", "append"),
        ("db.collection.name", "order"),
        ("messaging.system", "annals"),
        ("messaging.operation.name", "append"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", "order"),
        ("messaging.batch.message_count", "3"),
        ("annals.stream", "order-42"),
    ] {
        assert_eq!(span[field], value, "{field}");
    }
    assert!(!span.contains_key("error.type") && !span.contains_key("otel.status_code"));
    assert_eq!(metrics[&on_memory(APPENDS)], 1);
    assert_eq!(metrics[&on_memory(EVENTS_APPENDED)], 3);
    assert_eq!(metrics[&on_memory(APPEND_DURATION)], 1);
}

#[test]
fn an_append_to_several_streams_counts_once() {
    let (spans, metrics) = watch(|| async {
        let store = observed();
        let any = ExpectedVersion::Any;
        store.append_multi(vec![append("a-1", any, 1), append("b-1", any, 2)]).await.unwrap();
        store.append_multi(vec![append("a-1", any, 1), append("a-2", any, 2)]).await.unwrap();
    });
    let named: Vec<_> = spans.all().into_iter().map(|span| span["otel.name"].clone()).collect();
    assert_eq!(named, ["append_multi", "append_multi a"]);
    assert_eq!(spans.all()[0]["db.operation.batch.size"], "2");
    assert_eq!(metrics[&on_memory(APPENDS)], 2);
    assert_eq!(metrics[&on_memory(EVENTS_APPENDED)], 6);
}

#[test]
fn a_retry_writes_no_events() {
    let (_, metrics) = watch(|| async {
        let (store, append) = (observed(), append("order-1", ExpectedVersion::NoStream, 2));
        store.append(append.clone()).await.unwrap();
        assert!(store.append(append).await.unwrap().replayed);
    });
    assert_eq!(metrics[&on_memory(APPENDS)], 2);
    assert_eq!(metrics[&on_memory(EVENTS_APPENDED)], 2);
}

#[test]
fn a_conflict_is_no_error() {
    let (spans, metrics) = watch(|| async {
        let store = observed();
        store.append(append("order-1", ExpectedVersion::NoStream, 1)).await.unwrap();
        let late = append("order-1", ExpectedVersion::NoStream, 1);
        assert_eq!(store.append(late).await.unwrap_err().kind(), ErrorKind::Conflict);
        let wrong = ExpectedVersion::Exact(7.into());
        store.delete(&id("order-1"), wrong).await.unwrap_err();
    });
    let lost = &spans.all()[1];
    assert_eq!(lost["annals.conflict"], "true");
    assert!(!lost.contains_key("error.type") && !lost.contains_key("otel.status_code"));
    assert_eq!(metrics[&on_memory(CONFLICTS)], 2);
    assert_eq!(metrics[&on_memory(APPENDS)], 1);
    assert_eq!(metrics[&on_memory(APPEND_DURATION)], 2);
    assert!(!metrics.keys().any(|name| name.starts_with(ERRORS)));
}

#[test]
fn errors_are_counted_by_kind() {
    let (spans, metrics) = watch(|| async {
        let store = observed();
        store.append(append("order-1", ExpectedVersion::Any, 0)).await.unwrap_err();
        let store = Observed::new(Arc::new(Failing::saying("no more")));
        store.read_stream(&id("order-1"), ReadStream::default()).try_next().await.unwrap_err();
        let mut subscription = store.subscribe(Subscribe::to(id("order-1"))).await.unwrap();
        subscription.next().await.unwrap_err();
    });
    for (name, kind) in
        [("append", "invalid_input"), ("read_stream", "corrupt"), ("receive", "unavailable")]
    {
        let span = spans.only(name);
        assert_eq!((&*span["error.type"], &*span["otel.status_code"]), (kind, "ERROR"), "{name}");
    }
    assert_eq!(spans.only("receive")["otel.name"], "receive order");
    assert_eq!(spans.only("receive")["messaging.operation.type"], "receive");
    assert_eq!(metrics["annals.errors{backend=memory,kind=invalid_input}"], 1);
    assert_eq!(metrics["annals.errors{backend=failing,kind=corrupt}"], 1);
    assert_eq!(metrics["annals.errors{backend=failing,kind=unavailable}"], 1);
}

#[test]
fn reads_and_subscriptions_count_their_events() {
    let (spans, metrics) = watch(|| async {
        let store = observed();
        store.append(append("order-1", ExpectedVersion::Any, 5)).await.unwrap();
        assert_eq!(store.load_stream(&id("order-1")).await.unwrap().len(), 5);
        // Drop the stream before its end.
        let mut all = store.read_all(ReadAll::default());
        all.try_next().await.unwrap().unwrap();
        drop(all);
        // The next messages are live.
        let mut subscription = store.subscribe(Subscribe::to(id("order-1"))).await.unwrap();
        for _ in 0..5 {
            subscription.next_event().await.unwrap();
        }
        store.append(append("order-1", ExpectedVersion::Any, 2)).await.unwrap();
        for _ in 0..2 {
            subscription.next_event().await.unwrap();
        }
    });
    assert_eq!(spans.only("read_stream")["db.response.returned_rows"], "5");
    assert_eq!(spans.only("read_all")["db.response.returned_rows"], "1");
    assert_eq!(spans.only("subscribe")["messaging.destination.name"], "order");
    assert_eq!(metrics[&on_memory(EVENTS_READ)], 5 + 1 + 7);
}

#[test]
fn a_read_ends_its_span_while_the_stream_is_kept() {
    let (spans, _) = watch(|| async {
        let mut read = observed().read_stream(&id("order-1"), ReadStream::default());
        assert_eq!(read.try_next().await.unwrap(), None);
        assert_eq!(read.try_next().await.unwrap(), None);
        tracing::info_span!("after").in_scope(|| {});
        drop(read);
    });
    assert_eq!(spans.closed(), ["read_stream", "after"]);
}

#[test]
fn every_call_has_a_span_and_none_has_a_payload() {
    let (spans, _) = watch(|| async {
        let (store, stream) = (observed(), id("order-1"));
        let (subscriber, lease) =
            (SubscriberId::new("totals").unwrap(), LeaseName::new("totals").unwrap());
        store.append(append("order-1", ExpectedVersion::Any, 3)).await.unwrap();
        store.append_multi(vec![append("order-1", ExpectedVersion::Any, 1)]).await.unwrap();
        store.load_stream(&stream).await.unwrap();
        store.last_position().await.unwrap();
        let subscribe = Subscribe::to(stream.clone()).with_start(Start::Beginning);
        store.subscribe(subscribe).await.unwrap().next_event().await.unwrap();
        store.stream_info(&stream).await.unwrap();
        store.truncate(&stream, 2.into()).await.unwrap();
        let state = Payload::json(SECRET).unwrap();
        let snapshot = Snapshot::new(1, state.clone()).with_metadata(state);
        store.save_snapshot(&stream, snapshot).await.unwrap();
        store.load_snapshot(&stream).await.unwrap();
        store.delete_snapshot(&stream).await.unwrap();
        store.save_checkpoint(&subscriber, 1.into()).await.unwrap();
        store.load_checkpoint(&subscriber).await.unwrap();
        store.reset_checkpoint(&subscriber, None).await.unwrap();
        store.delete(&stream, ExpectedVersion::Any).await.unwrap();
        store.tombstone(&stream, ExpectedVersion::Any).await.unwrap();
        // An error that quotes the payload.
        Observed::new(Arc::new(Failing::saying(SECRET)))
            .read_stream(&stream, ReadStream::default())
            .try_next()
            .await
            .unwrap_err();
        store.load_lease(&lease).await.unwrap();
        let record = annals_core::LeaseRecord::new(1, 1, event().id(), std::time::Duration::ZERO);
        assert!(store.swap_lease(&lease, &record).await.unwrap());
    });
    let seen = spans.all();
    let operations: Vec<_> = seen.iter().map(|span| &*span["db.operation.name"]).collect();
    assert_eq!(
        operations.join(" "),
        "append append_multi read_stream read_all subscribe stream_info truncate save_snapshot \
         load_snapshot delete_snapshot save_checkpoint load_checkpoint reset_checkpoint delete \
         tombstone read_stream load_lease swap_lease"
    );
    for span in &seen {
        assert_eq!(span["name"], span["db.operation.name"]);
        assert!(!span["otel.name"].contains("-1"), "a stream's name is not low in cardinality");
        assert!(!span.values().any(|value| value.contains(SECRET)), "{span:?}");
    }
    assert_eq!(spans.events(), 0);
}
