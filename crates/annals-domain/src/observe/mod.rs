//! Spans and metrics of every call to a store.
//!
//! [`Observed`] wraps a store and tells [`tracing`] and [`metrics`] what is asked of it. Both are
//! facades: without a subscriber and a recorder it costs next to nothing.
//!
//! # Spans
//!
//! Each call is a span of the target `annals` and the level INFO, under the names of
//! OpenTelemetry's semantic conventions for
//! [databases](https://opentelemetry.io/docs/specs/semconv/db/database-spans/) and
//! [messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/):
//!
//! | field | is | on |
//! |---|---|---|
//! | `otel.name` | operation and category: `append order` | all |
//! | `otel.kind` | `client` | all |
//! | `db.system.name` | the database: `postgresql`, `aws.dynamodb`, `sqlite`, … | all |
//! | `db.operation.name` | the method: `append` | all |
//! | `db.collection.name` | the category, where there is just one | all |
//! | `db.operation.batch.size` | how many streams, from two on | `append_multi` |
//! | `db.response.returned_rows` | how many events were read | reads |
//! | `messaging.system` | `annals` | appends, subscriptions |
//! | `messaging.operation.name` | the method: `subscribe` | appends, subscriptions |
//! | `messaging.operation.type` | `send`, `receive` | appends, `receive` |
//! | `messaging.destination.name` | the category, where there is just one | appends, subscriptions |
//! | `messaging.batch.message_count` | how many events | appends |
//! | `annals.stream` | the stream, where there is just one | all |
//! | `annals.subscriber`, `annals.lease` | the name | checkpoints, leases |
//! | `annals.conflict` | `true` | lost races |
//! | `error.type` | the kind of the error: `unavailable` | failures |
//! | `otel.status_code` | `ERROR` | failures |
//!
//! A lost race is not a failure: whoever lost it decides again. Spans hold no payload, and no text
//! of an error, which could quote one.
//!
//! An append's span is a `client`, not a `producer`: by the convention the producer is the span
//! whose context the message carries, and what events carry is that of the command
//! (`Context::with_current_trace`). A read's span lasts until its stream has ended or was dropped;
//! a subscription, which lasts for ever, has one for the beginning, and where it fails one named
//! `receive`.
//!
//! # Metrics
//!
//! Those of [`Observed`] have the label `backend`, as in [`Capabilities::backend`](annals_core::Capabilities).
//!
//! | name | is |
//! |---|---|
//! | [`APPENDS`] | counter: appends that were answered without an error |
//! | [`EVENTS_APPENDED`] | counter: events that were written; a retry that is told writes none |
//! | [`EVENTS_READ`] | counter: events that reads and subscriptions delivered |
//! | [`CONFLICTS`] | counter: lost races, of appends and of what else expects a version |
//! | [`ERRORS`] | counter: calls and streams that failed otherwise; label `kind`, as `error.type` |
//! | [`APPEND_DURATION`] | histogram, seconds: appends, whatever they were answered |
//!
//! What command handlers and projections tell by themselves, the latter with the label
//! `projection`:
//!
//! | name | is |
//! |---|---|
//! | [`RETRIES`] | counter: calls to a store that failed and were made again |
//! | [`COMMAND_CONFLICTS`] | counter: lost races after which a command was decided again |
//! | [`EVENTS_SKIPPED`] | counter: events that could not be read and [were to be skipped](crate::Schema::skip_unreadable) |
//! | [`PROJECTION_EVENTS`] | counter: events that were handled |
//! | [`PROJECTION_PARKED`] | counter: events that were [parked](crate::projection::OnPoison::Park) |
//! | [`PROJECTION_LAG`] | gauge: positions up to the end of the store; of a filtered source up to a thousand may be others' events |
//!
//! ```
//! # use std::sync::Arc;
//! # use annals_core::Store;
//! # use annals_domain::observe::Observed;
//! # use annals_memory::MemoryStore;
//! let store: Arc<dyn Store> = Arc::new(Observed::new(Arc::new(MemoryStore::new())));
//! ```

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

/// A store, with a span and metrics for every call: see the [module](self).
#[derive(Clone, Debug)]
pub struct Observed {
    store: Arc<dyn Store>,
    watch: Watch,
}

impl Observed {
    /// Watches a store. [Describes](describe) the metrics to the recorder of the moment.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        describe();
        let backend = store.capabilities().backend;
        Self { store, watch: Watch { system: system(backend), meter: Meter { backend } } }
    }

    /// Not the `Arc`, which is a store too, and would box every future once more.
    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// A call inside its span.
    async fn call<T>(&self, span: Span, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let result = call.instrument(span.clone()).await;
        if let Err(error) = &result {
            self.watch.failed(&span, error);
        }
        result
    }
}

/// What it takes to tell what happened.
#[derive(Clone, Copy, Debug)]
struct Watch {
    system: &'static str,
    meter: Meter,
}

impl Watch {
    fn failed(self, span: &Span, error: &Error) {
        if error.kind() == ErrorKind::Conflict {
            self.meter.lost_race();
            span.record("annals.conflict", true);
            return;
        }
        // Low in cardinality, as the conventions have it, and a good label.
        let kind = error.kind().to_string().replace(' ', "_");
        span.record("error.type", kind.as_str());
        span.record("otel.status_code", "ERROR");
        self.meter.failed(kind);
    }
}

/// What a call is about: the category and the stream, where there is just one.
#[derive(Clone, Copy, Default)]
struct Subject<'a> {
    category: Option<&'a str>,
    stream: Option<&'a str>,
}

impl<'a> Subject<'a> {
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

/// The span of a call. A macro, since the names of a span and of its fields stand in a static.
macro_rules! span {
    ($watch:expr, $operation:literal, $subject:expr $(, $($field:tt)+)?) => {{
        let subject: $crate::observe::Subject<'_> = $subject;
        tracing::info_span!(
            target: "annals",
            $operation,
            "otel.name" = subject.span_name($operation),
            "otel.kind" = "client",
            "otel.status_code" = tracing::field::Empty,
            "error.type" = tracing::field::Empty,
            "db.system.name" = $watch.system,
            "db.operation.name" = $operation,
            "db.collection.name" = subject.category,
            "annals.stream" = subject.stream,
            "annals.conflict" = tracing::field::Empty,
            $($($field)+)?
        )
    }};
}
use span;

/// `db.system.name`, of which the conventions prescribe the well-known ones.
fn system(backend: &'static str) -> &'static str {
    match backend {
        "postgres" => "postgresql",
        "dynamodb" => "aws.dynamodb",
        other => other,
    }
}
