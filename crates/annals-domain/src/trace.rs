//! Traces of OpenTelemetry: events carry the trace of their command to their handlers, in the format
//! of the [W3C](https://www.w3.org/TR/trace-context/).
//!
//! ```
//! # use annals_core::{NewEvent, RecordedEvent, Result};
//! # use annals_domain::{Context, trace};
//! # fn write(event: NewEvent) -> Result<NewEvent> {
//! let event = Context::new().with_current_trace().attach(event)?;
//! # Ok(event) }
//! # fn handle(event: &RecordedEvent) {
//! let span = tracing::info_span!("handle", otel.kind = "consumer");
//! trace::link(&span, &Context::of(event));
//! let _entered = span.enter();
//! # }
//! ```

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::Context;

impl Context {
    /// Sets the trace context to that of the current span. Changes nothing if there is no current
    /// span, or if the layer of `tracing-opentelemetry` is not installed.
    #[must_use]
    pub fn with_current_trace(mut self) -> Self {
        let current = Span::current().context();
        let current = current.span();
        let current = current.span_context();
        if current.is_valid() {
            self.traceparent = Some(traceparent(current));
            self.tracestate =
                Some(current.trace_state().header()).filter(|state| !state.is_empty());
        }
        self
    }
}

/// Makes a span a child of the span in a [`Context`], and so a part of the same trace. Call this
/// before the span is entered: a span that was entered keeps its own parent, and gets a link to the
/// span in the context instead. A context without a valid trace changes nothing.
pub fn link(span: &Span, context: &Context) {
    let Some(remote) = remote(context) else { return };
    let parent = opentelemetry::Context::new().with_remote_span_context(remote.clone());
    if span.set_parent(parent).is_err() {
        span.add_link(remote);
    }
}

fn traceparent(span: &SpanContext) -> String {
    // Version 00 of the format has only this flag.
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id())
}

fn remote(context: &Context) -> Option<SpanContext> {
    let (trace, span, flags) = parse(context.traceparent.as_deref()?)?;
    // By the W3C's rules, a `tracestate` that cannot be read does not make `traceparent` invalid.
    let state = context.tracestate.as_deref().and_then(|state| state.parse::<TraceState>().ok());
    let remote = SpanContext::new(trace, span, flags, true, state.unwrap_or_default());
    remote.is_valid().then_some(remote)
}

fn parse(traceparent: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = traceparent.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace = TraceId::from_hex(hex(parts.next()?, 32)?).ok()?;
    let span = SpanId::from_hex(hex(parts.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
    // Later versions begin with the same four parts and may have more. Version ff is forbidden.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    Some((trace, span, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

fn hex(part: &str, length: usize) -> Option<&str> {
    let digits = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && part.len() == length).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(traceparent: &str) -> Option<SpanContext> {
        remote(&Context::default().with_traceparent(traceparent))
    }

    #[test]
    fn reads_what_it_writes() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let span = read(&text).unwrap();
            assert!(span.is_remote());
            assert_eq!(span.is_sampled(), flags == "01");
            assert_eq!(traceparent(&span), text);
        }
    }

    #[test]
    fn reads_later_versions_and_flags() {
        let span = read(&format!("cc-{TRACE}-{SPAN}-03-what-will-be")).unwrap();
        assert_eq!(traceparent(&span), format!("00-{TRACE}-{SPAN}-01"));
    }

    #[test]
    fn refuses_what_is_none() {
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for text in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{no_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{no_span}-01"),
            format!("00-{TRACE}é-{SPAN}-01"),
            format!("+0-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(read(&text), None, "{text}");
        }
    }

    #[test]
    fn a_broken_state_does_not_take_the_trace_with_it() {
        let mut context = Context::default().with_traceparent(format!("00-{TRACE}-{SPAN}-01"));
        context.tracestate = Some("vendor=1, other=2".to_owned());
        assert_eq!(remote(&context).unwrap().trace_state().get("other"), Some("2"));
        context.tracestate = Some("no pairs".to_owned());
        assert_eq!(remote(&context).unwrap().trace_state(), &TraceState::NONE);
    }
}
