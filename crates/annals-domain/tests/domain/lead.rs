//! Projections in several processes.

use std::{
    collections::BTreeMap,
    future::pending,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use annals_core::{EventStoreExt, Store};
use annals_domain::projection::{Projection, Status, Stopped, Workers};
use annals_test_stores::{Fresh, Kind};
use tokio::sync::watch;

use crate::projection::{Log, PATIENCE, all, fill, quick, until, within};

const TTL: Duration = Duration::from_millis(300);

async fn lead(
    store: Arc<dyn Store>,
    log: Log,
    ttl: Duration,
    mut stop: watch::Receiver<bool>,
) -> Stopped {
    let projection = Projection::at_least_once(store, "log", log).unwrap();
    let mut projection = projection.with_retry(quick()).with_batch(4);
    projection.lead(ttl, async move { drop(stop.wait_for(|stop| *stop).await) }).await.unwrap()
}

pub(crate) async fn one_leads_and_another_follows(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let (_keep, never) = watch::channel(false);
    let logs = [Log::default(), Log::default()];
    let mut runs: Vec<_> = logs
        .iter()
        .map(|log| tokio::spawn(lead(fresh.store.clone(), log.clone(), TTL, never.clone())))
        .collect();
    let handled = |log: &Log| log.handled.lock().unwrap().len();
    fill(&*fresh.store, 2, 5).await;
    until("a leader", || logs.iter().any(|log| handled(log) == 10)).await;
    let first = usize::from(handled(&logs[0]) == 0);
    let second = 1 - first;
    assert_eq!(handled(&logs[second]), 0, "only one leads");
    let token = |log: &Log| log.tokens.lock().unwrap().last().copied().flatten();
    assert!(token(&logs[first]).is_some());

    // The leader dies.
    runs[first].abort();
    fill(&*fresh.store, 2, 5).await;
    until("another leader", || handled(&logs[second]) >= 10).await;
    assert!(token(&logs[second]) > token(&logs[first]), "a greater token");
    let both = [&logs[first], &logs[second]].map(|log| log.handled.lock().unwrap().clone());
    let mut both = both.concat();
    both.sort();
    both.dedup();
    let mut expected = all(&*fresh.store).await;
    expected.sort();
    assert_eq!(both, expected);
    runs.swap_remove(second).abort();
}

pub(crate) async fn handles_tell_who_leads(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let lead = || {
        let projection =
            Projection::at_least_once(fresh.store.clone(), "log", Log::default()).unwrap();
        let mut projection = projection.with_retry(quick());
        let handle = projection.handle();
        (handle, tokio::spawn(async move { projection.lead(TTL, pending()).await.map(drop) }))
    };
    let (first, leading) = lead();
    until("a leader", || first.status().leads()).await;
    let (second, waiting) = lead();
    until("the lease", || second.status().lease.is_some()).await;
    let holder = |status: Status| status.lease.unwrap().holder;
    assert_eq!(holder(first.status()), holder(second.status()), "both name the leader");
    assert!(!second.status().leads() && !second.status().is_running);
    // The one that waits asks for the checkpoint of the one that leads.
    fill(&*fresh.store, 1, 1).await;
    let last = fresh.store.last_position().await.unwrap();
    assert!(second.reached(last, PATIENCE).await.unwrap() >= last);

    leading.abort();
    until("the next leader", || second.status().leads()).await;
    until("the end of the first", || !first.status().leads() && !first.status().is_running).await;
    assert!(second.status().token > first.status().token);
    waiting.abort();
}

pub(crate) async fn who_stops_hands_over_at_once(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 2, 3).await;
    // Longer than a test can wait.
    let ttl = Duration::from_secs(3_600);
    for round in 1..=3 {
        let (stop, stopped) = watch::channel(false);
        let log = Log::default();
        let run = tokio::spawn(lead(fresh.store.clone(), log.clone(), ttl, stopped));
        fill(&*fresh.store, 2, 1).await;
        until("its turn", || {
            log.handled.lock().unwrap().last() == Some(&("log-1".into(), 3 + round))
        })
        .await;
        stop.send_replace(true);
        assert_eq!(within("stop", run).await.unwrap(), Stopped::Requested);
        let expected = if round == 1 { 8 } else { 2 };
        assert_eq!(log.handled.lock().unwrap().len(), expected, "from the checkpoint");
    }
}

pub(crate) async fn workers_share_the_streams(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&*fresh.store, 12, 3).await;
    let log = Log::default();
    let work = || {
        let (store, log) = (fresh.store.clone(), log.clone());
        tokio::spawn(async move {
            let workers = Workers::new(NonZeroU32::new(4).unwrap())
                .with_at_most(NonZeroUsize::new(2).unwrap())
                .with_ttl(TTL);
            let make = |_| {
                let projection = Projection::at_least_once(store.clone(), "log", log.clone())?;
                Ok(projection.with_retry(quick()).with_batch(2))
            };
            workers.run(make, pending()).await
        })
    };
    // Two processes can lead all partitions. Then one of them dies, and a third one starts.
    let (first, _second) = (work(), work());
    until("all events", || log.handled.lock().unwrap().len() >= 36).await;
    first.abort();
    let _third = work();
    fill(&*fresh.store, 12, 2).await;
    let last = |log: &Log| {
        let mut last = BTreeMap::new();
        for (stream, version) in log.handled.lock().unwrap().iter() {
            // In order within the stream, apart from events that come again after the death.
            let before = last.insert(stream.clone(), *version).unwrap_or(0);
            assert!(*version <= before + 1, "{stream}: {version} after {before}");
        }
        last
    };
    until("all streams", || last(&log).values().filter(|last| **last == 5).count() == 12).await;
}
