//! The metrics.

use std::time::Duration;

use annals_core::{Appended, Result};
use metrics::{
    Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};

/// Counts the appends that were answered without an error, retries among them.
pub const APPENDS: &str = "annals.appends";
/// Counts the events that were written.
pub const EVENTS_APPENDED: &str = "annals.events.appended";
/// Counts the events that reads and subscriptions delivered.
pub const EVENTS_READ: &str = "annals.events.read";
/// Counts the calls that expected another version than there was.
pub const CONFLICTS: &str = "annals.conflicts";
/// Counts the calls and streams that failed, but for conflicts, by `kind`.
pub const ERRORS: &str = "annals.errors";
/// How long appends took, in seconds, whatever they were answered.
pub const APPEND_DURATION: &str = "annals.append.duration";

/// Counts the calls that failed and were made again.
pub const RETRIES: &str = "annals.retries";
/// Counts the races that commands lost, and were decided again after.
pub const COMMAND_CONFLICTS: &str = "annals.command.conflicts";
/// Counts the events that could not be read and were to be skipped.
pub const EVENTS_SKIPPED: &str = "annals.events.skipped";
/// Counts the events that projections handled.
pub const PROJECTION_EVENTS: &str = "annals.projection.events";
/// Counts the events that projections parked.
pub const PROJECTION_PARKED: &str = "annals.projection.parked";
/// How many positions projections are behind the end of the store.
pub const PROJECTION_LAG: &str = "annals.projection.lag";

/// Tells the recorder what the metrics are. [`Observed::new`](super::Observed::new) does so; to be
/// called again where the recorder is installed later than that.
pub fn describe() {
    describe_counter!(APPENDS, Unit::Count, "Appends that were answered without an error");
    describe_counter!(EVENTS_APPENDED, Unit::Count, "Events that were written");
    describe_counter!(EVENTS_READ, Unit::Count, "Events that reads and subscriptions delivered");
    describe_counter!(CONFLICTS, Unit::Count, "Lost races for a version");
    describe_counter!(ERRORS, Unit::Count, "Calls and streams that failed, but for conflicts");
    describe_histogram!(APPEND_DURATION, Unit::Seconds, "How long appends took");
    describe_counter!(RETRIES, Unit::Count, "Calls that failed and were made again");
    describe_counter!(COMMAND_CONFLICTS, Unit::Count, "Races that commands lost");
    describe_counter!(EVENTS_SKIPPED, Unit::Count, "Events that could not be read");
    describe_counter!(PROJECTION_EVENTS, Unit::Count, "Events that projections handled");
    describe_counter!(PROJECTION_PARKED, Unit::Count, "Events that projections parked");
    describe_gauge!(PROJECTION_LAG, Unit::Count, "Positions behind the end of the store");
}

/// Finds the metrics of one backend with each use, so that a recorder may be installed any time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    pub(super) backend: &'static str,
}

impl Meter {
    /// What an append was answered, stream by stream, and after how long.
    pub(super) fn appended(self, took: Duration, answer: Result<&[Appended], ()>) {
        let backend = self.backend;
        histogram!(APPEND_DURATION, "backend" => backend).record(took.as_secs_f64());
        let Ok(streams) = answer else { return };
        counter!(APPENDS, "backend" => backend).increment(1);
        let written = streams.iter().filter(|appended| !appended.replayed).map(|appended| {
            appended.last_version.minus(appended.first_version.get()).plus(1).get()
        });
        counter!(EVENTS_APPENDED, "backend" => backend).increment(written.sum());
    }

    pub(super) fn lost_race(self) {
        counter!(CONFLICTS, "backend" => self.backend).increment(1);
    }

    pub(super) fn failed(self, kind: String) {
        counter!(ERRORS, "backend" => self.backend, "kind" => kind).increment(1);
    }

    /// For one stream of events, which would else look it up with each: what is left is an atomic
    /// addition.
    pub(super) fn events_read(self) -> Counter {
        counter!(EVENTS_READ, "backend" => self.backend)
    }
}
