//! The metadata of events: correlation, causation and trace.

use annals_core::{NewEvent, RecordedEvent, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a command comes from. The events that it leads to carry this in their metadata, as JSON: the
/// correlation and causation ids under the names that EventStoreDB uses, the trace context under
/// those of the [W3C](https://www.w3.org/TR/trace-context/).
///
/// ```
/// # use annals_core::RecordedEvent;
/// use annals_domain::Context;
/// # fn handle(event: &RecordedEvent) {
/// let first = Context::new(); // a new correlation id, for a request from outside
/// let next = Context::caused_by(event); // the event's correlation id, and the event as the cause
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Context {
    /// The id that all events of one business transaction share.
    #[serde(rename = "$correlationId", default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The id of what led to the command, usually of an event.
    #[serde(rename = "$causationId", default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The trace and the span within it, as in the HTTP header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What tracing systems add to the trace, as in the HTTP header `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Context {
    /// The context of a command that nothing recorded led to: with a new correlation id.
    #[must_use]
    pub fn new() -> Self {
        Self { correlation_id: Some(Uuid::now_v7().to_string()), ..Self::default() }
    }

    /// The context of a command that an event leads to: the event's id is the causation id. The
    /// correlation id and the trace are those of the event; an event without a correlation id gives
    /// its own id instead.
    #[must_use]
    pub fn caused_by(event: &RecordedEvent) -> Self {
        let mut context = Self::of(event);
        let id = event.id.to_string();
        context.correlation_id.get_or_insert_with(|| id.clone());
        context.causation_id = Some(id);
        context
    }

    /// The context in the metadata of an event: empty if there is none, or if the metadata is not
    /// JSON.
    #[must_use]
    pub fn of(event: &RecordedEvent) -> Self {
        event.metadata.decode().unwrap_or_default()
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the causation id.
    #[must_use]
    pub fn with_causation_id(mut self, id: impl Into<String>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// Sets the trace context, as in the HTTP header `traceparent`.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Puts this context into the metadata of an event. An empty context leaves the event as it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) if the context cannot be
    /// written as JSON, which does not happen.
    pub fn attach(&self, event: NewEvent) -> Result<NewEvent> {
        if *self == Self::default() { Ok(event) } else { event.with_json_metadata(self) }
    }
}
