//! What events carry besides their data: what they belong to, what caused them, and the trace.

use annals_core::{NewEvent, RecordedEvent, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a command belongs to, kept in the metadata of the events that it leads to, as JSON: the
/// correlation and causation ids under EventStoreDB's names, the trace context under those of the
/// [W3C](https://www.w3.org/TR/trace-context/).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Context {
    /// What all events of one business transaction have in common.
    #[serde(rename = "$correlationId", default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What led to the command: the id of an event, usually.
    #[serde(rename = "$causationId", default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The trace, and the span in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What tracing systems add to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Context {
    /// The beginning of something: a correlation id of its own.
    #[must_use]
    pub fn new() -> Self {
        Self { correlation_id: Some(Uuid::now_v7().to_string()), ..Self::default() }
    }

    /// The context of what an event leads to: the event is the cause. It has the event's
    /// correlation id, or where the event has none, the event's id for one; and its trace.
    #[must_use]
    pub fn caused_by(event: &RecordedEvent) -> Self {
        let mut context = Self::of(event);
        let id = event.id.to_string();
        context.correlation_id.get_or_insert_with(|| id.clone());
        context.causation_id = Some(id);
        context
    }

    /// What an event carries. Metadata that says nothing of it, or is not JSON, carries nothing.
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

    /// Sets the trace context, as in the header `traceparent`.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// An event with this context for its metadata; without any where there is nothing to say.
    ///
    /// # Errors
    /// None that come from outside: serialising it as JSON.
    pub fn attach(&self, event: NewEvent) -> Result<NewEvent> {
        if *self == Self::default() { Ok(event) } else { event.with_json_metadata(self) }
    }
}
