//! What the blanket implementations do around the methods of an adapter.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod failing;
mod stuck;

use std::sync::atomic::Ordering;

use annals_core::{
    Append, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStoreExt, EventType,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, NewEvent, Payload, Position, ReadAll,
    RecordedEvent, Snapshot, SnapshotStore, Start, StreamId, Subscribe, SubscriberId,
    TransferStore, TryStreamExt, Version,
};
use failing::Failing;
use futures::executor::block_on;

fn stream() -> StreamId {
    StreamId::new("order-1").unwrap()
}

fn event() -> NewEvent {
    NewEvent::new(EventType::new("Placed").unwrap(), Payload::empty())
}

fn recorded() -> RecordedEvent {
    event().recorded(stream(), Version::FIRST, Position::START, chrono::DateTime::UNIX_EPOCH)
}

/// The errors of every call of a store: operation, whether it names the stream, and the error.
async fn errors(store: &Failing) -> Vec<(&'static str, bool, Error)> {
    let (stream, any) = (&stream(), ExpectedVersion::Any);
    let append = || Append::new(stream.clone(), any, [event()]);
    let lease_name = LeaseName::new("leader").unwrap();
    let lease = LeaseRecord::from_stored([1, 1, 1], uuid::Uuid::now_v7());
    let (name, start) = (SubscriberId::new("reader").unwrap(), Position::START);
    let end = |options: Subscribe| options.with_start(Start::End);
    let mut live = store.subscribe(Subscribe::default()).await.ok();
    let snapshot = Snapshot::new(1, Payload::empty());
    let mut errors = vec![
        ("append", true, store.append(append()).await.unwrap_err()),
        ("append_multi", false, store.append_multi(vec![append()]).await.unwrap_err()),
        ("read_stream", true, store.load_stream(stream).await.unwrap_err()),
        (
            "read_all",
            false,
            store.read_all(ReadAll::default()).try_collect::<Vec<_>>().await.unwrap_err(),
        ),
        ("subscribe", false, store.subscribe(end(Subscribe::default())).await.unwrap_err()),
        ("subscribe", true, store.subscribe(end(Subscribe::to(stream.clone()))).await.unwrap_err()),
        ("stream_info", true, store.stream_info(stream).await.unwrap_err()),
        ("truncate", true, store.truncate(stream, 1.into()).await.unwrap_err()),
        ("delete", true, store.delete(stream, any).await.unwrap_err()),
        ("tombstone", true, store.tombstone(stream, any).await.unwrap_err()),
        ("load_snapshot", true, store.load_snapshot(stream).await.unwrap_err()),
        ("save_snapshot", true, store.save_snapshot(stream, snapshot).await.unwrap_err()),
        ("delete_snapshot", true, store.delete_snapshot(stream).await.unwrap_err()),
        ("load_checkpoint", false, store.load_checkpoint(&name).await.unwrap_err()),
        ("save_checkpoint", false, store.save_checkpoint(&name, start).await.unwrap_err()),
        ("reset_checkpoint", false, store.reset_checkpoint(&name, None).await.unwrap_err()),
        ("load_lease", false, store.load_lease(&lease_name).await.unwrap_err()),
        ("swap_lease", false, store.swap_lease(&lease_name, &lease).await.unwrap_err()),
        ("list_streams", false, store.list_streams(None, 1).await.unwrap_err()),
        ("import", false, store.import(vec![recorded()]).await.unwrap_err()),
    ];
    if let Some(live) = &mut live {
        errors.push(("subscribe", false, live.next().await.unwrap_err()));
    }
    errors
}

#[test]
fn every_error_names_backend_operation_and_stream() {
    let store = Failing::new(|capabilities| capabilities.list_streams = true);
    for (operation, names_stream, error) in block_on(errors(&store)) {
        assert_eq!(error.kind(), ErrorKind::Internal, "{operation}");
        assert_eq!(error.backend(), Some("failing"), "{operation}");
        assert_eq!(error.operation(), Some(operation));
        assert_eq!(error.stream(), names_stream.then(stream).as_ref(), "{operation}");
    }
}

#[test]
fn what_is_not_declared_is_refused_and_never_reaches_the_adapter() {
    let store = Failing::new(|capabilities| {
        let Capabilities { global_order, multi_stream_append, truncate, delete, .. } = capabilities;
        (*global_order, *multi_stream_append, *truncate, *delete) = (false, false, false, false);
        let Capabilities { tombstone, snapshots, checkpoints, leases, .. } = capabilities;
        (*tombstone, *snapshots, *checkpoints, *leases) = (false, false, false, false);
    });
    // These need no capability, and one needs order only if it is to begin at a position.
    let needs_none = ["append", "read_stream", "stream_info", "import"];
    let all = block_on(errors(&store));
    for (operation, names_stream, error) in &all {
        let one_stream = *operation == "subscribe" && *names_stream;
        let needs = !needs_none.contains(operation) && !one_stream;
        assert_eq!(error.kind() == ErrorKind::Unsupported, needs, "{operation}: {error}");
    }
    let reached = all.iter().filter(|(_, _, e)| e.kind() != ErrorKind::Unsupported);
    // A start by position needs an order, which a subscription to one stream else does not.
    let after = Subscribe::to(stream()).after(Position::new(1));
    let refused = block_on(store.subscribe(after)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(refused.stream(), Some(&stream()));
    // A read fails in its first page, of which this adapter does not count the calls.
    let counted = reached.filter(|(operation, ..)| *operation != "read_stream").count();
    assert_eq!(store.calls.load(Ordering::Relaxed), counted);
}

#[test]
fn what_is_wrong_is_refused_before_it_is_sent() {
    let store = Failing::new(|capabilities| capabilities.max_event_bytes = 10);
    let any = ExpectedVersion::Any;
    let system = StreamId::new("$system").unwrap();
    let large = Payload::binary(vec![0; 11]);
    let large_event = NewEvent::new(EventType::new("Large").unwrap(), large.clone());
    let after_version = Subscribe::default().with_start(Start::AfterVersion(1.into()));
    let mut twice = recorded();
    twice.version = Version::NONE;
    let refused = block_on(async {
        vec![
            store.append(Append::new(stream(), any, [])).await.map(drop),
            store.append(Append::new(system.clone(), any, [event()])).await.map(drop),
            store.append(Append::new(stream(), any, [large_event])).await.map(drop),
            store.append_multi(vec![]).await.map(drop),
            store.subscribe(after_version).await.map(drop),
            store.truncate(&system, 1.into()).await,
            store.delete(&system, any).await,
            store.tombstone(&system, any).await,
            store.save_snapshot(&stream(), Snapshot::new(1, large)).await,
            store.import(vec![twice]).await,
        ]
    });
    for (n, result) in refused.into_iter().enumerate() {
        let kind = result.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::InvalidInput | ErrorKind::LimitExceeded), "{n}: {kind}");
    }
    assert_eq!(store.calls.load(Ordering::Relaxed), 0);
}
