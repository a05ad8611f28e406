//! Appends: one by one, and in batches over one call.

use std::{collections::HashSet, sync::Arc};

use annals_core::{
    Append, Appended, Error, ErrorKind, ExpectedVersion, NewEvent, Store, StreamId, Version,
    adapter::StreamHead,
};
use async_stream::try_stream;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use prost_types::Any;
use tonic::{Status, Streaming};

use crate::{
    metadata,
    names::{described_by, identifier, out, writable},
    proto::{
        google::rpc,
        shared::{self, Empty, Uuid as WireUuid},
        streams::{
            AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ProposedMessage, Success,
            WriteOptions, append_req, append_resp, batch_append_resp, success, write_options,
        },
    },
    request::Broken,
    status::{revision, status, too_large},
    wire::{at, proposed},
};

/// So many appends of one call are under way at the same time.
const AT_ONCE: usize = 64;

/// An event is never smaller than this on its way: so that many without data are limited, too.
const LEAST_EVENT: usize = 32;

/// Collects the events of one append.
struct Events {
    most: usize,
    size: usize,
    events: Vec<NewEvent>,
}

impl Events {
    fn new(most: usize) -> Self {
        Self { most, size: 0, events: Vec::new() }
    }

    fn push(&mut self, message: ProposedMessage) -> Result<(), Status> {
        let event = proposed(message)?;
        self.size += event.size() + LEAST_EVENT;
        if self.size > self.most {
            return Err(too_large(self.most));
        }
        self.events.push(event);
        Ok(())
    }
}

/// Where a stream is after an append.
pub(crate) struct Written {
    /// Of the last event, if there is any.
    revision: Option<u64>,
    /// None where nothing was to be written.
    pub(crate) position: Option<u64>,
}

/// Writes, and does what the metadata of a stream says where it is that.
pub(crate) async fn write(store: &dyn Store, append: Append) -> Result<Written, Error> {
    if append.events.is_empty() {
        return nothing(store, &append.stream, append.expected).await;
    }
    let stream = described_by(&append.stream).map(|_| append.stream.clone());
    let Appended { last_version, position, .. } = store.append(append).await?;
    if let Some(stream) = stream {
        metadata::apply(store, &stream).await;
    }
    Ok(Written { revision: last_version.get().checked_sub(1), position: Some(position.get()) })
}

/// An append of no events, which EventStoreDB takes, and which says where the stream is.
async fn nothing(
    store: &dyn Store,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Result<Written, Error> {
    let info = store.stream_info(stream).await?;
    // No retry is looked for, for which alone it would have to know of a deletion.
    let head = StreamHead { state: info.state, version: info.version, deleted_at: Version::NONE };
    head.check(stream, expected)?;
    Ok(Written { revision: info.version.get().checked_sub(1), position: None })
}

/// One append.
pub(crate) async fn append(
    store: &dyn Store,
    mut messages: Streaming<AppendReq>,
    broken: &Broken,
    most: usize,
) -> Result<AppendResp, Status> {
    let Some(append_req::Content::Options(options)) =
        messages.message().await?.and_then(|message| message.content)
    else {
        return Err(Status::invalid_argument("an append begins with its options"));
    };
    let (stream, expected) = target(&options)?;
    let mut events = Events::new(most);
    while let Some(message) = messages.message().await? {
        let Some(append_req::Content::ProposedMessage(event)) = message.content else {
            return Err(Status::invalid_argument("options come first, and once"));
        };
        events.push(event)?;
    }
    broken.check()?;
    let result = match write(store, Append::new(stream, expected, events.events)).await {
        Ok(written) => append_resp::Result::Success(written.success()),
        Err(error) => match error.conflict() {
            Some(conflict) => {
                let actual = revision(conflict.actual);
                append_resp::Result::WrongExpectedVersion(wrong(conflict.expected, actual))
            }
            None => return Err(status(&error)),
        },
    };
    Ok(AppendResp { result: Some(result) })
}

impl Written {
    fn success(&self) -> Success {
        use success::{CurrentRevisionOption, PositionOption};
        let current = match self.revision {
            Some(revision) => CurrentRevisionOption::CurrentRevision(revision),
            None => CurrentRevisionOption::NoStream(Empty {}),
        };
        let position = match self.position {
            Some(position) => PositionOption::Position(at(position)),
            None => PositionOption::NoPosition(Empty {}),
        };
        Success { current_revision_option: Some(current), position_option: Some(position) }
    }
}

fn wrong(expected: ExpectedVersion, actual: i64) -> append_resp::WrongExpectedVersion {
    use append_resp::wrong_expected_version::{
        CurrentRevisionOption, CurrentRevisionOption2060, ExpectedRevisionOption,
        ExpectedRevisionOption2060,
    };
    let (current, current_old) = match u64::try_from(actual) {
        Ok(revision) => (
            CurrentRevisionOption::CurrentRevision(revision),
            CurrentRevisionOption2060::CurrentRevision2060(revision),
        ),
        Err(_) => (
            CurrentRevisionOption::CurrentNoStream(Empty {}),
            CurrentRevisionOption2060::NoStream2060(Empty {}),
        ),
    };
    let (expected, expected_old) = match expected {
        ExpectedVersion::Any => (
            ExpectedRevisionOption::ExpectedAny(Empty {}),
            Some(ExpectedRevisionOption2060::Any2060(Empty {})),
        ),
        ExpectedVersion::StreamExists => (
            ExpectedRevisionOption::ExpectedStreamExists(Empty {}),
            Some(ExpectedRevisionOption2060::StreamExists2060(Empty {})),
        ),
        // The old group has no such case.
        ExpectedVersion::NoStream => (ExpectedRevisionOption::ExpectedNoStream(Empty {}), None),
        ExpectedVersion::Exact(version) => {
            let revision = version.minus(1).get();
            (
                ExpectedRevisionOption::ExpectedRevision(revision),
                Some(ExpectedRevisionOption2060::ExpectedRevision2060(revision)),
            )
        }
    };
    append_resp::WrongExpectedVersion {
        current_revision_option_20_6_0: Some(current_old),
        expected_revision_option_20_6_0: expected_old,
        current_revision_option: Some(current),
        expected_revision_option: Some(expected),
    }
}

/// The stream that a client writes to, and what it expects.
pub(crate) fn target(options: &WriteOptions) -> Result<(StreamId, ExpectedVersion), Status> {
    use write_options::Expected;
    let expected = match options.expected {
        Some(Expected::Revision(revision)) => {
            ExpectedVersion::Exact(revision.saturating_add(1).into())
        }
        Some(Expected::NoStream(_)) => ExpectedVersion::NoStream,
        Some(Expected::Any(_)) => ExpectedVersion::Any,
        Some(Expected::StreamExists(_)) => ExpectedVersion::StreamExists,
        None => return Err(Status::invalid_argument("the expected revision is missing")),
    };
    Ok((writable(options.stream_identifier.as_ref())?, expected))
}

/// One append of a batch, complete.
struct Unit {
    correlation_id: Option<WireUuid>,
    options: WriteOptions,
    append: Result<Append, Status>,
}

/// Appends over one call, each answered when it is done. Those to one stream keep their order.
pub(crate) fn batch_append(
    store: Arc<dyn Store>,
    mut messages: Streaming<BatchAppendReq>,
    most: usize,
) -> impl Stream<Item = Result<BatchAppendResp, Status>> + Send {
    try_stream! {
        let mut open: Vec<Open> = Vec::new();
        let mut under_way: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        let mut busy = HashSet::new();
        let mut ended = false;
        while !(ended && under_way.is_empty()) {
            let next = tokio::select! {
                Some(done) = under_way.next(), if !under_way.is_empty() => Next::Done(done),
                message = messages.message(), if !ended && under_way.len() < AT_ONCE => {
                    Next::Message(message)
                }
            };
            let unit = match next {
                Next::Done((stream, answer)) => {
                    forget(&mut busy, stream);
                    yield answer;
                    continue;
                }
                Next::Message(message) => match message? {
                    Some(message) => collect(&mut open, message, most),
                    None => {
                        ended = true;
                        continue;
                    }
                },
            };
            let Some(unit) = unit else { continue };
            let stream = unit.append.as_ref().ok().map(|append| append.stream.clone());
            // One after the other where it is the same stream.
            while stream.as_ref().is_some_and(|stream| busy.contains(stream)) {
                if let Some((done, answer)) = under_way.next().await {
                    forget(&mut busy, done);
                    yield answer;
                }
            }
            busy.extend(stream.clone());
            let store = store.clone();
            under_way.push(async move { (stream, execute(&*store, unit).await) }.boxed());
        }
    }
}

/// An append of a batch that is done, and the stream that it was to.
type Done = (Option<StreamId>, BatchAppendResp);

enum Next {
    Done(Done),
    Message(Result<Option<BatchAppendReq>, Status>),
}

fn forget(busy: &mut HashSet<StreamId>, stream: Option<StreamId>) {
    if let Some(stream) = stream {
        busy.remove(&stream);
    }
}

/// An append that is still being sent.
struct Open {
    correlation_id: Option<WireUuid>,
    options: Option<WriteOptions>,
    events: Result<Events, Status>,
}

/// So many appends of one call may be incomplete at the same time.
const MOST_OPEN: usize = 64;

/// Adds a message to its append, and gives that when it is complete.
fn collect(open: &mut Vec<Open>, message: BatchAppendReq, most: usize) -> Option<Unit> {
    let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = message;
    let found = open.iter().position(|one| one.correlation_id == correlation_id);
    let mut one = match found {
        Some(index) => open.swap_remove(index),
        None => Open { correlation_id, options: None, events: Ok(Events::new(most)) },
    };
    one.options = options.or(one.options);
    one.events = one.events.and_then(|mut events| {
        for event in proposed_messages {
            events.push(event)?;
        }
        Ok(events)
    });
    if !is_final && open.len() < MOST_OPEN {
        open.push(one);
        return None;
    }
    let Open { correlation_id, options, events } = one;
    let events = if is_final {
        events
    } else {
        Err(Status::resource_exhausted("too many appends of this call are incomplete"))
    };
    let options = options.unwrap_or_default();
    let append = events.and_then(|events| {
        let (stream, expected) = target(&options)?;
        Ok(Append::new(stream, expected, events.events))
    });
    Some(Unit { correlation_id, options, append })
}

async fn execute(store: &dyn Store, unit: Unit) -> BatchAppendResp {
    use batch_append_resp::{Expected as Echo, Result as Answer};
    use write_options::Expected;
    let Unit { correlation_id, options, append } = unit;
    let result = match append {
        Err(refused) => Err(batch_refused(&refused)),
        Ok(append) => write(store, append).await.map_err(|error| batch_error(&error)),
    };
    let expected = options.expected.map(|expected| match expected {
        Expected::Revision(revision) => Echo::StreamPosition(revision),
        Expected::NoStream(empty) => Echo::NoStream(empty),
        Expected::Any(empty) => Echo::Any(empty),
        Expected::StreamExists(empty) => Echo::StreamExists(empty),
    });
    BatchAppendResp {
        correlation_id,
        stream_identifier: options.stream_identifier,
        expected,
        result: Some(match result {
            Ok(written) => Answer::Success(written.success()),
            Err(error) => Answer::Error(error),
        }),
    }
}

/// An error of one append of a batch, with the detail by which clients know it.
fn batch_error(error: &Error) -> rpc::Status {
    use shared::wrong_expected_version::{
        CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Expected,
    };
    let stream = error.stream().map(|stream| out(stream.as_str())).unwrap_or_default();
    let detail = match (error.kind(), error.conflict()) {
        (_, Some(conflict)) => {
            let current = match u64::try_from(revision(conflict.actual)) {
                Ok(revision) => Current::CurrentStreamRevision(revision),
                Err(_) => Current::CurrentNoStream(Empty {}),
            };
            let expected = match conflict.expected {
                ExpectedVersion::Any => Expected::ExpectedAny(Empty {}),
                ExpectedVersion::StreamExists => Expected::ExpectedStreamExists(Empty {}),
                ExpectedVersion::NoStream => Expected::ExpectedNoStream(Empty {}),
                ExpectedVersion::Exact(version) => {
                    Expected::ExpectedStreamPosition(version.minus(1).get())
                }
            };
            any(
                "WrongExpectedVersion",
                &shared::WrongExpectedVersion {
                    current_stream_revision_option: Some(current),
                    expected_stream_position_option: Some(expected),
                },
            )
        }
        (ErrorKind::StreamClosed, _) => any(
            "StreamDeleted",
            &shared::StreamDeleted { stream_identifier: Some(identifier(stream)) },
        ),
        _ if error.outcome_unknown() => any("Timeout", &shared::Timeout {}),
        (ErrorKind::InvalidInput | ErrorKind::LimitExceeded, _) => {
            any("BadRequest", &shared::BadRequest { message: error.to_string() })
        }
        _ => any("Unknown", &shared::Unknown {}),
    };
    batch_status(&status(error), Some(detail))
}

/// An append that was refused before it was sent to the store.
fn batch_refused(refused: &Status) -> rpc::Status {
    let size = refused.metadata().get("maximum-append-size");
    let detail = match size.and_then(|size| size.to_str().ok()?.parse().ok()) {
        Some(max_append_size) => {
            any("MaximumAppendSizeExceeded", &shared::MaximumAppendSizeExceeded { max_append_size })
        }
        None => any("BadRequest", &shared::BadRequest { message: refused.message().to_owned() }),
    };
    batch_status(refused, Some(detail))
}

fn batch_status(status: &Status, details: Option<Any>) -> rpc::Status {
    rpc::Status { code: status.code().into(), message: status.message().to_owned(), details }
}

fn any(name: &str, message: &impl prost::Message) -> Any {
    let type_url = format!("type.googleapis.com/event_store.client.{name}");
    Any { type_url, value: message.encode_to_vec() }
}
