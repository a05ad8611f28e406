//! Compares reads of each stream with a read of all, in one store, in both directions: each event of a
//! read of all must be in a read of its stream, and each event of a read of a stream, from its first
//! version to its end, must be in a read of all.

use std::{collections::HashSet, sync::Arc};

use annals::{Removal, Store, StreamId, adapter::Backoff};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Duration, Instant};

use super::{
    census::{Census, Tally},
    findings::Findings,
    stream::{Late, Reading},
};
use crate::{
    failure::Failure,
    interrupt::Interrupt,
    listing::Listing,
    select::{Select, SelectStreams},
    source::Source,
};

/// How many streams are read at the same time.
const AT_ONCE: usize = 4;

/// How long to wait until a read of all gives an event that a read of a stream gave: an open
/// transaction may hold readers of all back for a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads every stream, and compares it with the result of the read of all. Calls `progress` with the
/// number of events of each stream that was read.
pub(crate) async fn compare(
    source: &Source,
    census: &Census,
    select: &Select,
    interrupt: &Interrupt,
    findings: &Findings,
    mut progress: impl FnMut(u64),
) -> Result<(), Failure> {
    let Some(store) = source.store() else { return Ok(()) };
    let mut streams = Streams::new(store, census, findings);
    let (mut reads, mut late) = (FuturesUnordered::new(), Vec::new());
    loop {
        while reads.len() < AT_ONCE
            && let Some((id, tally)) = streams.next(&select.streams).await?
        {
            let (store, end, findings) = (store.clone(), census.end, findings.clone());
            reads.push(tokio::spawn(Reading { store, id, tally, end, findings }.run()));
        }
        let Some(read) = reads.next().await else { break };
        if interrupt.is_set() {
            return Err(Failure::interrupted());
        }
        let read =
            read.map_err(|error| Failure::new("a task panicked").because(&error)).flatten()?;
        progress(read.events);
        late.extend(read.late);
    }
    confirm(source, census, select, late, findings).await
}

/// All streams that the store lists, and those that only the read of all gave.
struct Streams<'a> {
    listing: Option<Listing<'a>>,
    last: Option<StreamId>,
    census: &'a Census,
    /// The streams of the read of all that were not listed so far.
    unlisted: HashSet<&'a StreamId>,
    rest: Option<std::vec::IntoIter<&'a StreamId>>,
    findings: &'a Findings,
}

impl<'a> Streams<'a> {
    fn new(store: &'a Arc<dyn Store>, census: &'a Census, findings: &'a Findings) -> Self {
        let lists = store.capabilities().list_streams;
        if !lists {
            findings.note(|| {
                "this store cannot list its streams, so that a stream which the read of all lacks \
                 altogether is not found"
                    .to_owned()
            });
        }
        let unlisted = census.streams.keys().collect();
        let listing = lists.then(|| Listing::of(store));
        Self { listing, last: None, census, unlisted, rest: None, findings }
    }

    /// The next stream, and what the read of all gave of it.
    async fn next(
        &mut self,
        streams: &SelectStreams,
    ) -> Result<Option<(StreamId, Option<Tally>)>, Failure> {
        if let Some(listing) = &mut self.listing {
            while let Some((id, _)) = listing.next(streams).await? {
                if self.last.as_ref().is_some_and(|last| last.as_str() >= id.as_str()) {
                    self.findings.broken(|| {
                        format!("list_streams gives {id} after a greater id, or once more")
                    });
                    // It may never end.
                    break;
                }
                self.last = Some(id.clone());
                self.unlisted.remove(&id);
                if !id.is_system() {
                    let tally = self.census.streams.get(&id).copied();
                    return Ok(Some((id, tally)));
                }
            }
        }
        let listed = self.listing.take().is_some();
        let rest = self.rest.get_or_insert_with(|| {
            let mut rest: Vec<_> = self.unlisted.drain().collect();
            rest.sort_unstable_by_key(|id| id.as_str());
            if listed {
                for id in &rest {
                    self.findings.broken(|| {
                        format!(
                            "{id}: list_streams lacks the stream, of which a read of all has events"
                        )
                    });
                }
            }
            rest.into_iter()
        });
        Ok(rest.next().map(|id| (id.clone(), self.census.streams.get(id).copied())))
    }
}

/// Looks for the events that were appended after the read of all had ended, in a further read from
/// there.
async fn confirm(
    source: &Source,
    census: &Census,
    select: &Select,
    mut late: Vec<Late>,
    findings: &Findings,
) -> Result<(), Failure> {
    late.sort_unstable_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
    let until = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    while !late.is_empty() {
        late.iter_mut().for_each(Late::begin_again);
        let (mut chunks, mut end) = (source.read(census.end, select), census.end);
        while let Some(chunk) = chunks.recv().await {
            for event in chunk?.events {
                end = event.position;
                let found =
                    late.binary_search_by(|late| late.id.as_str().cmp(event.stream.as_str()));
                if let Some(late) = found.ok().and_then(|at| late.get_mut(at)) {
                    late.found(&event);
                }
            }
        }
        late.retain(|late| !late.is_complete());
        if late.iter().all(|late| late.last_position <= end) || Instant::now() >= until {
            break;
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
    let Some(store) = source.store() else { return Ok(()) };
    for late in late {
        let info = store.stream_info(&late.id).await?;
        let removed = info.first_version.is_none_or(|first| first > late.first);
        let at_once = store.capabilities().removal == Removal::AtOnce;
        if removed && (info.version >= late.last || !at_once) {
            findings.note(|| format!("{} was truncated or deleted while it was verified", late.id));
        } else {
            findings.broken(|| late.missing());
        }
    }
    Ok(())
}
