//! The model of DynamoDB: which requests it admits, and how long they take.

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;

/// Microseconds since the model began.
pub(super) type Time = u64;
pub(super) const MILLISECOND: Time = 1_000;
pub(super) const SECOND: Time = 1_000_000;

/// The limit of one partition, in write units a second.
const OF_PARTITION: f64 = 1_000.0;
/// The default limit of a table with on-demand billing, in write units a second.
const OF_TABLE: f64 = 40_000.0;
/// The average time of a request for one item, and of a transaction.
const SINGLE: Time = 5 * MILLISECOND;
const TRANSACTION: Time = 12 * MILLISECOND;
/// The least time of a request, as a part of the average. The rest is random with an exponential
/// distribution, so that one request in a hundred takes twice as long as the average.
const LEAST: f64 = 0.7;

/// A limit on units a second. Unused units of one second are kept; DynamoDB keeps those of five
/// minutes if it can, but promises none.
///
/// A request passes if any unit is left, and later requests lack the units that it takes beyond
/// that. If the limit is strict, a request passes only if as many units are left as it takes.
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

/// A write request: the units for a partition whose limit matters, if there is one, and the others.
#[derive(Clone, Copy)]
pub(super) struct Write {
    /// The number of the partition, and the units.
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

    /// True if the service executes the request. A refused request consumes no unit.
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

/// The time until an answer. A refusal takes as long as a request for one item.
pub(super) fn latency(rng: &mut Rng, transaction: bool) -> Time {
    let average = if transaction { TRANSACTION } else { SINGLE } as f64;
    let chance = -(1.0 - rng.f64()).ln();
    (average * (LEAST + (1.0 - LEAST) * chance)) as Time
}

/// The planned events. Events at the same time happen in the order in which they were planned.
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
