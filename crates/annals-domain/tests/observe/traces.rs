//! The trace of a command, from the append to the handlers of its event.

use std::{collections::BTreeMap, future::Future};

use annals_core::{EventStore, EventStoreExt, ExpectedVersion, RecordedEvent};
use annals_domain::{Context, observe::Observed, trace};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use super::{append, event, id, observed};

/// Runs a program and returns its spans by name.
fn traced(test: impl Future<Output = ()>) -> BTreeMap<String, SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || runtime.block_on(test));
    let spans = exporter.get_finished_spans().unwrap();
    spans.into_iter().map(|span| (span.name.to_string(), span)).collect()
}

/// Appends an event, and returns it as it is read.
async fn command(store: &Observed) -> RecordedEvent {
    let event = Context::new().with_current_trace().attach(event()).unwrap();
    store.append_to("order-1", ExpectedVersion::Any, [event]).await.unwrap();
    store.load_stream(&id("order-1")).await.unwrap().remove(0)
}

#[test]
fn a_handler_is_the_child_of_the_command() {
    let spans = traced(async {
        let event = command(&observed()).instrument(tracing::info_span!("command")).await;
        let context = Context::of(&event);
        // The span around the handler is not the parent.
        let worker = tracing::info_span!("worker").entered();
        let handler = tracing::info_span!("handler");
        trace::link(&handler, &context);
        handler.in_scope(|| {
            // A command that the event leads to continues the trace.
            let next = Context::caused_by(&event).with_current_trace();
            assert_ne!(next.traceparent, context.traceparent);
        });
        drop(worker);
    });
    let (command, handler) = (&spans["command"], &spans["handler"]);
    assert_eq!(handler.parent_span_id, command.span_context.span_id());
    assert!(handler.parent_span_is_remote);
    assert_eq!(handler.span_context.trace_id(), command.span_context.trace_id());
    assert_ne!(spans["worker"].span_context.trace_id(), command.span_context.trace_id());
    assert_eq!(spans["append order"].parent_span_id, command.span_context.span_id());
}

#[test]
fn a_span_that_has_begun_gets_a_link() {
    let spans = traced(async {
        let event = command(&observed()).instrument(tracing::info_span!("command")).await;
        let handler = tracing::info_span!("handler").entered();
        trace::link(&handler, &Context::of(&event));
    });
    let handler = &spans["handler"];
    assert_eq!(handler.parent_span_id, SpanId::INVALID);
    assert_eq!(handler.links.len(), 1);
    assert_eq!(handler.links[0].span_context.span_id(), spans["command"].span_context.span_id());
}

#[test]
fn without_a_trace_a_context_stays_as_it_is() {
    let spans = traced(async {
        let before = Context::new().with_traceparent("something");
        assert_eq!(before.clone().with_current_trace(), before);
        let handler = tracing::info_span!("handler");
        trace::link(&handler, &before);
    });
    assert_eq!(spans["handler"].parent_span_id, SpanId::INVALID);
    // The same without any layer.
    let span = tracing::info_span!("nobody");
    trace::link(&span, &Context::default());
    assert_eq!(span.in_scope(|| Context::default().with_current_trace()), Context::default());
}

#[test]
fn the_fields_reach_opentelemetry_as_what_they_are() {
    let spans = traced(async {
        let store = observed();
        store.append(append("order-1", ExpectedVersion::Any, 0)).await.unwrap_err();
    });
    let span = &spans["append order"];
    assert_eq!(span.span_kind, opentelemetry::trace::SpanKind::Client);
    assert!(matches!(span.status, opentelemetry::trace::Status::Error { .. }));
    let value = |key: &str| &span.attributes.iter().find(|a| a.key.as_str() == key).unwrap().value;
    assert_eq!(*value("messaging.batch.message_count"), opentelemetry::Value::I64(0));
    assert_eq!(value("error.type").as_str(), "invalid_input");
}
