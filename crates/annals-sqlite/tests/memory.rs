//! How much memory reads and subscriptions take. This test is alone in its binary, because it counts
//! all memory that the process allocates.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use annals_core::{EventStore, ExpectedVersion, Message, ReadAll, ReadStream, Subscribe};
use common::{event, id, open};
use futures::TryStreamExt;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1024 * 1024;
/// How many bytes of payload the test writes, in events of 64 KiB.
const STORED: usize = 64 * MIB;
const EVENT: usize = 64 * 1024;
/// Room for a few pages of 2 MiB, with their containers.
const BOUND: usize = 16 * MIB;

fn growth(from: usize) -> usize {
    ALLOCATOR.peak_usage().saturating_sub(from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_slow_subscribers_stay_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("events.db")).await;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();

    // A subscriber that takes one message, and no other until everything is written.
    let mut slow = store.subscribe(Subscribe::default()).await.unwrap();
    assert!(matches!(slow.next().await.unwrap(), Message::CaughtUp(_)));
    let stream = id("large-1");
    for n in 0..STORED / EVENT / 16 {
        let events = (0..16).map(|_| event(vec![n as u8; EVENT]));
        let append = annals_core::Append::new(stream.clone(), ExpectedVersion::Any, events);
        store.append(append).await.unwrap();
    }
    let mut count = 0;
    while count < STORED / EVENT {
        count += usize::from(slow.next().await.unwrap().into_event().is_some());
    }
    drop(slow);
    assert!(growth(before) < BOUND, "a slow subscriber: {} bytes", growth(before));

    ALLOCATOR.reset_peak_usage();
    for read in [
        store.read_stream(&stream, ReadStream::default()),
        store.read_stream(&stream, ReadStream::default().backwards()),
        store.read_all(ReadAll::default()),
        store.read_all(ReadAll::default().backwards()),
    ] {
        let bytes = read.try_fold(0, async |sum, event| Ok(sum + event.data.len())).await.unwrap();
        assert_eq!(bytes, STORED);
    }
    assert!(growth(before) < BOUND, "reads: {} bytes", growth(before));
}
