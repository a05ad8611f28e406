//! What was measured.

use std::time::Duration;

use annals::{Error, ErrorKind, Result};
use hdrhistogram::Histogram;

use crate::bench::load::Load;

/// Over how many spans of time the appends of a round are counted.
const SPANS: u32 = 50;
/// No shorter ones: they would show nothing but how appends fall into them.
const SHORTEST: Duration = Duration::from_millis(20);

/// The appends of one writer, or of all, in one round; those of the warm-up are not counted.
#[derive(Clone)]
pub(crate) struct Round {
    /// In nanoseconds, to three digits.
    latency: Histogram<u64>,
    /// How many appends began in each span of time.
    spans: Vec<u64>,
    span: Duration,
    /// From the beginning to the last answer.
    time: Duration,
}

impl Round {
    pub(crate) fn new(load: &Load) -> Result<Self> {
        let latency = Histogram::new(3)
            .map_err(|e| Error::new(ErrorKind::Internal, "no histogram").with_source(e))?;
        let span = (load.duration / SPANS).max(SHORTEST);
        Ok(Self { latency, spans: Vec::new(), span, time: Duration::ZERO })
    }

    /// An append that began after so much time.
    pub(crate) fn record(&mut self, began: Duration, took: Duration) {
        // It grows with what it holds, so that this cannot fail.
        let _ = self.latency.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.count(usize::try_from(began.as_nanos() / self.span.as_nanos().max(1)), 1);
        self.time = self.time.max(began + took);
    }

    fn count<E>(&mut self, span: std::result::Result<usize, E>, appends: u64) {
        let Ok(span) = span else { return };
        if self.spans.len() <= span {
            self.spans.resize(span + 1, 0);
        }
        if let Some(count) = self.spans.get_mut(span) {
            *count += appends;
        }
    }

    /// What another writer did meanwhile.
    pub(crate) fn join(&mut self, other: &Self) {
        self.add(other);
        self.time = self.time.max(other.time);
    }

    fn add(&mut self, other: &Self) {
        // For the same reason.
        let _ = self.latency.add(&other.latency);
        for (span, count) in other.spans.iter().enumerate() {
            self.count(Ok::<_, ()>(span), *count);
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

/// What one store did in all of its rounds.
pub(crate) struct Figures {
    /// Its URL, as it may be shown.
    pub(crate) store: String,
    batch: u64,
    rounds: Vec<Round>,
    /// The events read back, and how long that took.
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

    /// All rounds as one, but for the time; none where there was none.
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
            read: self.read.map(|(events, time)| Read { events, time, rate: rate(events, time) }),
        }
    }

    /// The latency in milliseconds at each share of appends that were as fast, given as its nines: 2
    /// stands for 99 %.
    pub(crate) fn by_percentile(&self) -> Vec<(f64, f64)> {
        /// Steps between one nine and the next.
        const STEPS: u32 = 10;
        let Some(all) = self.together() else { return Vec::new() };
        // As many nines as there are appends to tell them apart.
        let most = (all.appends().max(1) as f64).log10();
        (0..)
            .map(|step| f64::from(step) / f64::from(STEPS))
            .take_while(|nines| *nines <= most)
            .map(|nines| (nines, ms(all.latency.value_at_quantile(1.0 - 10f64.powf(-nines)))))
            .collect()
    }

    /// The events a second, at seconds since the beginning; the mean over the rounds.
    pub(crate) fn over_time(&self) -> Vec<(f64, f64)> {
        let Some(all) = self.together() else { return Vec::new() };
        let span = all.span.as_secs_f64();
        let events = self.batch as f64 / (span * self.rounds.len() as f64);
        let at =
            |(nth, appends): (usize, &u64)| ((nth as f64 + 0.5) * span, *appends as f64 * events);
        all.spans.iter().enumerate().map(at).collect()
    }
}

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// Latencies are in milliseconds.
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
    /// Appends a second of each round.
    pub(crate) rounds: Vec<f64>,
    pub(crate) read: Option<Read>,
}

pub(crate) struct Read {
    pub(crate) events: u64,
    pub(crate) time: Duration,
    pub(crate) rate: f64,
}

impl Summary {
    /// What is told of it: a name and a number each, the same for every store.
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
        // Two began in each span of 20 ms.
        assert!(over_time.iter().all(|(_, rate)| (rate - 1_000.0).abs() < 1.0), "{over_time:?}");
        let nines = figures.by_percentile();
        assert_eq!(nines.len(), 24);
        assert!(nines.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{nines:?}");
    }
}
