//! Several processes on one file. The other processes run this test binary with one of the functions
//! `child_…`, which do nothing unless the environment names a file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::Child,
};

use annals_core::{Append, EventStore, EventStoreExt, ExpectedVersion, Subscribe};
use common::{all, child, event, id, open, raw, started, versions, within};

/// The beginning of the line by which a child reports an acknowledged append.
const ACKNOWLEDGED: &str = "acknowledged ";
/// How many appends each process makes to each stream.
const APPENDS: u64 = 100;
const EVENTS_OF_AN_APPEND: usize = 3;

fn start(function: &str, file: &Path, name: &str) -> Child {
    child(&std::env::current_exe().unwrap(), function, file, name).spawn().unwrap()
}

#[tokio::test]
async fn child_appends() {
    let Some((file, name)) = started() else { return };
    let store = open(&file).await;
    for version in 0..APPENDS {
        let expected = annals_core::Version::new(version);
        store.append_to(id(&format!("own-{name}")), expected, [event("x")]).await.unwrap();
        store.append_to("shared-1", ExpectedVersion::Any, [event("x")]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_a_file_and_a_subscriber_gets_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.db");
    // The file does not exist yet, so all processes try to create it.
    let children: Vec<_> = (0..3).map(|n| start("child_appends", &file, &n.to_string())).collect();
    let store = open(&file).await;
    let mut live = store.subscribe(Subscribe::default()).await.unwrap();
    for _ in 0..APPENDS {
        store.append_to("shared-1", ExpectedVersion::Any, [event("x")]).await.unwrap();
    }
    let expected = usize::try_from(APPENDS).unwrap() * 7;
    let mut seen = Vec::new();
    while seen.len() < expected {
        seen.push(within(live.next_event()).await.unwrap());
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(seen, all(&store).await);
    assert!(seen.is_sorted_by(|a, b| a.position < b.position));
    let stream = async |name: &str| versions(&store.load_stream(&id(name)).await.unwrap());
    assert_eq!(stream("shared-1").await, (1..=4 * APPENDS).collect::<Vec<_>>());
    for n in 0..3 {
        assert_eq!(stream(&format!("own-{n}")).await, (1..=APPENDS).collect::<Vec<_>>());
    }
}

/// This process does not write, so only the poll for commits of other processes can wake its
/// subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_subscriber_is_woken_by_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.db");
    let store = open(&file).await;
    let mut live = store.subscribe(Subscribe::to(id("own-far"))).await.unwrap();
    assert!(matches!(within(live.next()).await.unwrap(), annals_core::Message::CaughtUp(_)));
    let mut child = start("child_appends", &file, "far");
    for version in 1..=APPENDS {
        assert_eq!(within(live.next_event()).await.unwrap().version.get(), version);
    }
    assert!(child.wait().unwrap().success());
}

/// A commit of another process after the last page and before the first poll is found, although
/// nothing changes after that poll.
#[tokio::test]
async fn what_came_before_the_first_look_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.db");
    let store = open(&file).await;
    store.append_to("a-1", ExpectedVersion::Any, [event("x")]).await.unwrap();
    let mut live = store.subscribe(Subscribe::default().after(1)).await.unwrap();
    assert!(matches!(within(live.next()).await.unwrap(), annals_core::Message::CaughtUp(_)));
    // Bypass the store, so that nothing in this process is woken.
    raw(&file)
        .execute_batch(
            "INSERT INTO annals_events \
             (position, stream, version, id, type, recorded_at, kinds, data, metadata) \
             SELECT 2, stream, 2, id, type, recorded_at, kinds, data, metadata FROM annals_events",
        )
        .unwrap();
    assert_eq!(within(live.next_event()).await.unwrap().version.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_appends_until_it_is_killed() {
    let Some((file, name)) = started() else { return };
    let store = open(&file).await;
    for writer in 0..8 {
        let (store, stream) = (store.clone(), id(&format!("{name}-{writer}")));
        tokio::spawn(async move {
            loop {
                let events = (0..EVENTS_OF_AN_APPEND).map(|_| event(vec![7; 500]));
                let append = Append::new(stream.clone(), ExpectedVersion::Any, events);
                let appended = store.append(append).await.unwrap();
                println!("{ACKNOWLEDGED}{stream} {}", appended.last_version);
            }
        });
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_appends_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.db");
    for round in 0..3 {
        let mut child = start("child_appends_until_it_is_killed", &file, &format!("r{round}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = HashMap::new();
        let mut take = |line: String| {
            // The test harness may have written something before it on the same line.
            let Some((_, line)) = line.split_once(ACKNOWLEDGED) else { return };
            // The kill may have cut off the last line.
            if let Some((stream, version)) = line.split_once(' ') {
                acknowledged.insert(stream.to_owned(), version.parse().unwrap_or(0));
            }
        };
        for _ in 0..300 {
            take(lines.next().unwrap().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(take);

        let store = open(&file).await;
        assert_eq!(acknowledged.len(), 8);
        for (stream, version) in acknowledged {
            let events = store.load_stream(&id(&stream)).await.unwrap();
            assert!(events.len() as u64 >= version, "{stream}: {} of {version}", events.len());
            assert_eq!(events.len() % EVENTS_OF_AN_APPEND, 0, "a part of an append");
            assert_eq!(versions(&events), (1..=events.len() as u64).collect::<Vec<_>>());
        }
        let positions: Vec<_> = all(&store).await.iter().map(|e| e.position).collect();
        assert!(positions.is_sorted_by(|a, b| a < b));
    }
}
