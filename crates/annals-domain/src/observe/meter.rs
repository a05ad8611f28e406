//! The metrics of stores, command handlers and projections.

use std::time::Duration;

use annals_core::{Appended, Result};
use metrics::{
    Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};

/// Counts the appends that succeeded, including recognised retries.
pub const APPENDS: &str = "annals.appends";
/// Counts the events that were written.
pub const EVENTS_APPENDED: &str = "annals.events.appended";
/// Counts the events that reads and subscriptions delivered.
pub const EVENTS_READ: &str = "annals.events.read";
/// Counts the calls that failed with a conflict.
pub const CONFLICTS: &str = "annals.conflicts";
/// Counts the calls, reads and subscriptions that failed otherwise, by `kind`.
pub const ERRORS: &str = "annals.errors";
/// How long appends took, in seconds, whether they succeeded or failed.
pub const APPEND_DURATION: &str = "annals.append.duration";

/// Counts the calls that failed and were retried.
pub const RETRIES: &str = "annals.retries";
/// Counts the conflicts after which a command was decided again.
pub const COMMAND_CONFLICTS: &str = "annals.command.conflicts";
/// Counts the unreadable events that were [skipped](crate::Schema::skip_unreadable).
pub const EVENTS_SKIPPED: &str = "annals.events.skipped";
/// Counts the events that projections handled.
pub const PROJECTION_EVENTS: &str = "annals.projection.events";
/// Counts the events that projections parked.
pub const PROJECTION_PARKED: &str = "annals.projection.parked";
/// How many positions projections are behind the end of the store.
pub const PROJECTION_LAG: &str = "annals.projection.lag";

/// Describes the metrics to the installed recorder. [`Observed::new`](super::Observed::new) does so
/// already; call this if the recorder is installed later.
pub fn describe() {
    describe_counter!(APPENDS, Unit::Count, "Appends that succeeded");
    describe_counter!(EVENTS_APPENDED, Unit::Count, "Events that were written");
    describe_counter!(EVENTS_READ, Unit::Count, "Events that reads and subscriptions delivered");
    describe_counter!(CONFLICTS, Unit::Count, "Calls that failed with a conflict");
    describe_counter!(ERRORS, Unit::Count, "Calls, reads and subscriptions that failed otherwise");
    describe_histogram!(APPEND_DURATION, Unit::Seconds, "How long appends took");
    describe_counter!(RETRIES, Unit::Count, "Calls that failed and were retried");
    describe_counter!(COMMAND_CONFLICTS, Unit::Count, "Conflicts of commands, decided again");
    describe_counter!(EVENTS_SKIPPED, Unit::Count, "Unreadable events that were skipped");
    describe_counter!(PROJECTION_EVENTS, Unit::Count, "Events that projections handled");
    describe_counter!(PROJECTION_PARKED, Unit::Count, "Events that projections parked");
    describe_gauge!(PROJECTION_LAG, Unit::Count, "Positions behind the end of the store");
}

/// The metrics of one backend. They are looked up for each use, so that the recorder may be
/// installed at any time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    pub(super) backend: &'static str,
}

impl Meter {
    /// Records how long an append took and, if it succeeded, its answer for each stream.
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

    pub(super) fn conflict(self) {
        counter!(CONFLICTS, "backend" => self.backend).increment(1);
    }

    pub(super) fn failed(self, kind: String) {
        counter!(ERRORS, "backend" => self.backend, "kind" => kind).increment(1);
    }

    /// The counter for one read or subscription, so that it is looked up once and not for each event.
    pub(super) fn events_read(self) -> Counter {
        counter!(EVENTS_READ, "backend" => self.backend)
    }
}
