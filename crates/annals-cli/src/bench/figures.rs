//! The results of a measurement.

use std::time::Duration;

use annals::{Error, ErrorKind, Result};
use hdrhistogram::Histogram;

use crate::bench::load::Load;

/// The number of intervals in which the appends of a round are counted.
const INTERVALS: u32 = 50;
/// The shortest interval. The counts of shorter ones would be mostly noise.
const SHORTEST: Duration = Duration::from_millis(20);

/// The appends of one writer, or of all writers, in one round, without those of the warm-up.
#[derive(Clone)]
pub(crate) struct Round {
    /// In nanoseconds, with three significant digits.
    latency: Histogram<u64>,
    /// How many appends began in each interval.
    intervals: Vec<u64>,
    interval: Duration,
    /// The time from the beginning of the round to the last answer.
    time: Duration,
}

impl Round {
    pub(crate) fn new(load: &Load) -> Result<Self> {
        let latency = Histogram::new(3).map_err(|e| {
            Error::new(ErrorKind::Internal, "the histogram cannot be created").with_source(e)
        })?;
        let interval = (load.duration / INTERVALS).max(SHORTEST);
        Ok(Self { latency, intervals: Vec::new(), interval, time: Duration::ZERO })
    }

    /// Records an append: when it began, since the beginning of the round, and how long it took.
    pub(crate) fn record(&mut self, began: Duration, took: Duration) {
        // The histogram resizes itself, so that this cannot fail.
        let _ = self.latency.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if let Ok(nth) = usize::try_from(began.as_nanos() / self.interval.as_nanos().max(1)) {
            self.count(nth, 1);
        }
        self.time = self.time.max(began + took);
    }

    fn count(&mut self, nth: usize, appends: u64) {
        if self.intervals.len() <= nth {
            self.intervals.resize(nth + 1, 0);
        }
        if let Some(count) = self.intervals.get_mut(nth) {
            *count += appends;
        }
    }

    /// Adds the appends of another writer in the same round.
    pub(crate) fn join(&mut self, other: &Self) {
        self.add(other);
        self.time = self.time.max(other.time);
    }

    fn add(&mut self, other: &Self) {
        // The histogram resizes itself, so that this cannot fail.
        let _ = self.latency.add(&other.latency);
        for (nth, count) in other.intervals.iter().enumerate() {
            self.count(nth, *count);
        }
    }

    fn appends(&self) -> u64 {
        self.latency.len()
    }

    fn rate(&self) -> f64 {
        rate(self.appends(), self.time)
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// The results of all rounds of one store.
pub(crate) struct Figures {
    /// The URL of the store, without secrets.
    pub(crate) store: String,
    batch: u64,
    rounds: Vec<Round>,
    /// The number of events that were read back, and how long that took.
    read: Option<(u64, Duration)>,
}

impl Figures {
    pub(crate) fn new(store: String, load: &Load) -> Self {
        Self { store, batch: u64::from(load.batch), rounds: Vec::new(), read: None }
    }

    pub(crate) fn wrote(&mut self, round: Round) {
        self.rounds.push(round);
    }

    pub(crate) fn read(&mut self, events: u64, time: Duration) {
        let (read, took) = self.read.unwrap_or_default();
        self.read = Some((read + events, took + time));
    }

    /// The appends of all rounds together, or `None` if there was no round. The time is that of the
    /// first.
    fn together(&self) -> Option<Round> {
        let (first, others) = self.rounds.split_first()?;
        let mut all = first.clone();
        others.iter().for_each(|round| all.add(round));
        Some(all)
    }

    pub(crate) fn summary(&self) -> Summary {
        let all = self.together();
        let time = self.rounds.iter().map(|round| round.time).sum();
        let appends = all.as_ref().map_or(0, Round::appends);
        let latency = all.as_ref().map(|all| &all.latency);
        let at = |percentile| latency.map_or(0.0, |all| ms(all.value_at_percentile(percentile)));
        Summary {
            appends,
            events: appends * self.batch,
            time,
            appends_per_second: rate(appends, time),
            events_per_second: rate(appends * self.batch, time),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: latency.map_or(0.0, |all| ms(all.max())),
            rounds: self.rounds.iter().map(Round::rate).collect(),
            read: self.read.map(|(events, time)| ReadBack {
                events,
                time,
                rate: rate(events, time),
            }),
        }
    }

    /// The latency in milliseconds at each percentile. The percentile is given by its number of nines:
    /// 2 stands for 99 %.
    pub(crate) fn by_percentile(&self) -> Vec<(f64, f64)> {
        /// Steps between one nine and the next.
        const STEPS: u32 = 10;
        let Some(all) = self.together() else { return Vec::new() };
        // The last percentile that this number of appends can tell from the maximum.
        let most = (all.appends().max(1) as f64).log10();
        (0..)
            .map(|step| f64::from(step) / f64::from(STEPS))
            .take_while(|nines| *nines <= most)
            .map(|nines| (nines, ms(all.latency.value_at_quantile(1.0 - 10f64.powf(-nines)))))
            .collect()
    }

    /// The events per second over time, in seconds since the beginning: the mean of all rounds.
    pub(crate) fn over_time(&self) -> Vec<(f64, f64)> {
        let Some(all) = self.together() else { return Vec::new() };
        let interval = all.interval.as_secs_f64();
        let events = self.batch as f64 / (interval * self.rounds.len() as f64);
        let at = |(nth, appends): (usize, &u64)| {
            ((nth as f64 + 0.5) * interval, *appends as f64 * events)
        };
        all.intervals.iter().enumerate().map(at).collect()
    }
}

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// The figures that are printed. Latencies are in milliseconds.
pub(crate) struct Summary {
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) time: Duration,
    pub(crate) appends_per_second: f64,
    pub(crate) events_per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
    /// The appends per second of each round.
    pub(crate) rounds: Vec<f64>,
    pub(crate) read: Option<ReadBack>,
}

/// The result of reading all events back.
pub(crate) struct ReadBack {
    pub(crate) events: u64,
    pub(crate) time: Duration,
    pub(crate) rate: f64,
}

impl Summary {
    /// The rows of the report: the same names for every store, with its numbers.
    pub(crate) fn rows(&self) -> Vec<(&'static str, f64)> {
        let mut rows = vec![
            ("appends/s", self.appends_per_second),
            ("events/s", self.events_per_second),
            ("p50 ms", self.p50),
            ("p90 ms", self.p90),
            ("p99 ms", self.p99),
            ("p99.9 ms", self.p99_9),
            ("max ms", self.max),
        ];
        rows.extend(self.read.as_ref().map(|read| ("read events/s", read.rate)));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_told() {
        let load = Load {
            writers: 1,
            streams: 1,
            size: 1,
            batch: 10,
            duration: Duration::from_secs(1),
            warm_up: Duration::ZERO,
            read: false,
        };
        let millis = Duration::from_millis;
        let mut figures = Figures::new("memory:".to_owned(), &load);
        assert_eq!(figures.summary().max, 0.0);
        for _ in 0..2 {
            let mut round = Round::new(&load).unwrap();
            (0..100).for_each(|nth| round.record(millis(nth * 10), millis(nth + 1)));
            figures.wrote(round);
        }
        let summary = figures.summary();
        assert_eq!((summary.appends, summary.events), (200, 2_000));
        // The last began after 990 ms, and took 100.
        assert_eq!(summary.time, millis(2 * 1_090));
        assert!((summary.p50 - 50.0).abs() < 0.1, "{}", summary.p50);
        assert!((summary.max - 100.0).abs() < 0.1, "{}", summary.max);
        let over_time = figures.over_time();
        assert_eq!(over_time.len(), 50);
        // Two appends began in each interval of 20 ms.
        assert!(over_time.iter().all(|(_, rate)| (rate - 1_000.0).abs() < 1.0), "{over_time:?}");
        let nines = figures.by_percentile();
        assert_eq!(nines.len(), 24);
        assert!(nines.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{nines:?}");
    }
}
