//! Copies between every pair of backends, killed again and again while others write to the source.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals::{Capabilities, EventStore};
use annals_test_stores::{Fresh, Kind, kinds};

use crate::command::{all, command, fill, kept, ok, url_of};

/// How often each copy is killed: with four kinds of stores, two of files, 192 times in all.
const KILLS: u64 = 8;
/// The most that a copy is given.
const LONGEST: Duration = Duration::from_millis(120);

pub(crate) async fn copies_are_killed_and_end_complete(kind: Kind) {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("replay with ANNALS_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for to in kinds().into_iter().filter(Kind::is_shared) {
        if let Kind::Postgres(Err(reason)) | Kind::DynamoDb(Err(reason)) = &to {
            println!("{} to {}: ignored, {reason}", kind.name(), to.name());
            continue;
        }
        let target = Fresh::open(&to).await;
        let (from, killed) = killed(&kind, &target.url, &mut rng).await;
        println!("{} to {}: {killed} of {KILLS} killed before their end", kind.name(), to.name());
        assert_eq!(kept(&all(&target.store).await), kept(&all(&from.store).await));
        assert_times(&from, &target).await;
        ok(&["verify", &target.url]).await;
    }
    for scheme in ["jsonl", "cloudevents"] {
        let dir = tempfile::tempdir().unwrap();
        let (_from, killed) = killed(&kind, &url_of(scheme, &dir, "export"), &mut rng).await;
        println!("{} to {scheme}: {killed} of {KILLS} killed before their end", kind.name());
    }
}

/// Kills copies of a store that is written to, then lets one come to its end, and verifies it.
async fn killed(kind: &Kind, target: &str, rng: &mut fastrand::Rng) -> (Fresh, u64) {
    let from = Fresh::open(kind).await;
    fill(&from.store, 0, 150).await;
    let (done, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(150)));
    let writer = tokio::spawn({
        let (store, done, next) = (from.store.clone(), done.clone(), next.clone());
        async move {
            while !done.load(Ordering::SeqCst) && next.load(Ordering::SeqCst) < 600 {
                fill(&store, next.fetch_add(1, Ordering::SeqCst), 1).await;
            }
        }
    });
    let (mut killed, mut longest) = (0, LONGEST);
    for _ in 0..KILLS {
        let mut copy = command(["copy", "--quiet", &from.url, target]);
        let mut child = copy.stdout(Stdio::null()).spawn().unwrap();
        let (began, patience) = (Instant::now(), longest.mul_f64(rng.f64()));
        if tokio::time::timeout(patience, child.wait()).await.is_err() {
            killed += 1;
            child.kill().await.unwrap();
        } else {
            // So that the next has a chance to be killed.
            longest = began.elapsed();
        }
    }
    done.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    ok(&["copy", &from.url, target]).await;
    ok(&["verify", &from.url, target]).await;
    (from, killed)
}

/// Times are kept where both stores say so.
async fn assert_times(from: &Fresh, to: &Fresh) {
    let exact = |capabilities: &Capabilities| capabilities.exact_import;
    if exact(to.store.capabilities()) {
        let times = |events: Vec<annals::RecordedEvent>| {
            events.into_iter().map(|event| event.recorded_at).collect::<Vec<_>>()
        };
        assert_eq!(times(all(&to.store).await), times(all(&from.store).await));
    }
}
