//! A copy that follows its source through outages of both sides.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use annals::{
    Error, ErrorKind, EventStore, EventStoreExt, EventStream, ExpectedVersion, NewEvent, Position,
    ReadAll, Result, Store, StoreUrl, StreamId, SubscriberId, TransferStore, TryStreamExt, Version,
};
use annals_test_stores::{Hook, Hooked};
use futures::StreamExt;
use tokio::{sync::watch, time::Instant};

use super::{
    End, Run,
    progress::Progress,
    states,
    survey::Survey,
    target::{StoreTarget, Target},
};
use crate::{
    carry::{Carrier, Limits, Treatment},
    interrupt::Interrupt,
    select::{Select, SelectStreams},
    source::Source,
};

/// Fails this many reads of all and writes.
#[derive(Clone, Debug, Default)]
struct Outage(Arc<AtomicU32>);

impl Outage {
    fn begin(&self, calls: u32) {
        self.0.store(calls, SeqCst);
    }

    fn is_over(&self) -> bool {
        self.0.load(SeqCst) == 0
    }

    fn fail(&self) -> Result<()> {
        match self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::new(ErrorKind::Unavailable, "nobody answers")),
            Err(_) => Ok(()),
        }
    }
}

impl Hook for Outage {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.fail()?;
        call.await
    }

    fn read_all(&self, store: &Arc<dyn Store>, options: ReadAll) -> EventStream {
        match self.fail() {
            Ok(()) => store.read_all(options),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }
}

async fn fill(store: &Arc<dyn Store>, count: u64) {
    for n in 0..count {
        let event = NewEvent::json("Numbered", &n).unwrap();
        store.append_to("a-1", ExpectedVersion::Any, [event]).await.unwrap();
    }
}

async fn ids(store: &Arc<dyn Store>) -> Vec<uuid::Uuid> {
    let events = store.read_all(ReadAll::default());
    events.map_ok(|event| event.id).try_collect().await.unwrap()
}

async fn until_alike(one: &Arc<dyn Store>, other: &Arc<dyn Store>) {
    let until = Instant::now() + Duration::from_secs(60);
    while ids(one).await != ids(other).await {
        assert!(Instant::now() < until, "the copy has not gone on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A copy, and what tells it to stop.
fn run(from: Arc<dyn Store>, to: Arc<dyn Store>) -> (Run, watch::Sender<bool>) {
    let url = || StoreUrl::parse("memory:").unwrap();
    let mut target = StoreTarget::new(url(), to, 1);
    target.may_remove = true;
    let (stop, stopped) = watch::channel(false);
    let source = Source::Store { url: url(), store: from, exporter: None };
    let limits = Limits::of(Some(target.store.capabilities()));
    let run = Run {
        carrier: Carrier::new(&source, limits, Treatment::default()),
        survey: Survey::default(),
        source,
        target: Target::Store(target),
        select: Select::default(),
        name: SubscriberId::new("copy").unwrap(),
        progress: Progress::new(true, "a", "b"),
        interrupt: Interrupt::of(stopped),
        done: Position::START,
        deletions: Vec::new(),
        saved: Instant::now(),
        outage: None,
    };
    (run, stop)
}

/// Also if the copy had seen the stream before.
#[tokio::test]
async fn a_copy_that_follows_deletes_what_is_deleted() {
    let (from, to) =
        (annals::connect("memory:").await.unwrap(), annals::connect("memory:").await.unwrap());
    let (mut run, stop) = run(from.clone(), to.clone());
    let copy = tokio::spawn(async move { run.follow().await.map(|end| end == End::Reached) });
    let stream = StreamId::new("a-1").unwrap();
    for _ in 0..3 {
        fill(&from, 2).await;
        until_alike(&from, &to).await;
        from.delete(&stream, ExpectedVersion::Any).await.unwrap();
        fill(&from, 1).await;
        until_alike(&from, &to).await;
        let infos = [&from, &to].map(|store| store.stream_info(&stream));
        let infos = futures::future::join_all(infos).await;
        assert_eq!(infos[0].as_ref().unwrap(), infos[1].as_ref().unwrap());
    }
    stop.send(true).unwrap();
    assert!(copy.await.unwrap().unwrap());
}

/// The target has events of others, so that nothing may be removed.
#[tokio::test]
async fn a_deletion_can_be_followed_again_after_a_kill() {
    let to = annals::connect("memory:").await.unwrap();
    let target = StoreTarget::new(StoreUrl::parse("memory:").unwrap(), to.clone(), 1);
    let (stream, at) = (StreamId::new("a-1").unwrap(), Version::new(3));
    // The copy was killed before it deleted the stream.
    target.raise(&stream, None, at).await.unwrap();
    for _ in 0..2 {
        target.delete_up_to(&stream, at).await.unwrap();
        assert_eq!(to.stream_info(&stream).await.unwrap().deleted_at, at);
    }
    // An event of others at the same version is not removed.
    let other = StreamId::new("b-1").unwrap();
    let events = (0..3).map(|n| NewEvent::json("Numbered", &n).unwrap());
    to.append_to(&other, ExpectedVersion::Any, events).await.unwrap();
    for at in [3, 5] {
        let refused = target.delete_up_to(&other, Version::new(at)).await.unwrap_err();
        assert!(refused.message().contains("has events in b-1"), "{}", refused.message());
        assert_eq!(to.load_stream(&other).await.unwrap().len(), 3);
    }
}

/// A stream was deleted between two pages of its events.
#[tokio::test]
async fn what_cannot_be_deleted_in_the_target_is_said() {
    let (from, to) =
        (annals::connect("memory:").await.unwrap(), annals::connect("memory:").await.unwrap());
    let stream = StreamId::new("a-1").unwrap();
    fill(&from, 3).await;
    to.import(from.load_stream(&stream).await.unwrap()).await.unwrap();
    from.delete(&stream, ExpectedVersion::Any).await.unwrap();
    fill(&from, 1).await;
    to.import(from.load_stream(&stream).await.unwrap()).await.unwrap();
    let mut target = StoreTarget::new(StoreUrl::parse("memory:").unwrap(), to.clone(), 1);
    target.may_remove = true;
    let followed = states::follow(&from, &target, &SelectStreams::default()).await.unwrap();
    assert_eq!((followed.changed, followed.not_deleted), (1, vec![stream.clone()]));
    assert_eq!(to.stream_info(&stream).await.unwrap().first_version, Some(Version::new(4)));
}

#[tokio::test]
async fn a_copy_goes_on_after_an_outage_of_either_side() {
    let (from, to) =
        (annals::connect("memory:").await.unwrap(), annals::connect("memory:").await.unwrap());
    let (of_source, of_target) = (Outage::default(), Outage::default());
    let (source, target) =
        (Hooked::new(&from, of_source.clone()), Hooked::new(&to, of_target.clone()));
    let (mut run, stop) = run(source, target);
    fill(&from, 10).await;
    // More failures than an import alone tries again.
    of_source.begin(7);
    let copy = tokio::spawn(async move { run.follow().await.map(|end| end == End::Reached) });
    until_alike(&from, &to).await;
    assert!(of_source.is_over());
    of_target.begin(8);
    fill(&from, 10).await;
    until_alike(&from, &to).await;
    assert!(of_target.is_over());
    // Both are gone, and the user has enough.
    of_source.begin(u32::MAX);
    of_target.begin(u32::MAX);
    fill(&from, 1).await;
    stop.send(true).unwrap();
    assert!(!copy.await.unwrap().unwrap());
}
