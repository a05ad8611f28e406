//! Compares two stores.

use std::{collections::BTreeMap, sync::Arc};

use annals::{RecordedEvent, Store, StreamId};

use super::{
    census::{Census, Tally},
    findings::Findings,
};
use crate::{
    failure::Failure,
    listing::Listing,
    select::{Select, SelectStreams, SelectTimes},
    show::described,
    source::{Chunks, Source},
};

/// What is compared besides the events.
#[derive(Clone, Copy)]
pub(crate) struct Strictness {
    /// The order over all streams.
    pub(crate) order: bool,
    /// The record times.
    pub(crate) times: bool,
}

pub(crate) async fn compare(
    (one, first): (&Source, &Census),
    (other, second): (&Source, &Census),
    strictness: Strictness,
    times: &SelectTimes,
    findings: &Findings,
) -> Result<(), Failure> {
    let mut streams: BTreeMap<&str, (&StreamId, [Option<&Tally>; 2])> = BTreeMap::new();
    for (side, census) in [first, second].into_iter().enumerate() {
        for (stream, tally) in &census.streams {
            let (_, tallies) = streams.entry(stream.as_str()).or_insert((stream, [None, None]));
            if let Some(place) = tallies.get_mut(side) {
                *place = Some(tally);
            }
        }
    }
    let (mut explained, mut other_times) = (false, 0_u64);
    for (stream, tallies) in streams.into_values() {
        match tallies {
            [Some(tally), Some(other_tally)] if tally.digest == other_tally.digest => {
                other_times += u64::from(tally.times != other_tally.times);
            }
            [Some(_), Some(_)] => {
                // Only the first difference is looked up, since that reads the stream again.
                if explained {
                    findings.broken(|| format!("{stream}: the events differ"));
                } else {
                    let difference = first_difference(one, other, stream, times).await?;
                    findings.broken(|| format!("{stream}: {difference}"));
                    explained = true;
                }
            }
            [tally, _] => {
                let there = if tally.is_some() { one } else { other };
                findings.broken(|| format!("{stream}: only in {}", there.shown()));
            }
        }
    }
    if other_times > 0 {
        let text = || format!("{other_times} streams have other record times");
        if strictness.times { findings.broken(text) } else { findings.note(text) }
    }
    if strictness.order && first.order != second.order && first.digest() == second.digest() {
        findings.broken(|| "the events are the same, in another order over all streams".to_owned());
    }
    Ok(())
}

async fn first_difference(
    one: &Source,
    other: &Source,
    stream: &StreamId,
    times: &SelectTimes,
) -> Result<String, Failure> {
    let streams = SelectStreams { ids: vec![stream.clone()], ..SelectStreams::default() };
    let select = Select::of(streams, times.clone());
    let (mut here, mut there) = (
        EventReader::new(one.read(one.start(&select).await?, &select)),
        EventReader::new(other.read(other.start(&select).await?, &select)),
    );
    loop {
        let version = match (here.next().await?, there.next().await?) {
            (Some(a), Some(b)) => match differs(&a, &b) {
                Some(what) => return Ok(format!("version {}: another {what}", a.version)),
                None => continue,
            },
            (Some(event), None) => (event.version, one),
            (None, Some(event)) => (event.version, other),
            (None, None) => return Ok("the stream changed while it was read".to_owned()),
        };
        return Ok(format!("version {}: only in {}", version.0, version.1.shown()));
    }
}

fn differs(one: &RecordedEvent, other: &RecordedEvent) -> Option<&'static str> {
    [
        ("version", one.version != other.version),
        ("id", one.id != other.id),
        ("type", one.event_type != other.event_type),
        ("data", one.data != other.data),
        ("metadata", one.metadata != other.metadata),
    ]
    .into_iter()
    .find_map(|(what, differs)| differs.then_some(what))
}

/// Reads chunks of events one by one.
struct EventReader {
    chunks: Chunks,
    chunk: std::vec::IntoIter<RecordedEvent>,
}

impl EventReader {
    fn new(chunks: Chunks) -> Self {
        Self { chunks, chunk: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<RecordedEvent>, Failure> {
        loop {
            if let Some(event) = self.chunk.next() {
                return Ok(Some(event));
            }
            match self.chunks.recv().await.transpose()? {
                Some(chunk) => self.chunk = chunk.events.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

/// Compares the states of all streams, also of those without events: truncated, deleted and
/// tombstoned ones.
pub(crate) async fn compare_states(
    one: &Arc<dyn Store>,
    other: &Arc<dyn Store>,
    streams: &SelectStreams,
    findings: &Findings,
) -> Result<(), Failure> {
    let (mut here, mut there) = (Listing::of(one), Listing::of(other));
    let (mut a, mut b) = (here.next(streams).await?, there.next(streams).await?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.as_str().cmp(b.as_str()),
        };
        match (order, &a, &b) {
            (std::cmp::Ordering::Equal, Some((stream, a)), Some((_, b))) if a != b => {
                findings.broken(|| {
                    format!(
                        "{stream}: {} in the first store, {} in the second",
                        described(a),
                        described(b)
                    )
                });
            }
            (std::cmp::Ordering::Less, Some((stream, a)), _) => {
                findings.broken(|| {
                    format!("{stream}: {} in the first store, unknown in the second", described(a))
                });
            }
            (std::cmp::Ordering::Greater, _, Some((stream, b))) => {
                findings.broken(|| {
                    format!("{stream}: unknown in the first store, {} in the second", described(b))
                });
            }
            _ => {}
        }
        if order.is_le() {
            a = here.next(streams).await?;
        }
        if order.is_ge() {
            b = there.next(streams).await?;
        }
    }
}
