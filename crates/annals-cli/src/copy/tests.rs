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
    ReadAll, Result, Store, StoreUrl, SubscriberId, TryStreamExt,
};
use annals_test_stores::{Hook, Hooked};
use futures::StreamExt;
use tokio::{sync::watch, time::Instant};

use super::{
    End, Run,
    progress::Progress,
    target::{StoreTarget, Target},
};
use crate::{interrupt::Interrupt, select::Select, source::Source};

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

#[tokio::test]
async fn a_copy_goes_on_after_an_outage_of_either_side() {
    let (from, to) =
        (annals::connect("memory:").await.unwrap(), annals::connect("memory:").await.unwrap());
    let (of_source, of_target) = (Outage::default(), Outage::default());
    let url = || StoreUrl::parse("memory:").unwrap();
    let source = Source::Store { url: url(), store: Hooked::new(&from, of_source.clone()) };
    let target = Hooked::new(&to, of_target.clone());
    let target = Target::Store(StoreTarget::new(url(), target, 1));
    let (stop, stopped) = watch::channel(false);
    let mut run = Run {
        source,
        target,
        select: Select::default(),
        name: SubscriberId::new("copy").unwrap(),
        progress: Progress::new(true, "a", "b"),
        interrupt: Interrupt::of(stopped),
        done: Position::START,
        saved: Instant::now(),
        outage: None,
    };
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
