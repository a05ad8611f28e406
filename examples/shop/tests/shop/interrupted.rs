//! Runs that end in the middle, and stores that fail in the middle.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use annals::{Subscribe, Subscription};
use shop::{COMMANDS, Options, execute::Outcome, metrics::Retries};
use tokio::runtime::Builder;

use crate::{
    faulty::{Fault, Faulty},
    stores::{self, Fresh, Kind, commands_for, histories, run},
};

/// Each command that spans two streams, and each that does not.
const COMMANDS_OF_EACH_KIND: &str = "\
    receive d1 mug 10\n\
    place o1 mug 4 1800\n\
    place o2 mug 6 2700\n\
    place o3 mug 11 4950\n\
    pay o1 1800\n\
    ship o1\n\
    pay o2 2700\n\
    cancel o2\n\
    place o4 mug 5 2250\n\
    cancel o4";

fn first_commands() -> String {
    COMMANDS.lines().take(300).map(|line| format!("{line}\n")).collect()
}

fn careful() -> Options {
    Options { workers: 1, ..Options::default() }
}

pub(crate) async fn stopped_after_any_write_the_next_run_completes_it(kind: Kind) {
    let whole = Fresh::memory().await;
    let expected = run(whole.store.clone(), COMMANDS_OF_EACH_KIND, &careful()).await.unwrap();
    let expected_histories = histories(&*whole.store).await;

    let mut writes = 0;
    loop {
        let fresh = Fresh::open(&kind).await;
        let stops = Faulty::new(&fresh.store, Fault::StopsAfter(writes));
        let stopped = run(stops, COMMANDS_OF_EACH_KIND, &careful()).await;
        let again = run(fresh.store.clone(), COMMANDS_OF_EACH_KIND, &careful()).await;
        let again = again.unwrap_or_else(|e| panic!("{} after {writes}: {e}", fresh.url));
        assert_eq!(again.model, expected.model, "{} after {writes}", fresh.url);
        assert_eq!(histories(&*fresh.store).await, expected_histories, "after {writes}");
        match stopped {
            Err(error) => assert!(error.to_string().contains("stopped"), "{error}"),
            Ok(_) => break,
        }
        writes += 1;
    }
    assert!(u64::from(writes) > expected.events, "each append was the last one once");
}

pub(crate) async fn a_failing_store_is_tried_again_with_the_same_events(kind: Kind) {
    let commands = first_commands();
    let whole = Fresh::memory().await;
    let expected = run(whole.store, &commands, &Options::default()).await.unwrap();
    for fault in [|| Fault::Busy, || Fault::LosesAnswers] {
        let fresh = Fresh::open(&kind).await;
        let faulty = Faulty::new(&fresh.store, fault());
        let summary = run(faulty.clone(), &commands, &Options::default()).await.unwrap();
        assert_eq!(summary.model, expected.model, "{:?} on {}", fault(), fresh.url);
        assert_eq!(summary.events, expected.events);
        assert!(faulty.hook.tried() as u64 >= expected.events);
    }
}

/// What the library tells by its metrics, to the recorder of this thread.
pub(crate) fn failed_calls_are_counted() {
    let retries = Retries::default();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let events = metrics::with_local_recorder(&retries, || {
        runtime.block_on(async {
            let busy = Faulty::new(&Fresh::memory().await.store, Fault::Busy);
            run(busy, COMMANDS_OF_EACH_KIND, &careful()).await.unwrap().events
        })
    });
    assert_eq!(retries.0.load(Relaxed), events, "each append failed once");
}

pub(crate) async fn a_run_with_nothing_left_to_do_reports_everything(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let faulty = Faulty::new(&fresh.store, Fault::KeepsNoSnapshots);
    let failed = run(faulty, &first_commands(), &Options::default()).await.unwrap_err();
    assert!(failed.to_string().contains("no snapshots"), "{failed}");
    let again = run(fresh.store.clone(), "", &Options::default()).await.unwrap();
    assert_eq!(again.events, stores::events(&*fresh.store).await.len() as u64);
    assert_eq!(again.events_read, again.events, "{}", fresh.url);
}

/// A shop in a process of its own, on the commands that come with it.
pub(crate) fn start(url: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["--store", url])
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns when a shop has written so many events.
pub(crate) async fn write_on(events: &mut Subscription, more: u64) {
    const DEADLINE: Duration = Duration::from_secs(300);
    let seen = async {
        for _ in 0..more {
            events.next_event().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("the shop writes on");
}

pub(crate) async fn killed_again_and_again_it_gets_to_the_same_end(kind: Kind) {
    let whole = Fresh::memory().await;
    let commands = commands_for(&kind);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("commands.txt");
    std::fs::write(&script, &commands).unwrap();
    let expected = run(whole.store, &commands, &Options::default()).await.unwrap();
    let fresh = Fresh::open(&kind).await;
    let start = || start(&fresh.url, &[script.to_str().unwrap()]);
    let mut events = fresh.store.subscribe(Subscribe::default()).await.unwrap();
    let mut killed = 0;
    for part in [expected.events, 10, 5, 4] {
        let mut child = start();
        write_on(&mut events, expected.events / part).await;
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break; // It was done before this test had heard of so many events.
        }
        killed += 1;
    }
    assert!(killed > 0, "this shows nothing");
    assert!(start().wait().unwrap().success());

    let summary = run(fresh.store.clone(), &commands, &Options::default()).await.unwrap();
    assert_eq!((summary.count(Outcome::Done), summary.events_read), (0, 0), "{}", fresh.url);
    assert_eq!(summary.events, expected.events, "{}", fresh.url);
    assert_eq!(summary.model, expected.model, "{}", fresh.url);
}
