//! Streams of events, counted as they come.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use annals_core::{EventStream, Message, RecordedEvent, Result, Source, Subscription};
use futures::{Stream, StreamExt};
use metrics::Counter;
use tracing::Span;

use super::{Subject, Watch, span};

/// A read. Its span ends with it.
pub(super) struct Read {
    events: EventStream,
    span: Span,
    watch: Watch,
    read: Counter,
    count: i64,
}

impl Read {
    pub(super) fn new(events: EventStream, span: Span, watch: Watch) -> Self {
        Self { events, span, watch, read: watch.meter.events_read(), count: 0 }
    }

    /// Closes the span, which would else last as long as whoever keeps the stream.
    fn end(&mut self) {
        let span = std::mem::replace(&mut self.span, Span::none());
        span.record("db.response.returned_rows", self.count);
    }
}

impl Stream for Read {
    type Item = Result<RecordedEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = {
            // What the driver does is part of the call.
            let _entered = this.span.enter();
            ready!(this.events.poll_next_unpin(cx))
        };
        match &next {
            Some(Ok(_)) => {
                this.read.increment(1);
                this.count = this.count.saturating_add(1);
            }
            Some(Err(error)) => {
                this.watch.failed(&this.span, error);
                this.end();
            }
            None => this.end(),
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.end();
    }
}

/// A subscription. It has no span of its own: a trace of one that runs for days would never end.
pub(super) fn watched(subscription: Subscription, source: Source, watch: Watch) -> Subscription {
    let read = watch.meter.events_read();
    Subscription::new(subscription.inspect(move |message| match message {
        Ok(Message::Event(_)) => read.increment(1),
        Ok(_) => {}
        Err(error) => {
            let subject = Subject::source(&source);
            let span = span!(
                watch,
                "receive",
                subject,
                "messaging.system" = "annals",
                "messaging.operation.name" = "receive",
                "messaging.operation.type" = "receive",
                "messaging.destination.name" = subject.category,
            );
            watch.failed(&span, error);
        }
    }))
}
