//! Compares reads of each stream with a read of all, in one store.

use std::sync::Arc;

use annals::{Position, ReadStream, Store, StreamId};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::{
    census::{Census, Digest, Tally, chain},
    findings::Findings,
};
use crate::{failure::Failure, interrupt::Interrupt};

/// How many streams are read at the same time.
const AT_ONCE: usize = 4;

/// Reads every stream, and compares it with the result of the read of all. Calls `progress` with the
/// number of events of each stream that was read.
pub(crate) async fn compare(
    store: &Arc<dyn Store>,
    census: &Census,
    interrupt: &Interrupt,
    findings: &Findings,
    mut progress: impl FnMut(u64),
) -> Result<(), Failure> {
    let mut read = stream::iter(census.sorted())
        .map(|(id, tally)| {
            let one = one(store.clone(), id.clone(), *tally, findings.clone());
            tokio::spawn(one).map(|read| match read {
                Ok(read) => read,
                Err(error) => Err(Failure::new("a task panicked").because(&error)),
            })
        })
        .buffer_unordered(AT_ONCE);
    while let Some(events) = read.try_next().await? {
        if interrupt.is_set() {
            return Err(Failure::interrupted());
        }
        progress(events);
    }
    Ok(())
}

async fn one(
    store: Arc<dyn Store>,
    id: StreamId,
    tally: Tally,
    findings: Findings,
) -> Result<u64, Failure> {
    // Only the versions that the read of all has seen: more may have been appended since.
    let count = tally.last.get() + 1 - tally.first.get();
    let options = ReadStream::default().with_from(tally.first).with_limit(count);
    let mut events = store.read_stream(&id, options);
    let (mut digest, mut position, mut read): (Digest, _, _) = (0, Position::START, 0);
    let mut buffer = Vec::new();
    let ordered = store.capabilities().global_order;
    while let Some(event) = events.try_next().await? {
        digest = chain(digest, &event, &mut buffer);
        read += 1;
        if ordered && event.position <= position {
            findings.broken(|| {
                format!(
                    "version {} of {id}: its position is not after that of the version before",
                    event.version
                )
            });
        }
        position = event.position;
    }
    let info = store.stream_info(&id).await?;
    if info.first_version.is_none_or(|first| first > tally.first) {
        findings.note(|| format!("{id} was truncated or deleted while it was verified"));
    } else if digest != tally.digest {
        findings.broken(|| {
            format!(
                "{id}: the {read} events of a read of the stream differ from versions {} to {} of a \
                 read of all",
                tally.first, tally.last
            )
        });
    } else if info.version < tally.last {
        findings.broken(|| {
            format!("{id}: stream_info says version {}, but there is {}", info.version, tally.last)
        });
    }
    Ok(read)
}
