//! How much memory reads take. The case is measured in a process of its own, where nothing else runs.

use std::sync::Arc;

use annals_core::{
    EventStoreExt, EventStream, NewEvent, Payload, ReadAll, ReadStream, Result, Store, StreamId,
    Subscribe, Subscription,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    alone::is_alone,
    case::{CaseResult, Context, Stop, cases},
    tools::{exact, id},
};

cases! { "memory":
    long_reads_take_bounded_memory [14, 18] Durable;
}

/// The size of an event. A page of many hundreds of them is small beside the whole.
const EVENT: usize = 4 << 10;
/// How many events are read.
const COUNT: u64 = 12_000;
/// What a read may take beyond what the process has taken before: a third of what it reads.
const BOUND: usize = EVENT * COUNT as usize / 3;
/// How many events are read between two looks at the memory.
const STEP: u64 = 100;

async fn long_reads_take_bounded_memory(cx: Context) -> CaseResult {
    if memory().is_none() {
        return Err(Stop::Ignored("the memory is measured by /proc, which is not here".to_owned()));
    }
    if !is_alone() {
        return cx.run_alone("memory::long_reads_take_bounded_memory").await;
    }
    let (store, stream) = (cx.open().await, id("order-1"));
    write(&store, &stream).await?;
    // Read everything in short reads first, so that a cache of the database is filled before the
    // long reads begin.
    for from in (1..=COUNT).step_by(STEP as usize) {
        let options = ReadStream::default().with_from(from).with_limit(STEP);
        measure("short reads of a stream", store.read_stream(&stream, options), usize::MAX).await?;
    }
    let whole = [ReadStream::default(), ReadStream::default().backwards()];
    for options in whole {
        let what = format!("a read of a stream with {options:?}");
        measure(&what, store.read_stream(&stream, options), BOUND).await?;
    }
    if store.capabilities().global_order {
        for options in [ReadAll::default(), ReadAll::default().backwards()] {
            let what = format!("a read of all with {options:?}");
            measure(&what, store.read_all(options), BOUND).await?;
        }
    }
    let live = store.subscribe(Subscribe::to(stream)).await?;
    measure("a subscription to the stream", events_of(live), BOUND).await?;
    Ok(())
}

async fn write(store: &Arc<dyn Store>, stream: &StreamId) -> Result<()> {
    let capabilities = store.capabilities();
    let most = (capabilities.max_append_bytes / EVENT).min(capabilities.max_append_events).min(500);
    let most = most as u64;
    let mut base = 0;
    while base < COUNT {
        let count = most.min(COUNT - base);
        let batch = (0..count).map(|n| {
            // Bytes that no codec makes much smaller.
            let mut bytes = vec![0; EVENT];
            fastrand::Rng::with_seed(base + n).fill(&mut bytes);
            NewEvent::new("Long".try_into().unwrap(), Payload::binary(bytes))
        });
        store.append_to(stream, exact(base), batch.collect::<Vec<_>>()).await?;
        base += count;
    }
    Ok(())
}

/// The events of a subscription, up to the last one that is there.
fn events_of(live: Subscription) -> EventStream {
    let events = stream::try_unfold((live, 0), |(mut live, count)| async move {
        if count == COUNT {
            return Ok(None);
        }
        Ok(Some((live.next_event().await?, (live, count + 1))))
    });
    events.boxed()
}

/// Reads, keeps nothing, and checks how much memory the process takes meanwhile.
async fn measure(what: &str, mut events: EventStream, bound: usize) -> Result<()> {
    let before = memory().unwrap_or_default();
    let (mut count, mut most) = (0, before);
    while events.try_next().await?.is_some() {
        count += 1;
        if count % STEP == 1 {
            most = memory().unwrap_or_default().max(most);
        }
    }
    let grown = most - before;
    assert!(
        grown <= bound,
        "{what} gave {count} events of {EVENT} bytes, one after the other; the process took {grown} \
         bytes more for that, and {bound} would be enough for many pages"
    );
    Ok(())
}

/// How many bytes of memory this process has; `None` where `/proc` does not tell.
fn memory() -> Option<usize> {
    const PAGE: usize = 4 << 10;
    let sizes = std::fs::read_to_string("/proc/self/statm").ok()?;
    sizes.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * PAGE)
}
