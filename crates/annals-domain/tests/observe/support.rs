//! A subscriber that records spans, and a store that fails.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseStore, ReadAll, ReadStream, Result, SnapshotStore, StreamId, StreamInfo,
    Subscribe, Subscription, TransferStore, Version,
};
use futures::{StreamExt, stream};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// The fields of a span as text. The name of the span is the field `name`.
pub(crate) type Fields = BTreeMap<String, String>;

#[derive(Default)]
struct Seen {
    spans: Vec<(Id, Fields)>,
    closed: Vec<String>,
    events: usize,
}

/// The recorded spans.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Seen>>);

impl Spans {
    /// All spans, in the order in which they began.
    pub(crate) fn all(&self) -> Vec<Fields> {
        self.0.lock().unwrap().spans.iter().map(|(_, fields)| fields.clone()).collect()
    }

    /// The only span with this name.
    pub(crate) fn only(&self, name: &str) -> Fields {
        let mut spans = self.all();
        spans.retain(|span| span["name"] == name);
        assert_eq!(spans.len(), 1, "{name}: {spans:?}");
        spans.remove(0)
    }

    /// The names of the spans, in the order in which they ended.
    pub(crate) fn closed(&self) -> Vec<String> {
        self.0.lock().unwrap().closed.clone()
    }

    pub(crate) fn events(&self) -> usize {
        self.0.lock().unwrap().events
    }
}

pub(crate) struct Recording(pub(crate) Spans);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recording {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        fields.insert("name".to_owned(), attributes.metadata().name().to_owned());
        attributes.record(&mut Text(&mut fields));
        self.0.0.lock().unwrap().spans.push((id.clone(), fields));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Context<'_, S>) {
        let mut seen = self.0.0.lock().unwrap();
        // Take the last span with this id, since ids are reused.
        let (_, fields) = seen.spans.iter_mut().rfind(|(other, _)| other == id).unwrap();
        record.record(&mut Text(fields));
    }

    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.0.lock().unwrap().events += 1;
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let name = context.span(&id).unwrap().name().to_owned();
        self.0.0.lock().unwrap().closed.push(name);
    }
}

struct Text<'a>(&'a mut Fields);

impl Visit for Text<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

/// A store whose reads and subscriptions fail half-way, and whose other methods refuse.
#[derive(Debug)]
pub(crate) struct Failing {
    capabilities: Capabilities,
    says: &'static str,
}

impl Failing {
    pub(crate) fn saying(says: &'static str) -> Self {
        Self { capabilities: Capabilities::new("failing"), says }
    }

    fn refusal<T>(&self) -> Result<T> {
        Err(Error::unsupported(self.says))
    }
}

#[async_trait::async_trait]
impl EventStore for Failing {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, _: Append) -> Result<Appended> {
        self.refusal()
    }

    async fn append_multi(&self, _: Vec<Append>) -> Result<Vec<Appended>> {
        self.refusal()
    }

    fn read_stream(&self, _: &StreamId, _: ReadStream) -> EventStream {
        stream::iter([Err(Error::new(ErrorKind::Corrupt, self.says))]).boxed()
    }

    fn read_all(&self, _: ReadAll) -> EventStream {
        stream::iter([Err(Error::new(ErrorKind::Corrupt, self.says))]).boxed()
    }

    async fn subscribe(&self, _: Subscribe) -> Result<Subscription> {
        let error = Error::new(ErrorKind::Unavailable, self.says);
        Ok(Subscription::new(stream::iter([Err(error)])))
    }

    async fn stream_info(&self, _: &StreamId) -> Result<StreamInfo> {
        self.refusal()
    }

    async fn truncate(&self, _: &StreamId, _: Version) -> Result<()> {
        self.refusal()
    }

    async fn delete(&self, _: &StreamId, _: ExpectedVersion) -> Result<()> {
        self.refusal()
    }

    async fn tombstone(&self, _: &StreamId, _: ExpectedVersion) -> Result<()> {
        self.refusal()
    }
}

impl SnapshotStore for Failing {}
impl CheckpointStore for Failing {}
impl LeaseStore for Failing {}
impl TransferStore for Failing {}
