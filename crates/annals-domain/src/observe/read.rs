//! Reads and subscriptions whose events are counted.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use annals_core::{EventStream, Message, RecordedEvent, Result, Source, Subscription};
use futures::{Stream, StreamExt};
use metrics::Counter;
use tracing::Span;

use super::{Reporter, Target, span};

/// A stream of events whose span ends when the stream ends.
pub(super) struct ObservedRead {
    events: EventStream,
    span: Span,
    reporter: Reporter,
    events_read: Counter,
    count: i64,
}

impl ObservedRead {
    pub(super) fn new(events: EventStream, span: Span, reporter: Reporter) -> Self {
        Self { events, span, reporter, events_read: reporter.meter.events_read(), count: 0 }
    }

    /// Closes the span. Otherwise it would last until the caller drops the stream.
    fn end_span(&mut self) {
        let span = std::mem::replace(&mut self.span, Span::none());
        span.record("db.response.returned_rows", self.count);
    }
}

impl Stream for ObservedRead {
    type Item = Result<RecordedEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = {
            // Spans of the driver become children of this span.
            let _entered = this.span.enter();
            ready!(this.events.poll_next_unpin(cx))
        };
        match &next {
            Some(Ok(_)) => {
                this.events_read.increment(1);
                this.count = this.count.saturating_add(1);
            }
            Some(Err(error)) => {
                this.reporter.failed(&this.span, error);
                this.end_span();
            }
            None => this.end_span(),
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl Drop for ObservedRead {
    fn drop(&mut self) {
        self.end_span();
    }
}

/// Counts the events of a subscription. The subscription has no span of its own, since it may run
/// for days, and its trace would be complete only after that.
pub(super) fn observed_subscription(
    subscription: Subscription,
    source: Source,
    reporter: Reporter,
) -> Subscription {
    let events_read = reporter.meter.events_read();
    Subscription::new(subscription.inspect(move |message| match message {
        Ok(Message::Event(_)) => events_read.increment(1),
        Ok(_) => {}
        Err(error) => {
            let target = Target::source(&source);
            let span = span!(
                reporter,
                "receive",
                target,
                "messaging.system" = "annals",
                "messaging.operation.name" = "receive",
                "messaging.operation.type" = "receive",
                "messaging.destination.name" = target.category,
            );
            reporter.failed(&span, error);
        }
    }))
}
