//! How far a projection is.

use std::time::Duration;

use annals_core::{Position, SubscriberId};
use tokio::time::Instant;

use crate::observe;

/// How far a projection is, and how fast: passed to
/// [`Projection::with_progress`](super::Projection::with_progress).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The name of the projection, with its generation and its partition.
    pub subscriber: SubscriberId,
    /// All events up to this position were handled, or left out by the filter.
    pub position: Position,
    /// How many events were handled since the projection was started.
    pub events: u64,
    /// How many events were handled per second since the last report.
    pub events_per_second: f64,
    /// How many positions are left up to the end of the store. Not every position is an event that
    /// the projection handles. 0 when the projection has caught up.
    pub lag: u64,
    /// How long catching up will take at the present speed. `None` if there is no estimate.
    pub time_left: Option<Duration>,
    /// Whether the projection has caught up.
    pub is_live: bool,
}

pub(super) type Callback = Box<dyn FnMut(&Progress) + Send>;

/// How often a projection reports its progress while it catches up.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Measures and reports the progress of one run.
pub(super) struct Tracker {
    subscriber: SubscriberId,
    /// How many events were handled.
    pub(super) events: u64,
    pub(super) is_live: bool,
    reported_at: Instant,
    reported_events: u64,
    reported_position: Position,
    counter: metrics::Counter,
    lag: metrics::Gauge,
}

impl Tracker {
    pub(super) fn new(subscriber: SubscriberId) -> Self {
        let name = subscriber.to_string();
        Self {
            counter: metrics::counter!(observe::PROJECTION_EVENTS, "projection" => name.clone()),
            lag: metrics::gauge!(observe::PROJECTION_LAG, "projection" => name),
            subscriber,
            events: 0,
            is_live: false,
            reported_at: Instant::now(),
            reported_events: 0,
            reported_position: Position::START,
        }
    }

    /// Sets the position after which the projection reads.
    pub(super) fn begin(&mut self, position: Position) {
        self.reported_position = position;
    }

    pub(super) fn count(&mut self, events: usize) {
        self.events += events as u64;
        self.counter.increment(events as u64);
    }

    pub(super) fn is_report_due(&self) -> bool {
        self.reported_at.elapsed() >= REPORT_EVERY
    }

    /// Sets the metric of the lag, and returns the lag.
    pub(super) fn measure_lag(&self, position: Position, end: Position) -> u64 {
        let lag = end.get().saturating_sub(position.get());
        self.lag.set(lag as f64);
        lag
    }

    /// Reports to the log, the metrics and the callback. `end` is the end of the store.
    pub(super) fn report(
        &mut self,
        position: Position,
        end: Position,
        callback: Option<&mut Callback>,
    ) {
        let seconds = self.reported_at.elapsed().as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let lag = self.measure_lag(position, end);
        let positions = rate(position.get().saturating_sub(self.reported_position.get()));
        let time_left = Duration::try_from_secs_f64(lag as f64 / positions).ok();
        let progress = Progress {
            subscriber: self.subscriber.clone(),
            position,
            events: self.events,
            events_per_second: rate(self.events - self.reported_events),
            lag,
            time_left: if lag == 0 { Some(Duration::ZERO) } else { time_left },
            is_live: self.is_live,
        };
        self.reported_at = Instant::now();
        (self.reported_events, self.reported_position) = (self.events, position);
        tracing::info!(
            projection = %progress.subscriber,
            position = position.get(),
            events = progress.events,
            events_per_second = progress.events_per_second.round(),
            lag,
            time_left = ?progress.time_left,
            is_live = progress.is_live,
            "progress"
        );
        if let Some(callback) = callback {
            callback(&progress);
        }
    }
}
