//! Reads a store once, and records a digest of each stream.

use std::collections::HashMap;

use annals::{ContentKind, Payload, Position, RecordedEvent, StreamId, Version};
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed, xxh3_128};

use super::{findings::Findings, ids::Ids};
use crate::{
    carry::Carrier,
    failure::Failure,
    interrupt::Interrupt,
    select::Select,
    source::{Also, Source},
};

/// A hash over events and their order. XXH3 costs less than reading the events. It detects accidents,
/// but not attacks.
pub(crate) type Digest = u128;

/// What is recorded of one stream. Its size does not depend on the number of events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) first: Version,
    pub(crate) last: Version,
    /// The position of the first event.
    pub(crate) position: Position,
    pub(crate) digest: Digest,
    /// A hash over the record times. It is separate because not every store can take them over.
    pub(crate) times: u64,
}

/// What is recorded of a store.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) streams: HashMap<StreamId, Tally>,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// A hash over the order of all streams.
    pub(crate) order: u64,
    /// The position of the last event.
    pub(crate) end: Position,
    buffer: Vec<u8>,
}

/// The digest of the events up to this one, made from the digest of the events before it. Each field
/// has a fixed length or is preceded by its length. The buffer only saves allocations.
pub(crate) fn chain(before: Digest, event: &RecordedEvent, buffer: &mut Vec<u8>) -> Digest {
    buffer.clear();
    buffer.extend_from_slice(&before.to_le_bytes());
    buffer.extend_from_slice(&event.version.get().to_le_bytes());
    buffer.extend_from_slice(event.id.as_bytes());
    let mut field = |bytes: &[u8]| {
        buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        buffer.extend_from_slice(bytes);
    };
    field(event.event_type.as_str().as_bytes());
    for payload in [&event.data, &event.metadata] {
        field(&[u8::from(payload.kind() == ContentKind::Json)]);
        field(payload.bytes());
    }
    xxh3_128(buffer)
}

impl Tally {
    pub(crate) fn begin(event: &RecordedEvent) -> Self {
        let (first, position) = (event.version, event.position);
        Self { first, last: first.minus(1), position, digest: 0, times: 0 }
    }

    pub(crate) fn add(&mut self, event: &RecordedEvent, buffer: &mut Vec<u8>) {
        self.digest = chain(self.digest, event, buffer);
        let micros = event.recorded_at.timestamp_micros().cast_unsigned();
        self.times = self.times.wrapping_add(micros.wrapping_mul(2 * event.version.get() + 1));
        self.last = event.version;
    }
}

impl Census {
    /// Reads all selected events, in the form that the carrier gives them. Breaches of the contract go to
    /// `findings`.
    pub(crate) async fn take(
        source: &Source,
        select: &Select,
        mut carrier: Option<&mut Carrier>,
        interrupt: &Interrupt,
        findings: &Findings,
        mut progress: impl FnMut(&Census),
    ) -> Result<Self, Failure> {
        let mut census = Self::default();
        let mut ids = Ids::default();
        let also = Also { foreign: carrier.is_some(), ..Also::default() };
        let mut chunks = source.read_with(source.start(select).await?, select, also);
        let is_ordered = source.store().is_none_or(|store| store.capabilities().global_order);
        // Clocks may disagree, so that a filter by time leaves gaps.
        let is_whole = select.times.is_everything();
        while let Some(chunk) = chunks.recv().await {
            if interrupt.is_set() {
                return Err(Failure::interrupted());
            }
            let mut events = chunk.map_err(|e| e.at(source.shown()))?.events;
            if let Some(carrier) = carrier.as_deref_mut() {
                events = carrier.carry(events).await?;
            }
            for event in &events {
                census.add(event, is_ordered, is_whole, findings);
                ids.add(event)?;
            }
            progress(&census);
        }
        ids.report(findings)?;
        Ok(census)
    }

    fn add(
        &mut self,
        event: &RecordedEvent,
        is_ordered: bool,
        is_whole: bool,
        findings: &Findings,
    ) {
        let at = || format!("version {} of {}", event.version, event.stream);
        if is_ordered && event.position <= self.end {
            let (is, before) = (event.position, self.end);
            findings.broken(|| format!("{}: position {is} comes after {before}", at()));
        }
        self.end = event.position;
        self.events += 1;
        self.bytes += event.size() as u64;
        let tally = self.streams.entry(event.stream.clone()).or_insert_with(|| Tally::begin(event));
        let follows = event.version == tally.last.plus(1);
        if !follows && (is_whole || event.version <= tally.last) {
            let before = tally.last;
            findings.broken(|| format!("{}: comes after version {before}", at()));
        }
        tally.add(event, &mut self.buffer);
        for (name, payload) in [("data", &event.data), ("metadata", &event.metadata)] {
            if !decodes(payload) {
                let text = || format!("{}: its {name} is no JSON, although its kind is JSON", at());
                // Of two stores that hold the same, that is no difference.
                if findings.is_of_two() { findings.note(text) } else { findings.broken(text) }
            }
        }
        let seed = self.order ^ event.version.get();
        self.order = xxh3_64_with_seed(event.stream.as_str().as_bytes(), seed);
    }

    /// The streams in the order of their ids.
    pub(crate) fn sorted(&self) -> Vec<(&StreamId, &Tally)> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_unstable_by_key(|(stream, _)| stream.as_str());
        streams
    }

    /// A digest of all streams, which does not depend on the order over them.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Xxh3::new();
        for (stream, tally) in self.sorted() {
            hasher.update(&(stream.as_str().len() as u64).to_le_bytes());
            hasher.update(stream.as_str().as_bytes());
            hasher.update(&tally.digest.to_le_bytes());
        }
        hasher.digest128()
    }
}

fn decodes(payload: &Payload) -> bool {
    payload.kind() == ContentKind::Binary || payload.decode::<IgnoredAny>().is_ok()
}

/// A digest in hexadecimal digits.
pub(crate) fn hex(digest: Digest) -> String {
    format!("{digest:032x}")
}
