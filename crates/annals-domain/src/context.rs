//! The metadata of events: correlation, causation, trace, and what the application adds.

use std::collections::BTreeMap;

use annals_core::{NewEvent, RecordedEvent, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Where a command comes from. The events that it leads to carry this in their metadata, as JSON: the
/// correlation and causation ids under the names that EventStoreDB uses, the trace context under
/// those of the [W3C](https://www.w3.org/TR/trace-context/), and the application's own
/// [entries](Context::with), such as who sent the command.
///
/// ```
/// # use annals_core::RecordedEvent;
/// use annals_domain::Context;
/// # fn handle(event: &RecordedEvent) {
/// // A new correlation id, for a request from outside:
/// let first = Context::new().with("user", "ada").with("tenant", 7);
/// // The event's correlation id and entries, and the event as the cause:
/// let next = Context::caused_by(event);
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Context {
    /// The id that all events of one business transaction share.
    #[serde(rename = "$correlationId", skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The id of what led to the command, usually of an event.
    #[serde(rename = "$causationId", skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The trace and the span within it, as in the HTTP header `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What tracing systems add to the trace, as in the HTTP header `tracestate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The entries of the application, by their names. An entry with one of the names above is
    /// written only if the field is empty.
    #[serde(flatten)]
    pub entries: BTreeMap<String, Value>,
}

impl Context {
    /// The context of a command that nothing recorded led to: with a new correlation id.
    #[must_use]
    pub fn new() -> Self {
        Self { correlation_id: Some(Uuid::now_v7().to_string()), ..Self::default() }
    }

    /// The context of a command that an event leads to: the event's id is the causation id. The
    /// correlation id, the trace and the application's entries are those of the event; an event
    /// without a correlation id gives its own id instead. Entries whose names begin with `$` are left
    /// out: they are of the event itself, and belong to the tool that wrote it.
    #[must_use]
    pub fn caused_by(event: &RecordedEvent) -> Self {
        let mut context = Self::of(event);
        let id = event.id.to_string();
        context.correlation_id.get_or_insert_with(|| id.clone());
        context.causation_id = Some(id);
        context.entries.retain(|name, _| !name.starts_with('$'));
        context
    }

    /// The context in the metadata of an event, of whatever shape that is: a field whose value is not a
    /// string counts as an entry. Empty if there is no metadata, or if it is not a JSON object.
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

    /// Adds an entry of the application: a text, a number or any JSON value, such as the user, the
    /// tenant or the request that the command is of. Metadata is never encrypted nor forgotten, so use
    /// ids that mean nothing outside the application.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.entries.insert(name.into(), value.into());
        self
    }

    /// The entry with this name, if it is a text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.as_str()
    }

    /// Puts this context into the metadata of an event. An empty context leaves the event as it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) if the context cannot be
    /// written as JSON, which does not happen.
    pub fn attach(&self, event: NewEvent) -> Result<NewEvent> {
        if *self == Self::default() {
            return Ok(event);
        }
        let mut context = self.clone();
        for (name, field) in context.clone().fields() {
            if field.is_some() {
                context.entries.remove(name);
            }
        }
        event.with_json_metadata(&context)
    }

    /// The fields that are no entries, by their names in JSON.
    fn fields(&mut self) -> [(&'static str, &mut Option<String>); 4] {
        [
            ("$correlationId", &mut self.correlation_id),
            ("$causationId", &mut self.causation_id),
            ("traceparent", &mut self.traceparent),
            ("tracestate", &mut self.tracestate),
        ]
    }
}

impl<'de> Deserialize<'de> for Context {
    /// Takes any JSON object.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let mut context = Self::default();
        for (name, field) in context.fields() {
            match entries.remove(name) {
                Some(Value::String(text)) => *field = Some(text),
                Some(other) => _ = entries.insert(name.to_owned(), other),
                None => {}
            }
        }
        Ok(Self { entries, ..context })
    }
}
