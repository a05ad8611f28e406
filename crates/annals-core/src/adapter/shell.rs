//! Every [`Adapter`] is a store: what is done around its methods.

use async_trait::async_trait;

use super::{
    Adapter, CheckpointSwap, Page, Pages, Tail, check_append, check_checkpoint, check_import,
    check_snapshot, check_subscribe, check_writable, failed_read,
    place::{FromPlace, check_position, check_start},
    read, subscribe,
};
use crate::{
    Append, Appended, Capabilities, CheckpointStore, Error, ErrorKind, EventStore, EventStream,
    ExpectedVersion, LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream,
    RecordedEvent, Result, Snapshot, SnapshotStore, Source, Start, StreamId, StreamInfo, Subscribe,
    SubscriberId, Subscription, TransferStore, Version,
    since::{position_before, version_before},
};

/// For calls that an adapter adds to those of a store: adds backend and operation to an error.
pub fn context(backend: &'static str, operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend(backend).with_operation(operation)
}

/// Which call an error belongs to.
#[derive(Debug)]
struct Call<'a> {
    capabilities: &'a Capabilities,
    operation: &'static str,
    stream: Option<&'a StreamId>,
}

impl<'a> Call<'a> {
    fn new(adapter: &'a impl Adapter, operation: &'static str) -> Self {
        Self { capabilities: Adapter::capabilities(adapter), operation, stream: None }
    }

    fn of(mut self, stream: &'a StreamId) -> Self {
        self.stream = Some(stream);
        self
    }

    /// Refuses the call unless the store declares what it needs.
    fn needs(&self, declared: impl FnOnce(&Capabilities) -> bool, what: &str) -> Result<()> {
        match declared(self.capabilities) {
            true => Ok(()),
            false => self.answer(Err(Error::unsupported(what))),
        }
    }

    fn answer<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| self.error(error))
    }

    fn error(&self, error: Error) -> Error {
        name(error, self.capabilities.backend, self.operation, self.stream)
    }

    /// Pages whose errors belong to this call.
    fn pages<P>(&self, pages: P) -> Named<P> {
        let Self { capabilities: Capabilities { backend, .. }, operation, stream } = self;
        Named { pages, backend, operation, stream: stream.cloned() }
    }
}

/// Adds to an error which call it belongs to.
fn name(
    error: Error,
    backend: &'static str,
    operation: &'static str,
    stream: Option<&StreamId>,
) -> Error {
    let error = context(backend, operation)(error);
    match stream {
        Some(stream) => error.with_stream(stream),
        None => error,
    }
}

/// Pages that outlive the call whose errors they have.
struct Named<P> {
    pages: P,
    backend: &'static str,
    operation: &'static str,
    stream: Option<StreamId>,
}

impl<P> Named<P> {
    fn answer<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| name(error, self.backend, self.operation, self.stream.as_ref()))
    }
}

#[async_trait]
impl<P: Pages> Pages for Named<P> {
    async fn next_page(&mut self) -> Result<Page> {
        let page = self.pages.next_page().await;
        self.answer(page)
    }
}

#[async_trait]
impl<P: Tail> Tail for Named<P> {
    async fn changed(&mut self) -> Result<()> {
        let changed = self.pages.changed().await;
        self.answer(changed)
    }
}

#[async_trait]
impl<A: Adapter> EventStore for A {
    fn capabilities(&self) -> &Capabilities {
        Adapter::capabilities(self)
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let stream = append.stream.clone();
        let call = Call::new(self, "append").of(&stream);
        let appends = vec![append];
        call.answer(check_append(&appends, call.capabilities))?;
        let answers = call.answer(Adapter::append(self, appends).await)?;
        let missing = || Error::new(ErrorKind::Internal, "the append has no answer");
        call.answer(answers.first().copied().ok_or_else(missing))
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let call = Call::new(self, "append_multi");
        call.needs(|c| c.multi_stream_append, "multi-stream append")?;
        call.answer(check_append(&appends, call.capabilities))?;
        call.answer(Adapter::append(self, appends).await)
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let call = Call::new(self, "read_stream").of(stream);
        read(call.pages(self.stream_pages(stream.clone(), options)))
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        let call = Call::new(self, "read_all");
        if !call.capabilities.global_order {
            return failed_read(call.error(self.without_order()));
        }
        let (from, direction) = (options.from, options.direction);
        let pages = self.all_pages(options);
        read(call.pages(FromPlace::new(self.clone(), pages, from, direction)))
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let call = Call::new(self, "subscribe");
        let checked = check_subscribe(&options, call.capabilities).map_err(|error| {
            // Nothing else is refused with this kind.
            if error.kind() == ErrorKind::Unsupported { self.without_order() } else { error }
        });
        let Subscribe { source, start } = options;
        match source {
            Source::All(filter) => {
                call.answer(checked)?;
                let after = match start {
                    Start::Beginning | Start::AfterVersion(_) => Position::START,
                    Start::At(time) => call.answer(position_before(self, time).await)?,
                    Start::After(position) => {
                        call.answer(check_position(self, position).await)?;
                        position
                    }
                    Start::End => call.answer(self.last_position().await)?,
                };
                Ok(subscribe(call.pages(self.follow_all(filter, after)), after))
            }
            Source::Stream(stream) => {
                let call = call.of(&stream);
                call.answer(checked)?;
                let start = match start {
                    Start::At(time) => {
                        let version = version_before(self, &stream, time).await;
                        Start::AfterVersion(call.answer(version)?)
                    }
                    start => start,
                };
                call.answer(check_start(self, &stream, start).await)?;
                let (after, at) = call.answer(self.start_in(&stream, start).await)?;
                Ok(subscribe(call.pages(self.follow_stream(stream.clone(), after, at)), at))
            }
        }
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let call = Call::new(self, "stream_info").of(stream);
        call.answer(Adapter::stream_info(self, stream).await)
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        let call = Call::new(self, "truncate").of(stream);
        call.needs(|c| c.truncate, "truncation")?;
        call.answer(check_writable(stream))?;
        call.answer(Adapter::truncate(self, stream, before).await)
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let call = Call::new(self, "delete").of(stream);
        call.needs(|c| c.delete, "deletion")?;
        call.answer(check_writable(stream))?;
        call.answer(Adapter::delete(self, stream, expected).await)
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let call = Call::new(self, "tombstone").of(stream);
        call.needs(|c| c.tombstone, "tombstones")?;
        call.answer(check_writable(stream))?;
        call.answer(Adapter::tombstone(self, stream, expected).await)
    }
}

const SNAPSHOTS: &str = "snapshots";
const CHECKPOINTS: &str = "checkpoints";
const LEASES: &str = "leases";

#[async_trait]
impl<A: Adapter> SnapshotStore for A {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let call = Call::new(self, "load_snapshot").of(stream);
        call.needs(|c| c.snapshots, SNAPSHOTS)?;
        call.answer(Adapter::load_snapshot(self, stream).await)
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        let call = Call::new(self, "save_snapshot").of(stream);
        call.needs(|c| c.snapshots, SNAPSHOTS)?;
        call.answer(check_snapshot(&snapshot, call.capabilities))?;
        call.answer(Adapter::save_snapshot(self, stream, snapshot).await)
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let call = Call::new(self, "delete_snapshot").of(stream);
        call.needs(|c| c.snapshots, SNAPSHOTS)?;
        call.answer(Adapter::delete_snapshot(self, stream).await)
    }
}

#[async_trait]
impl<A: Adapter> CheckpointStore for A {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let call = Call::new(self, "load_checkpoint");
        call.needs(|c| c.checkpoints, CHECKPOINTS)?;
        call.answer(Adapter::load_checkpoint(self, subscriber).await)
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let call = Call::new(self, "save_checkpoint");
        call.needs(|c| c.checkpoints, CHECKPOINTS)?;
        call.answer(check_checkpoint(position))?;
        call.answer(Adapter::save_checkpoint(self, subscriber, position).await)
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        position: Position,
    ) -> Result<bool> {
        let call = Call::new(self, "swap_checkpoint");
        let swap = CheckpointSwap::new(expected, position);
        call.needs(|c| c.checkpoints, CHECKPOINTS)?;
        call.answer(check_checkpoint(position.max(expected.unwrap_or_default())))?;
        call.answer(Adapter::swap_checkpoint(self, subscriber, swap).await)
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let call = Call::new(self, "reset_checkpoint");
        call.needs(|c| c.checkpoints, CHECKPOINTS)?;
        call.answer(check_checkpoint(position.unwrap_or_default()))?;
        call.answer(Adapter::reset_checkpoint(self, subscriber, position).await)
    }
}

#[async_trait]
impl<A: Adapter> LeaseStore for A {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let call = Call::new(self, "load_lease");
        call.needs(|c| c.leases, LEASES)?;
        call.answer(Adapter::load_lease(self, name).await)
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let call = Call::new(self, "swap_lease");
        call.needs(|c| c.leases, LEASES)?;
        call.answer(Adapter::swap_lease(self, name, record).await)
    }
}

#[async_trait]
impl<A: Adapter> TransferStore for A {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let call = Call::new(self, "list_streams");
        call.needs(|c| c.list_streams, "list of streams")?;
        call.answer(Adapter::list_streams(self, after, limit).await)
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        let call = Call::new(self, "import");
        call.answer(check_import(&events, call.capabilities))?;
        call.answer(Adapter::import(self, events).await)
    }
}
