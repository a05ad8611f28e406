//! A cluster of three servers: elections, kills, followers that lag, and nodes that say why they cannot
//! serve a request.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    CheckpointStore, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, LeaseName,
    LeaseRecord, LeaseStore, Payload, Position, RecordedEvent, Snapshot, SnapshotStore, Subscribe,
    SubscriberId,
};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_gateway::like_eventstoredb::{Cluster, Fault};
use annals_test_servers::Proxy;
use fastrand::Rng;
use futures::future::join_all;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::tools::{WRITERS, assert_complete, event, id, next, within, write};

struct Member {
    addr: SocketAddr,
    proxy: Proxy,
    serving: JoinHandle<std::io::Result<()>>,
}

/// Three nodes, each behind a proxy. Clients know two of them.
struct Three {
    cluster: Cluster,
    members: Vec<Member>,
}

impl Drop for Three {
    fn drop(&mut self) {
        self.members.iter().for_each(|member| member.serving.abort());
    }
}

impl Three {
    async fn start() -> Self {
        let cluster = Cluster::new(3);
        let mut members = Vec::new();
        for index in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let proxy = Proxy::start(addr).await.unwrap();
            cluster.set_address(index, "127.0.0.1", proxy.addr().port());
            let serving = tokio::spawn(cluster.node(index).serve(listener));
            members.push(Member { addr, proxy, serving });
        }
        Self { cluster, members }
    }

    fn url(&self, parameters: &str) -> String {
        let [one, two] = [0, 1].map(|index| self.members[index].proxy.addr());
        format!("esdb://{one},{two}?tls=false&maxDiscoverAttempts=1&{parameters}")
    }

    async fn open(&self, parameters: &str) -> EventStoreDbStore {
        let config = EventStoreDbConfig::from_url(&self.url(parameters)).unwrap();
        let options = EventStoreDbOptions::default().with_retry_for(Duration::from_secs(10));
        EventStoreDbStore::open(config.with_options(options)).await.unwrap()
    }

    /// Kills a node. The others notice.
    async fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.serving.abort();
        let _ = (&mut member.serving).await;
        member.proxy.cut().await;
        self.cluster.set_alive(index, false);
        if self.cluster.leader() == Some(index) {
            self.cluster.elect(None);
        }
    }

    async fn revive(&mut self, index: usize) {
        let member = &mut self.members[index];
        let listener = TcpListener::bind(member.addr).await.unwrap();
        member.serving = tokio::spawn(self.cluster.node(index).serve(listener));
        self.cluster.set_alive(index, true);
    }
}

const APPENDS: u64 = 40;

fn assert_complete_in_order(events: &[RecordedEvent], what: &str) {
    let mut positions = events.iter().map(|event| event.position);
    let mut last = Position::START;
    assert!(positions.all(|at| std::mem::replace(&mut last, at) < at), "{what}: out of order");
    assert_complete(events, APPENDS, what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_lose_nothing_and_double_nothing() {
    let given = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("elections_lose_nothing_and_double_nothing: replay with ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut three = Three::start().await;
    let follow = |store: Arc<EventStoreDbStore>| {
        tokio::spawn(async move {
            let mut live = store.subscribe(Subscribe::default()).await.unwrap();
            let mut events = Vec::new();
            while events.len() < (WRITERS * APPENDS) as usize {
                events.push(live.next_event().await.unwrap());
            }
            events
        })
    };
    let store = Arc::new(three.open("").await);
    let lagging = Arc::new(three.open("nodePreference=follower").await);
    let readers = [follow(store.clone()), follow(lagging)];
    let writers = (0..WRITERS)
        .map(|writer| tokio::spawn(write(store.clone(), id(&format!("order-{writer}")), APPENDS)));
    let writing = join_all(writers.collect::<Vec<_>>());
    tokio::pin!(writing);
    loop {
        let pause = Duration::from_micros(rng.u64(500..20_000));
        tokio::select! {
            done = &mut writing => {
                done.into_iter().for_each(Result::unwrap);
                break;
            }
            () = tokio::time::sleep(pause) => {}
        }
        let node = rng.usize(..3);
        match rng.u8(..8) {
            0 => {
                three.kill(node).await;
                three.cluster.elect(Some((node + 1) % 3));
                three.revive(node).await;
            }
            1 => three.cluster.elect(None),
            2 => three.cluster.set_fault(node, Fault::NotReady),
            3 => three.cluster.set_fault(node, Fault::TooBusy),
            4 => three.cluster.set_fault(node, Fault::TimeoutWritten),
            5 => three.cluster.set_fault(node, Fault::TimeoutUnwritten),
            6 => three.cluster.hold(node, true),
            _ => three.members[node].proxy.cut().await,
        }
        // A moment later all is well again, with another leader perhaps.
        tokio::time::sleep(Duration::from_micros(rng.u64(500..10_000))).await;
        for node in 0..3 {
            three.cluster.set_fault(node, Fault::None);
            three.cluster.hold(node, false);
        }
        three.cluster.elect(Some(rng.usize(..3)));
    }
    for reading in readers {
        assert_complete_in_order(&within("all events", reading).await.unwrap(), "a subscriber");
    }
    let mut ids = HashSet::new();
    for writer in 0..WRITERS {
        for event in store.load_stream(&id(&format!("order-{writer}"))).await.unwrap() {
            assert!(ids.insert(event.id), "{event:?} is there twice");
        }
    }
    assert_eq!(ids.len() as u64, WRITERS * APPENDS);
}

/// Whatever node events are read from: leases, checkpoints, snapshots and versions are the leader's.
#[tokio::test]
async fn what_decides_is_asked_of_the_leader() {
    let three = Three::start().await;
    for preference in ["follower", "random", "readOnlyReplica", "leader"] {
        let store = three.open(&format!("nodePreference={preference}")).await;
        assert_eq!(store.reads_may_lag(), preference != "leader");
        let stream = id(&format!("{preference}-1"));
        store.append_to(&stream, ExpectedVersion::NoStream, [event(1)]).await.unwrap();
        // From here on the followers learn of nothing.
        [1, 2].into_iter().for_each(|node| three.cluster.hold(node, true));
        for round in 1..=5 {
            let appended = store.append_to(&stream, ExpectedVersion::Any, [event(round)]).await;
            let version = appended.unwrap().last_version;
            let info = store.stream_info(&stream).await.unwrap();
            assert_eq!(info.version, version, "{preference}");
            let snapshot = Snapshot::new(version, Payload::empty());
            store.save_snapshot(&stream, snapshot.clone()).await.unwrap();
            assert_eq!(store.load_snapshot(&stream).await.unwrap(), Some(snapshot));
            let subscriber = SubscriberId::new(preference).unwrap();
            let at = Position::new(round * 100);
            assert_eq!(store.save_checkpoint(&subscriber, at).await.unwrap(), at);
            assert_eq!(store.load_checkpoint(&subscriber).await.unwrap(), Some(at));
            let other = three.open(&format!("nodePreference={preference}")).await;
            assert_eq!(other.load_checkpoint(&subscriber).await.unwrap(), Some(at));
            assert_eq!(other.save_checkpoint(&subscriber, 1.into()).await.unwrap(), at);
        }
        store.delete(&stream, ExpectedVersion::Any).await.unwrap();
        let revived = store.append_to(&stream, ExpectedVersion::NoStream, [event(9)]).await;
        assert_eq!(revived.unwrap().first_version.get(), 7, "{preference}");
        [1, 2].into_iter().for_each(|node| three.cluster.hold(node, false));
    }
}

/// A node that was the leader would answer with what it had then.
#[tokio::test]
async fn a_node_that_is_no_leader_any_more_decides_nothing() {
    let three = Three::start().await;
    let (subscriber, stream) = (SubscriberId::new("totals").unwrap(), id("order-1"));
    let store = three.open("").await;
    store.append_to(&stream, ExpectedVersion::NoStream, [event(1)]).await.unwrap();
    store.save_checkpoint(&subscriber, 1.into()).await.unwrap();
    three.cluster.hold(0, true);
    three.cluster.elect(Some(1));
    let other = three.open("").await;
    other.append_to(&stream, ExpectedVersion::Any, [event(2)]).await.unwrap();
    other.save_checkpoint(&subscriber, 5.into()).await.unwrap();
    assert_eq!(store.load_checkpoint(&subscriber).await.unwrap(), Some(5.into()));
    assert_eq!(store.stream_info(&stream).await.unwrap().version.get(), 2);
    assert_eq!(store.load_stream(&stream).await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_of_many_candidates_gets_a_lease_whatever_node_they_prefer() {
    let three = Three::start().await;
    let name = LeaseName::new("totals").unwrap();
    let mut stores = Vec::new();
    for preference in ["follower", "random", "leader", "random"] {
        stores.push(three.open(&format!("nodePreference={preference}")).await);
    }
    for revision in 1..=10 {
        // One of the followers is behind.
        three.cluster.hold(1, revision % 2 == 0);
        let takes = stores.iter().map(|store| {
            let record =
                LeaseRecord::from_stored([revision, revision, 1_000], uuid::Uuid::now_v7());
            let name = name.clone();
            async move { store.swap_lease(&name, &record).await.unwrap() }
        });
        let taken = join_all(takes).await.into_iter().filter(|taken| *taken).count();
        assert_eq!(taken, 1, "revision {revision}");
        for store in &stores {
            let record = store.load_lease(&name).await.unwrap().unwrap();
            assert_eq!(record.to_stored()[0], revision);
        }
    }
}

/// What was certainly not written is sent again, and what may have been is told as such.
#[tokio::test]
async fn an_append_to_any_version_is_sent_again_if_it_was_not_written() {
    let three = Three::start().await;
    let config = EventStoreDbConfig::from_url(&three.url("discoveryInterval=1")).unwrap();
    let patient = three.open("discoveryInterval=1").await;
    let options = EventStoreDbOptions::default().with_retry_for(Duration::from_millis(50));
    let impatient = EventStoreDbStore::open(config.with_options(options)).await.unwrap();
    let clear = || {
        three.cluster.elect(Some(0));
        (0..3).for_each(|node| three.cluster.set_fault(node, Fault::None));
    };
    let disturb = |how: usize| match how {
        0 => three.cluster.elect(None),
        1 => (0..3).for_each(|node| three.cluster.set_fault(node, Fault::NotReady)),
        _ => (0..3).for_each(|node| three.cluster.set_fault(node, Fault::TooBusy)),
    };
    for how in 0..3 {
        let stream = id(&format!("order-{how}"));
        for store in [&patient, &impatient] {
            store.append_to("warm-1", ExpectedVersion::Any, [event(0)]).await.unwrap();
        }
        disturb(how);
        let refused: Error =
            impatient.append_to(&stream, ExpectedVersion::Any, [event(1)]).await.unwrap_err();
        assert!(refused.is_retryable() && !refused.outcome_unknown(), "{how}: {refused:?}");
        let appending = patient.append_to(&stream, ExpectedVersion::Any, [event(2)]);
        let cleared = AtomicBool::new(false);
        let clearing = async {
            // Until the append has failed at least once.
            let calls = three.cluster.calls();
            while three.cluster.calls() < calls + 2 {
                tokio::task::yield_now().await;
            }
            clear();
            cleared.store(true, SeqCst);
        };
        let (appended, ()) = within("the append", futures::future::join(appending, clearing)).await;
        assert!(cleared.load(SeqCst));
        assert_eq!(appended.unwrap().last_version.get(), 1, "{how}");
    }
    for (fault, written) in [(Fault::TimeoutWritten, 1), (Fault::TimeoutUnwritten, 0)] {
        let stream = id(&format!("{fault:?}-1"));
        three.cluster.set_fault(0, fault);
        let unclear =
            patient.append_to(&stream, ExpectedVersion::Any, [event(1)]).await.unwrap_err();
        assert!(unclear.outcome_unknown(), "{unclear:?}");
        assert_eq!(unclear.kind(), ErrorKind::Unavailable);
        clear();
        assert_eq!(patient.load_stream(&stream).await.unwrap().len(), written, "{fault:?}");
    }
}

/// A subscriber of a follower gets what the follower has, and the rest when that has it.
#[tokio::test]
async fn a_subscriber_of_a_follower_that_lags_misses_nothing() {
    let three = Three::start().await;
    let writer = three.open("").await;
    let reader = three.open("nodePreference=follower").await;
    writer.append_to("order-1", ExpectedVersion::Any, [event(0)]).await.unwrap();
    let mut live = reader.subscribe(Subscribe::default()).await.unwrap();
    assert_eq!(next(&mut live).await, 0);
    [1, 2].into_iter().for_each(|node| three.cluster.hold(node, true));
    for number in 1..4 {
        writer.append_to("order-1", ExpectedVersion::Any, [event(number)]).await.unwrap();
    }
    let quiet = tokio::time::timeout(Duration::from_millis(50), live.next_event()).await;
    assert!(quiet.is_err(), "it came from the leader: {quiet:?}");
    // From the leader's end, which the followers do not know yet.
    let end = writer.last_position().await.unwrap();
    let mut from_end = reader.subscribe(Subscribe::default().after(end)).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(50), from_end.next_event()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    [1, 2].into_iter().for_each(|node| three.cluster.hold(node, false));
    for number in 1..4 {
        assert_eq!(next(&mut live).await, number);
    }
    writer.append_to("order-1", ExpectedVersion::Any, [event(4)]).await.unwrap();
    assert_eq!(next(&mut live).await, 4);
    assert_eq!(next(&mut from_end).await, 4);
}

/// The members are found through any of them.
#[tokio::test]
async fn a_leader_that_no_url_names_is_found() {
    let mut three = Three::start().await;
    three.cluster.elect(Some(2));
    let store = three.open("").await;
    store.append_to("order-1", ExpectedVersion::Any, [event(1)]).await.unwrap();
    // The node that was asked is gone, and one of the others is the leader.
    three.kill(2).await;
    three.cluster.elect(Some(1));
    store.append_to("order-1", ExpectedVersion::Exact(1.into()), [event(2)]).await.unwrap();
    three.kill(0).await;
    store.append_to("order-1", ExpectedVersion::Exact(2.into()), [event(3)]).await.unwrap();
    assert_eq!(store.load_stream(&id("order-1")).await.unwrap().len(), 3);
}
