//! The methods of a store, each inside its span.

use std::time::Instant;

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, EventStore, EventStream, ExpectedVersion,
    LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream, RecordedEvent, Result,
    Snapshot, SnapshotStore, StreamId, StreamInfo, Subscribe, SubscriberId, Subscription,
    TransferStore, Version,
};
use async_trait::async_trait;
use futures::StreamExt;
use tracing::{Span, field::Empty};

use super::{
    Observed, Reporter, Target,
    read::{ObservedRead, observed_subscription},
    span,
};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventStore for Observed {
    fn capabilities(&self) -> &Capabilities {
        self.store().capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let span = append_span(self.reporter, &append);
        let began = Instant::now();
        let result = self.call(span, self.store().append(append)).await;
        let answer = result.as_ref().map(std::slice::from_ref).map_err(drop);
        self.reporter.meter.appended(began.elapsed(), answer);
        result
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let span = append_multi_span(self.reporter, &appends);
        let began = Instant::now();
        let result = self.call(span, self.store().append_multi(appends)).await;
        let answer = result.as_deref().map_err(drop);
        self.reporter.meter.appended(began.elapsed(), answer);
        result
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let target = Target::stream(stream);
        let span = span!(self.reporter, "read_stream", target, "db.response.returned_rows" = Empty);
        let events = span.in_scope(|| self.store().read_stream(stream, options));
        ObservedRead::new(events, span, self.reporter).boxed()
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        let target = Target::filter(&options.filter);
        let span = span!(self.reporter, "read_all", target, "db.response.returned_rows" = Empty);
        let events = span.in_scope(|| self.store().read_all(options));
        ObservedRead::new(events, span, self.reporter).boxed()
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let source = options.source.clone();
        let target = Target::source(&source);
        let span = span!(
            self.reporter,
            "subscribe",
            target,
            "messaging.system" = "annals",
            "messaging.operation.name" = "subscribe",
            "messaging.destination.name" = target.category,
        );
        let subscription = self.call(span, self.store().subscribe(options)).await?;
        Ok(observed_subscription(subscription, source, self.reporter))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let span = span!(self.reporter, "stream_info", Target::stream(stream));
        self.call(span, self.store().stream_info(stream)).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let span = span!(self.reporter, "truncate", Target::stream(stream));
        self.call(span, self.store().truncate(stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let span = span!(self.reporter, "delete", Target::stream(stream));
        self.call(span, self.store().delete(stream, expected)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let span = span!(self.reporter, "tombstone", Target::stream(stream));
        self.call(span, self.store().tombstone(stream, expected)).await
    }
}

fn append_span(reporter: Reporter, append: &Append) -> Span {
    let target = Target::stream(&append.stream);
    span!(
        reporter,
        "append",
        target,
        "messaging.system" = "annals",
        "messaging.operation.name" = "append",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = target.category,
        "messaging.batch.message_count" = count(append.events.len()),
    )
}

fn append_multi_span(reporter: Reporter, appends: &[Append]) -> Span {
    let target = match appends {
        [] => Target::default(),
        [append] => Target::stream(&append.stream),
        [first, others @ ..] => {
            let category = first.stream.category_str();
            let same = others.iter().all(|append| append.stream.category_str() == category);
            Target { category: category.filter(|_| same), stream: None }
        }
    };
    span!(
        reporter,
        "append_multi",
        target,
        // By the conventions, a batch has at least two operations.
        "db.operation.batch.size" = Some(count(appends.len())).filter(|streams| *streams > 1),
        "messaging.system" = "annals",
        "messaging.operation.name" = "append_multi",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = target.category,
        "messaging.batch.message_count" = count(appends.iter().map(|a| a.events.len()).sum()),
    )
}

/// A count as a signed integer, the only kind that OpenTelemetry has.
fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SnapshotStore for Observed {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let span = span!(self.reporter, "load_snapshot", Target::stream(stream));
        self.call(span, self.store().load_snapshot(stream)).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let span = span!(self.reporter, "save_snapshot", Target::stream(stream));
        self.call(span, self.store().save_snapshot(stream, snapshot)).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let span = span!(self.reporter, "delete_snapshot", Target::stream(stream));
        self.call(span, self.store().delete_snapshot(stream)).await
    }
}

/// The span of a call about a subscriber or a lease.
macro_rules! name_span {
    ($reporter:expr, $operation:literal, $key:literal = $name:expr) => {
        span!($reporter, $operation, Target::default(), $key = $name.as_str())
    };
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CheckpointStore for Observed {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let span = name_span!(self.reporter, "load_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().load_checkpoint(subscriber)).await
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let span = name_span!(self.reporter, "save_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().save_checkpoint(subscriber, position)).await
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        position: Position,
    ) -> Result<bool> {
        let span = name_span!(self.reporter, "swap_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().swap_checkpoint(subscriber, expected, position)).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let span = name_span!(self.reporter, "reset_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().reset_checkpoint(subscriber, position)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LeaseStore for Observed {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let span = name_span!(self.reporter, "load_lease", "annals.lease" = name);
        self.call(span, self.store().load_lease(name)).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let span = name_span!(self.reporter, "swap_lease", "annals.lease" = name);
        self.call(span, self.store().swap_lease(name, record)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TransferStore for Observed {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let span = span!(self.reporter, "list_streams", Target::default());
        self.call(span, self.store().list_streams(after, limit)).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        let span = span!(
            self.reporter,
            "import",
            Target::default(),
            "messaging.batch.message_count" = count(events.len()),
        );
        self.call(span, self.store().import(events)).await
    }
}
