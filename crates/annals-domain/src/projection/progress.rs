//! How far a projection is.

use std::time::Duration;

use annals_core::{Position, SubscriberId};
use tokio::time::Instant;

use crate::observe;

/// How far a projection is, and how fast.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Which projection it is.
    pub subscriber: SubscriberId,
    /// Everything up to here was handled, or is not wanted.
    pub position: Position,
    /// The events that were handled since it started.
    pub events: u64,
    /// The events that were handled in a second, since the report before.
    pub events_per_second: f64,
    /// How far the end of the store was at the last look: positions, of which not every one need
    /// be an event that is wanted. 0 when it has caught up.
    pub lag: u64,
    /// How long catching up will take at the present speed; none where that cannot be said.
    pub time_left: Option<Duration>,
    /// Whether it has caught up.
    pub is_live: bool,
}

pub(super) type Callback = Box<dyn FnMut(&Progress) + Send>;

/// How often it is told.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// What a report is made from.
pub(super) struct Meter {
    subscriber: SubscriberId,
    /// The events that were handled.
    pub(super) events: u64,
    pub(super) is_live: bool,
    told: Instant,
    told_events: u64,
    told_position: Position,
    counter: metrics::Counter,
    lag: metrics::Gauge,
}

impl Meter {
    pub(super) fn new(subscriber: SubscriberId) -> Self {
        let name = subscriber.to_string();
        Self {
            counter: metrics::counter!(observe::PROJECTION_EVENTS, "projection" => name.clone()),
            lag: metrics::gauge!(observe::PROJECTION_LAG, "projection" => name),
            subscriber,
            events: 0,
            is_live: false,
            told: Instant::now(),
            told_events: 0,
            told_position: Position::START,
        }
    }

    /// From where it goes on.
    pub(super) fn begin(&mut self, position: Position) {
        self.told_position = position;
    }

    pub(super) fn count(&mut self, events: usize) {
        self.events += events as u64;
        self.counter.increment(events as u64);
    }

    pub(super) fn is_due(&self) -> bool {
        self.told.elapsed() >= EVERY
    }

    /// How far it is behind `end`.
    pub(super) fn lags(&self, position: Position, end: Position) -> u64 {
        let lag = end.get().saturating_sub(position.get());
        self.lag.set(lag as f64);
        lag
    }

    /// How far it is, on the way to `end`.
    pub(super) fn tell(&mut self, position: Position, end: Position, tell: Option<&mut Callback>) {
        let seconds = self.told.elapsed().as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let lag = self.lags(position, end);
        let positions = rate(position.get().saturating_sub(self.told_position.get()));
        let time_left = Duration::try_from_secs_f64(lag as f64 / positions).ok();
        let progress = Progress {
            subscriber: self.subscriber.clone(),
            position,
            events: self.events,
            events_per_second: rate(self.events - self.told_events),
            lag,
            time_left: if lag == 0 { Some(Duration::ZERO) } else { time_left },
            is_live: self.is_live,
        };
        (self.told, self.told_events, self.told_position) = (Instant::now(), self.events, position);
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
        if let Some(tell) = tell {
            tell(&progress);
        }
    }
}
