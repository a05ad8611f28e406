//! The capacity units, which users pay for, that other crates consume to store events in DynamoDB.

mod adapter;
mod cqrs;
mod payload;
mod report;
mod server;

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use cqrs::Store;
use payload::payload;

/// The seed of all data.
const SEED: u64 = 20_260_801;
const EVENTS: [usize; 3] = [1, 10, 100];
const BYTES: [usize; 3] = [200, 4_096, 102_400];
/// The size of the state in snapshots. It fits into one write unit, so that snapshots are cheap.
const STATE_BYTES: usize = 500;

#[tokio::main]
async fn main() {
    let cqrs = cqrs::Peer::start().await;
    let adapter = adapter::Peer::of_events().await;

    let mut rows = Vec::new();
    for bytes in BYTES {
        for events in EVENTS {
            rows.extend(cqrs.append(Store::Events, events, bytes).await);
        }
    }
    rows.push(cqrs.append_below_framework(100, 102_400).await);
    for bytes in BYTES {
        for events in EVENTS {
            rows.push(adapter.append(events, bytes).await);
        }
    }
    report::appends("Appends to an aggregate of one event", &rows);

    let mut rows = Vec::new();
    let snapshots = adapter::Peer::of_snapshots().await;
    let history = adapter::Peer::of_history().await;
    for bytes in BYTES {
        for events in EVENTS {
            rows.extend(cqrs.append(Store::Aggregate, events, bytes).await);
        }
    }
    for peer in [&snapshots, &history] {
        for bytes in BYTES {
            for events in EVENTS {
                rows.push(peer.append(events, bytes).await);
            }
        }
    }
    report::appends("The same, with a snapshot of 500 B in each call", &rows);

    let mut rows = cqrs.read(1_000, 200).await;
    rows.extend(adapter.read(1_000, 200).await);
    report::reads("Reads of a stream of 200 B events", &rows);
    // These events fill more than one page of 1 MB.
    let mut rows = cqrs.read(1_000, 4_096).await;
    rows.extend(adapter.read(1_000, 4_096).await);
    report::reads("Reads of a stream of 4,096 B events", &rows);

    println!("\n### When dynamo-es takes no more events\n");
    println!(
        "| bytes each | events in the aggregate | read units to load for the last one | the next command |"
    );
    println!("|---:|---:|---:|---|");
    for (filled, bytes) in [(2_500, 200), (200, 4_096), (1, 102_400)] {
        let (events, error, last) = cqrs.outgrow(filled, bytes).await;
        println!(
            "| {bytes} | {events} | {} | refused, and refused again: {error} |",
            last.read_units
        );
    }
}

/// A new id with each call, of 36 characters like a UUID.
fn aggregate_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("0198f5a2-7c31-7d40-9b1e-{n:012x}")
}

/// An error and its causes, in one line.
fn full_error(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
