//! The store: every method, inside its span.

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
    Observed, Subject, Watch,
    read::{Read, watched},
    span,
};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventStore for Observed {
    fn capabilities(&self) -> &Capabilities {
        self.store().capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let span = append_span(self.watch, &append);
        let began = Instant::now();
        let result = self.call(span, self.store().append(append)).await;
        let answer = result.as_ref().map(std::slice::from_ref).map_err(drop);
        self.watch.meter.appended(began.elapsed(), answer);
        result
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let span = append_multi_span(self.watch, &appends);
        let began = Instant::now();
        let result = self.call(span, self.store().append_multi(appends)).await;
        let answer = result.as_deref().map_err(drop);
        self.watch.meter.appended(began.elapsed(), answer);
        result
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let subject = Subject::stream(stream);
        let span = span!(self.watch, "read_stream", subject, "db.response.returned_rows" = Empty);
        let events = span.in_scope(|| self.store().read_stream(stream, options));
        Read::new(events, span, self.watch).boxed()
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        let subject = Subject::filter(&options.filter);
        let span = span!(self.watch, "read_all", subject, "db.response.returned_rows" = Empty);
        let events = span.in_scope(|| self.store().read_all(options));
        Read::new(events, span, self.watch).boxed()
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let source = options.source.clone();
        let subject = Subject::source(&source);
        let span = span!(
            self.watch,
            "subscribe",
            subject,
            "messaging.system" = "annals",
            "messaging.operation.name" = "subscribe",
            "messaging.destination.name" = subject.category,
        );
        let subscription = self.call(span, self.store().subscribe(options)).await?;
        Ok(watched(subscription, source, self.watch))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let span = span!(self.watch, "stream_info", Subject::stream(stream));
        self.call(span, self.store().stream_info(stream)).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let span = span!(self.watch, "truncate", Subject::stream(stream));
        self.call(span, self.store().truncate(stream, before)).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let span = span!(self.watch, "delete", Subject::stream(stream));
        self.call(span, self.store().delete(stream, expected)).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let span = span!(self.watch, "tombstone", Subject::stream(stream));
        self.call(span, self.store().tombstone(stream, expected)).await
    }
}

fn append_span(watch: Watch, append: &Append) -> Span {
    let subject = Subject::stream(&append.stream);
    span!(
        watch,
        "append",
        subject,
        "messaging.system" = "annals",
        "messaging.operation.name" = "append",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = subject.category,
        "messaging.batch.message_count" = count(append.events.len()),
    )
}

fn append_multi_span(watch: Watch, appends: &[Append]) -> Span {
    let subject = match appends {
        [] => Subject::default(),
        [append] => Subject::stream(&append.stream),
        [first, others @ ..] => {
            let category = first.stream.category_str();
            let same = others.iter().all(|append| append.stream.category_str() == category);
            Subject { category: category.filter(|_| same), stream: None }
        }
    };
    span!(
        watch,
        "append_multi",
        subject,
        // By the convention one of anything is no batch.
        "db.operation.batch.size" = Some(count(appends.len())).filter(|streams| *streams > 1),
        "messaging.system" = "annals",
        "messaging.operation.name" = "append_multi",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = subject.category,
        "messaging.batch.message_count" = count(appends.iter().map(|a| a.events.len()).sum()),
    )
}

/// Signed, since OpenTelemetry has no other integers.
fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SnapshotStore for Observed {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let span = span!(self.watch, "load_snapshot", Subject::stream(stream));
        self.call(span, self.store().load_snapshot(stream)).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let span = span!(self.watch, "save_snapshot", Subject::stream(stream));
        self.call(span, self.store().save_snapshot(stream, snapshot)).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let span = span!(self.watch, "delete_snapshot", Subject::stream(stream));
        self.call(span, self.store().delete_snapshot(stream)).await
    }
}

/// The span of a call about a subscriber or a lease.
macro_rules! name_span {
    ($watch:expr, $operation:literal, $key:literal = $name:expr) => {
        span!($watch, $operation, Subject::default(), $key = $name.as_str())
    };
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CheckpointStore for Observed {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let span = name_span!(self.watch, "load_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().load_checkpoint(subscriber)).await
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let span = name_span!(self.watch, "save_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().save_checkpoint(subscriber, position)).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let span = name_span!(self.watch, "reset_checkpoint", "annals.subscriber" = subscriber);
        self.call(span, self.store().reset_checkpoint(subscriber, position)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LeaseStore for Observed {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let span = name_span!(self.watch, "load_lease", "annals.lease" = name);
        self.call(span, self.store().load_lease(name)).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let span = name_span!(self.watch, "swap_lease", "annals.lease" = name);
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
        let span = span!(self.watch, "list_streams", Subject::default());
        self.call(span, self.store().list_streams(after, limit)).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        let span = span!(
            self.watch,
            "import",
            Subject::default(),
            "messaging.batch.message_count" = count(events.len()),
        );
        self.call(span, self.store().import(events)).await
    }
}
