//! What a store does not declare, it has to refuse.

use std::time::Duration;

use annals_core::{
    Append, Error, ErrorKind, ExpectedVersion, Filter, LeaseName, LeaseRecord, Payload, ReadAll,
    Snapshot, Start, Subscribe, SubscriberId, Version,
};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    case::{CaseResult, Context, Need},
    tools::{event, id},
};

pub(crate) async fn check(cx: Context, need: Need) -> CaseResult {
    let store = cx.open().await;
    let stream = id("order-1");
    let append = |stream| Append::new(id(stream), ExpectedVersion::Any, [event(1)]);
    store.append(append("order-1")).await?;
    match need {
        // These capabilities say how well a call does its work: there is no call to refuse.
        Need::Durable | Need::GuaranteedRecognition | Need::ExactImport => {}
        Need::GlobalOrder => {
            refused(store.read_all(ReadAll::default()).try_next().await);
            refused(store.subscribe(Subscribe::default()).await);
            refused(store.subscribe(Subscribe::to(Filter::default())).await);
            let after = Start::After(1.into());
            refused(store.subscribe(Subscribe::to(stream).with_start(after)).await);
        }
        Need::MultiStreamAppend => {
            refused(store.append_multi(vec![append("order-2"), append("order-3")]).await);
            assert!(
                !store.stream_info(&id("order-2")).await?.exists(),
                "a refused call has written"
            );
        }
        Need::Truncate => refused(store.truncate(&stream, Version::new(2)).await),
        Need::Delete => refused(store.delete(&stream, ExpectedVersion::Any).await),
        Need::Tombstone => refused(store.tombstone(&stream, ExpectedVersion::Any).await),
        Need::Snapshots => {
            refused(store.save_snapshot(&stream, Snapshot::new(1, Payload::empty())).await);
            refused(store.load_snapshot(&stream).await);
            refused(store.delete_snapshot(&stream).await);
        }
        Need::Checkpoints => {
            let subscriber = SubscriberId::new("report")?;
            refused(store.save_checkpoint(&subscriber, 1.into()).await);
            refused(store.load_checkpoint(&subscriber).await);
            refused(store.reset_checkpoint(&subscriber, None).await);
        }
        Need::ListStreams => refused(store.list_streams(None, 1).await),
        Need::Leases => {
            let name = LeaseName::new("totals")?;
            let record = LeaseRecord::new(1, 1, Uuid::nil(), Duration::from_secs(1));
            refused(store.swap_lease(&name, &record).await);
            refused(store.load_lease(&name).await);
        }
    }
    assert_eq!(store.stream_info(&id("order-1")).await?.version, Version::FIRST);
    Ok(())
}

#[track_caller]
fn refused<T>(result: Result<T, Error>) {
    match result {
        Err(e) => assert_eq!(
            e.kind(),
            ErrorKind::Unsupported,
            "refused for another reason than the missing capability: {e}"
        ),
        Ok(_) => panic!("a capability is not declared, but its use was not refused"),
    }
}
