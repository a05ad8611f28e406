//! Spans and metrics for every call to a store.
//!
//! [`Observed`] wraps a store and reports each call to [`tracing`] and [`metrics`]. Both are facades:
//! if the program installs no subscriber and no recorder, this costs next to nothing.
//!
//! ```
//! # use std::sync::Arc;
//! # use annals_core::Store;
//! # use annals_domain::observe::Observed;
//! # use annals_memory::MemoryStore;
//! let store: Arc<dyn Store> = Arc::new(Observed::new(Arc::new(MemoryStore::new())));
//! ```
//!
//! # Spans
//!
//! Each call is a span with the target `annals::call` and the level INFO. A filter of
//! `tracing-subscriber` takes every target that begins with its own: `annals::call=off` turns these spans
//! off, and `annals=off` also all that the crates `annals_*` log. Its fields have the names of
//! OpenTelemetry's semantic conventions for
//! [databases](https://opentelemetry.io/docs/specs/semconv/db/database-spans/) and
//! [messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/):
//!
//! | field | value | spans |
//! |---|---|---|
//! | `otel.name` | operation and category: `append order` | all |
//! | `otel.kind` | `client` | all |
//! | `db.system.name` | the database: `postgresql`, `aws.dynamodb`, `sqlite`, … | all |
//! | `db.operation.name` | the method: `append` | all |
//! | `db.collection.name` | the category, if the call is about one | all |
//! | `db.operation.batch.size` | the number of streams, if there are several | `append_multi` |
//! | `db.response.returned_rows` | the number of events read | reads |
//! | `messaging.system` | `annals` | appends, subscriptions |
//! | `messaging.operation.name` | the method: `subscribe` | appends, subscriptions |
//! | `messaging.operation.type` | `send`, `receive` | appends, `receive` |
//! | `messaging.destination.name` | the category, if the call is about one | appends, subscriptions |
//! | `messaging.batch.message_count` | the number of events | appends |
//! | `annals.stream` | the stream, if the call is about one | all |
//! | `annals.subscriber`, `annals.lease` | the name | checkpoints, leases |
//! | `annals.conflict` | `true` | conflicts |
//! | `error.type` | the kind of the error: `unavailable` | failures |
//! | `otel.status_code` | `ERROR` | failures |
//!
//! A conflict does not count as a failure, since the command is decided again. Spans contain neither
//! payloads nor the texts of errors, which could quote payloads.
//!
//! The span of an append is a `client`, not a `producer`: by the conventions, the producer is the
//! span whose context the message carries, and events carry that of their command
//! (`Context::with_current_trace`). The span of a read lasts until its stream of events ends or is
//! dropped. A subscription may last for days, so it has a span for its start only and, if it fails,
//! one called `receive`.
//!
//! # Metrics
//!
//! The metrics of [`Observed`] have the label `backend`, with the value of
//! [`Capabilities::backend`](annals_core::Capabilities).
//!
//! | name | value |
//! |---|---|
//! | [`APPENDS`] | counter: appends that succeeded |
//! | [`EVENTS_APPENDED`] | counter: events that were written; a recognised retry writes none |
//! | [`EVENTS_READ`] | counter: events that reads and subscriptions delivered |
//! | [`CONFLICTS`] | counter: calls that failed with a conflict |
//! | [`ERRORS`] | counter: calls, reads and subscriptions that failed otherwise; label `kind`, as in `error.type` |
//! | [`APPEND_DURATION`] | histogram, seconds: appends, whether they succeeded or failed |
//!
//! Command handlers and projections report these themselves. Those of projections have the label
//! `projection`:
//!
//! | name | value |
//! |---|---|
//! | [`RETRIES`] | counter: calls to a store that failed and were retried |
//! | [`COMMAND_CONFLICTS`] | counter: conflicts after which a command was decided again |
//! | [`EVENTS_SKIPPED`] | counter: unreadable events that were [skipped](crate::Schema::skip_unreadable) |
//! | [`PROJECTION_EVENTS`] | counter: events that were handled |
//! | [`PROJECTION_PARKED`] | counter: events that were [parked](crate::projection::OnPoison::Park) |
//! | [`PROJECTION_LAG`] | gauge: positions up to the end of the store; the last of them may be events that the projection's filter leaves out |

mod meter;
mod read;
mod store;

use std::{future::Future, sync::Arc};

use annals_core::{Category, Error, ErrorKind, Filter, Result, Source, Store, StreamId};
use tracing::{Instrument, Span};

use self::meter::Meter;
pub use self::meter::{
    APPEND_DURATION, APPENDS, COMMAND_CONFLICTS, CONFLICTS, ERRORS, EVENTS_APPENDED, EVENTS_READ,
    EVENTS_SKIPPED, PROJECTION_EVENTS, PROJECTION_LAG, PROJECTION_PARKED, RETRIES, describe,
};

/// A wrapper around a store, with a span and metrics for every call: see the [module](self).
#[derive(Clone, Debug)]
pub struct Observed {
    store: Arc<dyn Store>,
    reporter: Reporter,
}

impl Observed {
    /// Wraps a store, and [describes](describe) the metrics to the installed recorder.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        describe();
        let backend = store.capabilities().backend;
        Self { store, reporter: Reporter { system: system(backend), meter: Meter { backend } } }
    }

    /// The store inside the `Arc`. The `Arc` is a store too, but would box each future once more.
    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Runs a call inside its span.
    async fn call<T>(&self, span: Span, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let result = call.instrument(span.clone()).await;
        if let Err(error) = &result {
            self.reporter.failed(&span, error);
        }
        result
    }
}

/// Reports the results of calls.
#[derive(Clone, Copy, Debug)]
struct Reporter {
    system: &'static str,
    meter: Meter,
}

impl Reporter {
    fn failed(self, span: &Span, error: &Error) {
        if error.kind() == ErrorKind::Conflict {
            self.meter.conflict();
            span.record("annals.conflict", true);
            return;
        }
        // The conventions want few different values here; so does a label of a metric.
        let kind = error.kind().to_string().replace(' ', "_");
        span.record("error.type", kind.as_str());
        span.record("otel.status_code", "ERROR");
        self.meter.failed(kind);
    }
}

/// The category and the stream that a call is about, if it is about a single one.
#[derive(Clone, Copy, Default)]
struct Target<'a> {
    category: Option<&'a str>,
    stream: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn stream(stream: &'a StreamId) -> Self {
        Self { category: stream.category_str(), stream: Some(stream.as_str()) }
    }

    fn filter(filter: &'a Filter) -> Self {
        Self { category: filter.category.as_ref().map(Category::as_str), stream: None }
    }

    fn source(source: &'a Source) -> Self {
        match source {
            Source::Stream(stream) => Self::stream(stream),
            Source::All(filter) => Self::filter(filter),
        }
    }

    fn span_name(self, operation: &str) -> String {
        match self.category {
            Some(category) => format!("{operation} {category}"),
            None => operation.to_owned(),
        }
    }
}

/// The span of a call. This is a macro, since the names of a span and its fields must be constants.
macro_rules! span {
    ($reporter:expr, $operation:literal, $target:expr $(, $($field:tt)+)?) => {{
        let target: $crate::observe::Target<'_> = $target;
        tracing::info_span!(
            target: "annals::call",
            $operation,
            "otel.name" = target.span_name($operation),
            "otel.kind" = "client",
            "otel.status_code" = tracing::field::Empty,
            "error.type" = tracing::field::Empty,
            "db.system.name" = $reporter.system,
            "db.operation.name" = $operation,
            "db.collection.name" = target.category,
            "annals.stream" = target.stream,
            "annals.conflict" = tracing::field::Empty,
            $($($field)+)?
        )
    }};
}
use span;

/// The value of `db.system.name`. The conventions prescribe those of well-known databases.
fn system(backend: &'static str) -> &'static str {
    match backend {
        "postgres" => "postgresql",
        "dynamodb" => "aws.dynamodb",
        other => other,
    }
}
