//! The service: what it admits, and how long it takes.

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;

/// Microseconds since the beginning.
pub(super) type Time = u64;
pub(super) const MILLISECOND: Time = 1_000;
pub(super) const SECOND: Time = 1_000_000;

/// What one partition key, or all of those in one partition, take: write units a second.
const OF_PARTITION: f64 = 1_000.0;
/// What a table with on-demand billing takes, unless its quota is raised.
const OF_TABLE: f64 = 40_000.0;
/// How long a request on one item takes on average, and a transaction.
const SINGLE: Time = 5 * MILLISECOND;
const TRANSACTION: Time = 12 * MILLISECOND;
/// What a request takes at least, as a part of the average; what is above it is by chance
/// (exponentially distributed), so that one in a hundred takes twice as long as the average.
const LEAST: f64 = 0.7;

/// A limit on units a second, of which those of one second are kept. The service keeps those of five
/// minutes where it can, and promises none.
///
/// A request passes while anything is left, and what it takes beyond that is missing later; where it
/// is `strict`, it passes only while as much is left as it takes.
#[derive(Clone, Copy)]
struct Bucket {
    rate: f64,
    level: f64,
    filled: Time,
}

impl Bucket {
    fn new(rate: f64) -> Self {
        Self { rate, level: rate, filled: 0 }
    }

    fn has(&mut self, now: Time, units: f64, strict: bool) -> bool {
        let seconds = (now - self.filled) as f64 / SECOND as f64;
        self.level = (self.level + seconds * self.rate).min(self.rate);
        self.filled = now;
        self.level >= if strict { units } else { 1.0 }
    }
}

/// Units to be written under a key that matters, if it does, and under others.
#[derive(Clone, Copy)]
pub(super) struct Write {
    /// The number of a partition, and units.
    pub(super) key: Option<(usize, f64)>,
    pub(super) others: f64,
    pub(super) transaction: bool,
}

pub(super) struct Service {
    partitions: Vec<Bucket>,
    table: Bucket,
    strict: bool,
    pub(super) requests: u64,
    pub(super) throttled: u64,
    pub(super) units: f64,
}

impl Service {
    pub(super) fn new(partitions: usize, strict: bool) -> Self {
        let partitions = vec![Bucket::new(OF_PARTITION); partitions];
        let table = Bucket::new(OF_TABLE);
        Self { partitions, table, strict, requests: 0, throttled: 0, units: 0.0 }
    }

    /// Whether a request is done, all of it. One that is not costs nothing.
    pub(super) fn admits(&mut self, now: Time, write: Write) -> bool {
        self.requests += 1;
        let units = write.others + write.key.map_or(0.0, |(_, units)| units);
        let partition = write.key.map(|(number, units)| (&mut self.partitions[number], units));
        let fits = match partition {
            Some((bucket, under_key)) => {
                let fits = bucket.has(now, under_key, self.strict)
                    && self.table.has(now, units, self.strict);
                if fits {
                    bucket.level -= under_key;
                }
                fits
            }
            None => self.table.has(now, units, self.strict),
        };
        if fits {
            self.table.level -= units;
            self.units += units;
        } else {
            self.throttled += 1;
        }
        fits
    }
}

/// How long an answer takes; that of a refusal is no transaction's.
pub(super) fn latency(rng: &mut Rng, transaction: bool) -> Time {
    let average = if transaction { TRANSACTION } else { SINGLE } as f64;
    let chance = -(1.0 - rng.f64()).ln();
    (average * (LEAST + (1.0 - LEAST) * chance)) as Time
}

/// What happens next. What happens at the same time, happens in the order in which it was planned.
pub(super) struct Agenda<E> {
    planned: BinaryHeap<Reverse<(Time, u64, E)>>,
    next: u64,
    pub(super) now: Time,
}

impl<E: Ord> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { planned: BinaryHeap::new(), next: 0, now: 0 }
    }

    pub(super) fn after(&mut self, time: Time, event: E) {
        self.planned.push(Reverse((self.now + time, self.next, event)));
        self.next += 1;
    }

    pub(super) fn next(&mut self, end: Time) -> Option<E> {
        let Reverse((time, _, event)) = self.planned.pop()?;
        self.now = time;
        (time < end).then_some(event)
    }
}
