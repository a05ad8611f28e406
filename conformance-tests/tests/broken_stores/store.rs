//! A handle to a simulated server. It is correct but for its bug.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use annals_conformance::CORRUPT_EVENT;
use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Direction, Error, ErrorKind, EventStore,
    EventStoreExt, EventStream, ExpectedVersion, Filter, NewEvent, Payload, Position, ReadAll,
    ReadStream, RecordedEvent, Result, StreamId, StreamInfo, Subscribe, SubscriberId, Subscription,
    Version, adapter,
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use chrono::SubsecRound;
use futures::{FutureExt, StreamExt, TryStreamExt, future, stream};
use tokio::task::yield_now;
use uuid::Uuid;

use crate::{bug::Bug, server::Server, subscription};

pub(crate) fn capabilities(bug: Option<Bug>) -> Capabilities {
    let mut capabilities = MemoryStore::new().capabilities().clone();
    // The suite calls a store durable if its events outlive its handles.
    capabilities.durable = true;
    match bug {
        Some(Bug::TakesTooLargeEvents) => capabilities.max_event_bytes = 1_000,
        Some(Bug::DeclaresTooMuch) => capabilities.max_event_bytes += 1,
        Some(Bug::TakesTooManyStreams) => capabilities.max_append_streams = 50,
        Some(Bug::DeclaresTooManyStreams) => capabilities.max_append_streams += 1,
        Some(Bug::MultiIsUndeclared) => capabilities.multi_stream_append = false,
        _ => {}
    }
    capabilities
}

#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) server: Arc<Server>,
    pub(crate) bug: Option<Bug>,
    pub(crate) number: u64,
    pub(crate) capabilities: Capabilities,
    /// The greatest position that this handle has seen, for a bug.
    pub(crate) own_end: Arc<AtomicU64>,
}

impl Handle {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn store(&self) -> &MemoryStore {
        &self.server.store
    }

    /// The id under which the server keeps a stream.
    pub(crate) fn inner_id(&self, id: &StreamId) -> StreamId {
        let text = match self.bug {
            Some(Bug::FoldsCase) => id.as_str().to_lowercase(),
            Some(Bug::TrimsIds) => id.as_str().trim().to_owned(),
            Some(Bug::WritesSystemStreams) => id.as_str().replace('$', "S"),
            Some(Bug::NumberingRestarts) => match self.server.generations.lock().unwrap().get(id) {
                Some(generation) => format!("{id}~{generation}"),
                None => return id.clone(),
            },
            _ => return id.clone(),
        };
        StreamId::new(text).unwrap_or_else(|_| id.clone())
    }

    /// The event that a reader gets for a stored one, or an error if it is corrupt.
    pub(crate) fn shape(&self, mut event: RecordedEvent) -> Result<RecordedEvent> {
        match self.bug {
            Some(Bug::RewritesJson) => {
                if let Ok(value) = event.data.decode::<serde_json::Value>() {
                    event.data = Payload::from_stored(event.data.kind(), value.to_string());
                }
            }
            Some(Bug::GuessesTheKind) => event.data = Payload::inferred(event.data.bytes().clone()),
            Some(Bug::DropsBinaryMetadata)
                if event.metadata.kind() == annals_core::ContentKind::Binary =>
            {
                event.metadata = Payload::empty();
            }
            Some(Bug::KeepsMilliseconds) => event.recorded_at = event.recorded_at.trunc_subsecs(3),
            Some(Bug::NumberingRestarts) => {
                if let Some((id, _)) = event.stream.as_str().split_once('~') {
                    event.stream = StreamId::new(id)?;
                }
            }
            _ => {}
        }
        event.position = self.shape_position(event.position);
        event.version = self.shape_version(&event.stream, event.version);
        self.own_end.fetch_max(event.position.get(), Ordering::SeqCst);
        let place = (event.stream.as_str(), event.version.get());
        if place == CORRUPT_EVENT && self.server.corrupt.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Corrupt, "the stored event cannot be decoded"));
        }
        Ok(event)
    }

    fn shape_position(&self, position: Position) -> Position {
        match self.bug {
            Some(Bug::SwapsPositions) => Position::new(position.get() ^ 1),
            Some(Bug::ReusesPositions) => {
                position.minus(self.server.removed.load(Ordering::SeqCst))
            }
            Some(Bug::ForgetsPositionsWhenClosed) => {
                let reused = self.server.reused.lock().unwrap();
                let reused = reused.iter().filter(|(after, _)| position > *after);
                position.minus(reused.map(|(_, count)| count).sum())
            }
            _ => position,
        }
    }

    /// The events of a read, whose errors belong to this operation.
    fn shape_read(
        &self,
        events: EventStream,
        operation: &'static str,
        stream: Option<&StreamId>,
    ) -> EventStream {
        let (handle, stream) = (self.clone(), stream.cloned());
        let context = move |error| match &stream {
            Some(stream) => handle.context(operation)(error).with_stream(stream),
            None => handle.context(operation)(error),
        };
        let handle = self.clone();
        let events =
            events.map(move |event| event.and_then(|event| handle.shape(event)).map_err(&context));
        let is_corrupt = |event: &Result<RecordedEvent>| {
            event.as_ref().is_err_and(|e| e.kind() == ErrorKind::Corrupt)
        };
        match self.bug {
            Some(Bug::CorruptIsTheEnd) => {
                events.take_while(move |event| future::ready(!is_corrupt(event))).boxed()
            }
            Some(Bug::CorruptIsSkipped) => {
                events.filter(move |event| future::ready(!is_corrupt(event))).boxed()
            }
            // The read ends after an error.
            _ => events
                .scan(false, |failed, event| {
                    let item = if *failed { None } else { Some(event) };
                    *failed = item.as_ref().is_some_and(Result::is_err);
                    future::ready(item)
                })
                .boxed(),
        }
    }

    pub(crate) async fn version(&self, stream: &StreamId) -> Version {
        self.store().stream_info(stream).await.map_or(Version::NONE, |info| info.version)
    }

    pub(crate) async fn holds(&self, append: &Append) -> bool {
        let Ok(info) = self.store().stream_info(&append.stream).await else { return false };
        match append.expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::StreamExists => info.exists(),
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => !info.exists(),
            ExpectedVersion::Exact(version) => info.version == version,
        }
    }

    /// An answer to an append that was not written.
    pub(crate) async fn made_up(
        &self,
        append: &Append,
        base: Version,
        replayed: bool,
    ) -> Result<Appended> {
        let position = self.store().last_position().await?;
        Appended::after(base, append.count(), position, replayed)
    }

    async fn write(&self, mut append: Append) -> Result<Appended> {
        let store = self.store();
        append.stream = self.inner_id(&append.stream);
        self.cut_types(&mut append);
        let (expected, count) = (append.expected, append.count());
        let is_loose = matches!(expected, ExpectedVersion::Any | ExpectedVersion::StreamExists);
        let any = |append: &Append| {
            Append::new(append.stream.clone(), ExpectedVersion::Any, append.events.clone())
        };
        match self.bug {
            Some(Bug::WritesInHalves) if count > 1 => {
                let mut first = append.clone();
                let second = first.events.split_off(first.events.len() / 2);
                let mut answer = store.append(first).await?;
                yield_now().await;
                let second = Append::new(append.stream, ExpectedVersion::Any, second);
                let last = store.append(second).await?;
                (answer.last_version, answer.position) = (last.last_version, last.position);
                Ok(answer)
            }
            Some(Bug::DroppedAppendsAreHalf) if count > 1 => {
                let mut answer = None;
                for event in append.events {
                    let expected = if answer.is_none() { expected } else { ExpectedVersion::Any };
                    let one = Append::new(append.stream.clone(), expected, [event]);
                    let last = store.append(one).await?;
                    let first_version =
                        answer.map_or(last.first_version, |a: Appended| a.first_version);
                    answer = Some(last);
                    answer.as_mut().unwrap().first_version = first_version;
                    yield_now().await;
                }
                Ok(answer.unwrap())
            }
            Some(Bug::DroppedAppendsBlock) => {
                self.server.lock.acquire().await.unwrap().forget();
                yield_now().await;
                let answer = store.append(append).await;
                self.server.lock.add_permits(1);
                answer
            }
            Some(Bug::OpenReadsBlock) => {
                let _permit = self.server.lock.acquire().await.unwrap();
                store.append(append).await
            }
            Some(Bug::LocksTheWholeStore) => match self.server.lock.try_acquire() {
                Ok(_permit) => {
                    yield_now().await;
                    store.append(append).await
                }
                Err(_) => Err(Error::new(ErrorKind::Busy, "database is locked")),
            },
            Some(Bug::ReordersABatch) => {
                append.events.reverse();
                store.append(append).await
            }
            Some(Bug::WritesBeforeItChecks) if !self.holds(&append).await => {
                let answer = store.append(append.clone()).await;
                if answer.is_err() {
                    store.append(any(&append)).await?;
                }
                answer
            }
            Some(Bug::ChecksNothing) => store.append(any(&append)).await,
            Some(Bug::ChecksTooEarly) if self.holds(&append).await => {
                yield_now().await;
                store.append(any(&append)).await
            }
            Some(Bug::LosesUpdates) => {
                yield_now().await;
                let answer = store.append(append.clone()).await;
                let base = self.version(&append.stream).await.minus(count);
                if answer.is_ok() { answer } else { self.made_up(&append, base, false).await }
            }
            Some(Bug::ExactZeroNeverHolds) if expected == ExpectedVersion::Exact(Version::NONE) => {
                let actual = self.version(&append.stream).await;
                Err(Error::lost_race(&append.stream, expected, actual))
            }
            Some(Bug::AnyConflicts | Bug::AnyLosesSilently) if expected == ExpectedVersion::Any => {
                let base = self.version(&append.stream).await;
                yield_now().await;
                let exact = Append::new(append.stream.clone(), base, append.events.clone());
                let answer = store.append(exact).await;
                if answer.is_err() && self.has(Bug::AnyLosesSilently) {
                    return self.made_up(&append, base, false).await;
                }
                answer
            }
            Some(Bug::StreamExistsCreates) if is_loose => store.append(any(&append)).await,
            Some(Bug::RecognisesByTheFirstId) if !self.holds(&append).await => {
                let answer = store.append(append.clone()).await;
                let (ExpectedVersion::Exact(base), Err(_)) = (expected, &answer) else {
                    return answer;
                };
                let from = ReadStream::default().with_from(base.plus(1)).with_limit(1);
                let found = store.read_stream(&append.stream, from).try_next().await?;
                let first = append.events.first().map(NewEvent::id);
                if found.map(|event| event.id) == first {
                    return self.made_up(&append, base, true).await;
                }
                answer
            }
            Some(Bug::IdsAreKeys) => {
                let known = {
                    let mut seen = self.server.seen_ids.lock().unwrap();
                    append.events.iter().any(|event| !seen.insert(event.id()))
                };
                if known {
                    return self.made_up(&append, Version::NONE, true).await;
                }
                store.append(append).await
            }
            Some(Bug::AnyRetriesWriteAgain) if is_loose => {
                let answer = store.append(append.clone()).await?;
                if answer.replayed { store.append(renamed(append)).await } else { Ok(answer) }
            }
            Some(Bug::ForgetsOlderAppends | Bug::ForgetsAfterAThousand) if is_loose => {
                let answer = store.append(append.clone()).await?;
                let later = self.version(&append.stream).await.get() - answer.last_version.get();
                let kept = if self.has(Bug::ForgetsAfterAThousand) { 1_000 } else { 0 };
                let forgotten = answer.replayed && later > kept;
                if forgotten { store.append(renamed(append)).await } else { Ok(answer) }
            }
            Some(Bug::ForgetsExactAfterAThousand | Bug::ForgetsRetriesWhenClosed) if !is_loose => {
                let answer = store.append(append.clone()).await?;
                let version = self.version(&append.stream).await;
                let is_known = match self.bug {
                    Some(Bug::ForgetsExactAfterAThousand) => {
                        answer.last_version.plus(1_000) > version
                    }
                    _ => {
                        let mut seen = self.server.seen_ids.lock().unwrap();
                        append.events.iter().all(|event| !seen.insert(event.id()))
                    }
                };
                if answer.replayed && !is_known {
                    return Err(Error::lost_race(&append.stream, expected, version));
                }
                Ok(answer)
            }
            Some(Bug::IdsExcuseConflicts) => {
                let answer = store.append(append.clone()).await;
                let mut seen = self.server.seen_ids.lock().unwrap().clone();
                let known = append.events.iter().all(|event| !seen.insert(event.id()));
                *self.server.seen_ids.lock().unwrap() = seen;
                if known && answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Conflict) {
                    return self.made_up(&append, Version::NONE, true).await;
                }
                answer
            }
            Some(Bug::RemovedIdsAreProof) if is_loose => {
                let removed = self.server.seen_ids.lock().unwrap().clone();
                if append.events.iter().all(|event| removed.contains(&event.id())) {
                    return self.made_up(&append, Version::NONE, true).await;
                }
                store.append(append).await
            }
            Some(Bug::KeepsAnIdOnce) => {
                let mut seen = std::collections::HashSet::new();
                append.events.retain(|event| seen.insert(event.id()));
                let mut answer = store.append(append).await?;
                answer.last_version = answer.first_version.plus(count).minus(1);
                Ok(answer)
            }
            Some(Bug::TakesNilIds) => {
                for event in &mut append.events {
                    if event.id().is_nil() {
                        *event = event.clone().with_id(Uuid::now_v7());
                    }
                }
                store.append(append).await
            }
            Some(Bug::CutsExpectedVersions) => {
                if let ExpectedVersion::Exact(version) = expected
                    && version.get() > u64::from(u32::MAX)
                {
                    let low = u64::from(u32::try_from(version.get() & 0xffff_ffff).unwrap());
                    append.expected = ExpectedVersion::Exact(low.into());
                }
                store.append(append).await
            }
            Some(Bug::ClosedStreamsReopen) if self.is_closed(&append.stream) => {
                Err(Error::stream_closed(&append.stream))
            }
            Some(Bug::PanicsOnNothing) => {
                assert!(count > 0, "nothing to append");
                store.append(append).await
            }
            Some(Bug::AnswersNothing) if count == 0 => {
                Appended::after(Version::NONE, 1, Position::START, false)
            }
            Some(Bug::SkipsLateCommits) => {
                let ticket = self.server.in_flight.fetch_add(1, Ordering::SeqCst);
                for _ in 0..ticket % 4 {
                    yield_now().await;
                }
                let mut tickets = self.server.tickets.lock().unwrap();
                let answer = store.append(append).now_or_never().unwrap()?;
                for n in 0..count {
                    tickets.insert(answer.position.minus(n), ticket);
                }
                Ok(answer)
            }
            _ => store.append(append).await,
        }
    }

    /// The answer that the caller gets.
    fn answer(&self, append: &Append, answer: Result<Appended>) -> Result<Appended> {
        let mut answer = answer.map_err(|error| match error.conflict() {
            Some(_) if self.has(Bug::ConflictIsInternal) => {
                Error::new(ErrorKind::Internal, "duplicate key").with_source(error)
            }
            Some(_) if self.has(Bug::ConflictSaysNothing) => {
                Error::new(ErrorKind::Conflict, "somebody was faster").with_source(error)
            }
            Some(conflict) if self.has(Bug::ConflictSaysOneDigit) => {
                let actual = Version::new(conflict.actual.get() % 10);
                Error::lost_race(&append.stream, append.expected, actual)
            }
            _ => error,
        })?;
        match self.bug {
            Some(Bug::AnswersTheFirstPosition) => {
                answer.position = answer.position.minus(append.count() - 1);
            }
            Some(Bug::AnswersVersionsFromZero) => {
                answer.first_version = answer.first_version.minus(1);
                answer.last_version = answer.last_version.minus(1);
            }
            Some(Bug::RecognisesNoRetry) if answer.replayed => {
                let actual = answer.last_version;
                return Err(Error::lost_race(&append.stream, append.expected, actual));
            }
            Some(Bug::RetriesLookNew) => answer.replayed = false,
            _ => {}
        }
        answer.first_version = self.shape_version(&append.stream, answer.first_version);
        answer.last_version = self.shape_version(&append.stream, answer.last_version);
        answer.position = self.shape_position(answer.position);
        self.own_end.fetch_max(answer.position.get(), Ordering::SeqCst);
        Ok(answer)
    }

    /// Adds to an error which call it belongs to.
    pub(crate) fn context(&self, operation: &'static str) -> impl Fn(Error) -> Error + use<> {
        adapter::context(self.capabilities.backend, operation)
    }

    fn lost(&self, stream: &StreamId) -> Error {
        let error = Error::new(ErrorKind::Unavailable, "the connection was lost");
        let error = self.context("append")(error).with_stream(stream);
        if self.has(Bug::DeniesTheUnknown) { error } else { error.with_outcome_unknown() }
    }
}

/// The same append with new event ids, and with `Any`.
pub(crate) fn renamed(mut append: Append) -> Append {
    append.events = append.events.into_iter().map(|e| e.with_id(Uuid::now_v7())).collect();
    append.expected = ExpectedVersion::Any;
    append
}

#[async_trait]
impl EventStore for Handle {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let answer = self.write(append.clone()).await;
        let context = |error: Error| match self.bug {
            Some(Bug::ErrorsNameNothing) => Error::new(error.kind(), "no").with_source(error),
            _ => self.context("append")(error).with_stream(&append.stream),
        };
        let answer = self.answer(&append, answer).map_err(context)?;
        subscription::wake(self);
        if self.server.lose_next_answer.swap(false, Ordering::SeqCst) {
            if self.has(Bug::AsksAgainWithNewIds) {
                return self.store().append(renamed(append)).await;
            }
            return Err(self.lost(&append.stream));
        }
        Ok(answer)
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.append_several(appends).await
    }

    fn read_stream(&self, stream: &StreamId, mut options: ReadStream) -> EventStream {
        let stream = &self.inner_id(stream);
        let info = self.store().stream_info(stream).now_or_never().unwrap().unwrap();
        match self.bug {
            Some(Bug::ReadsFromAfter) => options.from = options.from.map(|from| from.plus(1)),
            Some(Bug::CutsLimits) => options.limit = options.limit.map(|limit| limit & 0xffff_ffff),
            Some(Bug::CountsVersions) => {
                let first = info.first_version.unwrap_or(Version::FIRST).minus(1);
                options.from = options.from.map(|from| from.plus(first.get()));
            }
            Some(Bug::LosesTheThousandth)
                if options.from.is_some_and(|from| from.get() > 1_000)
                    && options.direction == Direction::Backwards =>
            {
                options.from = options.from.map(|from| from.minus(1));
            }
            Some(Bug::MissingStreamsFail) if info.version == Version::NONE => {
                let error = Error::new(ErrorKind::InvalidInput, "no such stream");
                let error = self.context("read_stream")(error).with_stream(stream);
                return adapter::failed_read(error);
            }
            _ => {}
        }
        let events = match self.bug {
            Some(Bug::PagesByOffset) => self.by_offset(stream, &options),
            _ => self.store().read_stream(stream, options),
        };
        let events = self.shape_read(events, "read_stream", Some(stream));
        match self.bug {
            Some(Bug::CutsLongStreams) => events.take(1_000).boxed(),
            // The times are those of the events in the order of their times.
            Some(Bug::SortsByTime) => {
                let sorted = events.try_collect::<Vec<_>>().now_or_never().unwrap();
                let sorted = sorted.map(|mut events| {
                    events.sort_by_key(|event| event.recorded_at);
                    stream::iter(events.into_iter().map(Ok))
                });
                stream::once(future::ready(sorted)).try_flatten().boxed()
            }
            Some(Bug::ReadsStaleData) if self.number % 2 == 1 => {
                let fresh = move |event: &RecordedEvent| event.version == info.version;
                events.try_filter(move |event| future::ready(!fresh(event))).boxed()
            }
            Some(Bug::TruncationHides | Bug::TruncationsRemember) => {
                let hidden = self.server.truncated.lock().unwrap().get(stream).copied();
                let hidden = hidden.unwrap_or(Version::NONE);
                events.try_filter(move |event| future::ready(event.version >= hidden)).boxed()
            }
            Some(Bug::OpenReadsBlock) => {
                let lock = self.server.lock.clone();
                let locked = async move {
                    let permit = lock.acquire_owned().await.unwrap();
                    let held = move |event| {
                        let _held = &permit;
                        event
                    };
                    events.map(held)
                };
                stream::once(locked).flatten().boxed()
            }
            _ => events,
        }
    }

    fn read_all(&self, mut options: ReadAll) -> EventStream {
        let filter = options.filter.clone();
        self.cut_filter(&mut options.filter);
        if let Some(events) = self.begin_read(&mut options) {
            return events;
        }
        match self.bug {
            Some(Bug::CategoryOrPrefix) if filter.category.is_some() && filter.prefix.is_some() => {
                options.filter.prefix = None;
            }
            Some(Bug::PrefixIsAPattern | Bug::PrefixIgnoresCase) => options.filter.prefix = None,
            Some(Bug::CategoryIsAPrefix) => options.filter.category = None,
            Some(Bug::LimitsBeforeItFilters) => options.filter = Filter::default(),
            Some(Bug::ReadsAllFromAt) => {
                options.from = options.from.map(|from| match options.direction {
                    Direction::Forwards => from.minus(1),
                    Direction::Backwards => from.plus(1),
                });
            }
            _ => {}
        }
        let events = self.scan(&options).unwrap_or_else(|| self.store().read_all(options));
        let events = self.shape_read(events, "read_all", None);
        let bug = self.bug;
        let wanted = move |event: &RecordedEvent| {
            let stream = event.stream.as_str();
            future::ready(match (bug, &filter.prefix, &filter.category) {
                (Some(Bug::PrefixIsAPattern), Some(prefix), _) => like(prefix.as_str(), stream),
                (Some(Bug::PrefixIgnoresCase), Some(prefix), _) => {
                    stream.to_lowercase().starts_with(&prefix.as_str().to_lowercase())
                }
                (Some(Bug::CategoryIsAPrefix), _, Some(category)) => {
                    stream.starts_with(category.as_str())
                }
                (Some(Bug::LimitsBeforeItFilters), ..) => {
                    filter.matches(&event.stream, &event.event_type)
                }
                _ => true,
            })
        };
        events.try_filter(wanted).boxed()
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        subscription::subscribe(self, options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let info = self.store().stream_info(&self.inner_id(stream)).await?;
        let imported = self.is_imported(stream).await?;
        let info = if imported { info.with_deleted_at(Version::NONE) } else { info };
        Ok(self.shape_info(stream, info))
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.truncate_stream(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.delete_stream(stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.close_stream(stream, expected).await
    }
}

#[async_trait]
impl CheckpointStore for Handle {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.store().load_checkpoint(&self.subscriber(subscriber)).await
    }

    async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let subscriber = &self.subscriber(subscriber);
        if self.has(Bug::CheckpointsAreSigned) && position.get() > i64::MAX.unsigned_abs() {
            let kept = Position::new(i64::MAX.unsigned_abs());
            return self.store().save_checkpoint(subscriber, kept).await.map(|_| position);
        }
        if self.has(Bug::CheckpointsMoveBack) {
            self.store().reset_checkpoint(subscriber, None).await?;
        }
        self.store().save_checkpoint(subscriber, position).await
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        position: Position,
    ) -> Result<bool> {
        match self.bug {
            Some(Bug::CheckpointSwapsCheckNothing) => {
                self.store().reset_checkpoint(subscriber, Some(position)).await?;
                Ok(true)
            }
            Some(Bug::CheckpointSwapsCheckTooEarly) => {
                let stored = self.store().load_checkpoint(subscriber).await?;
                tokio::task::yield_now().await;
                if stored == expected {
                    self.store().reset_checkpoint(subscriber, Some(position)).await?;
                }
                Ok(stored == expected || stored == Some(position))
            }
            _ => self.store().swap_checkpoint(subscriber, expected, position).await,
        }
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        if self.has(Bug::CheckpointsStick) {
            return Ok(());
        }
        self.store().reset_checkpoint(&self.subscriber(subscriber), position).await
    }
}

/// Whether the text, or the beginning of it, matches a pattern of SQL's `LIKE`.
fn like(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return true };
    let rest = &pattern[first.len_utf8()..];
    let mut chars = text.chars();
    match first {
        '%' => text.char_indices().any(|(at, _)| like(rest, &text[at..])) || rest.is_empty(),
        '_' => chars.next().is_some() && like(rest, chars.as_str()),
        _ => chars.next() == Some(first) && like(rest, chars.as_str()),
    }
}
