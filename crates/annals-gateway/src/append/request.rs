//! What an append asks for: its stream, the version that it expects, and its events within the limits.

use annals_core::{ExpectedVersion, NewEvent, StreamId};
use tonic::Status;

use crate::{
    proto::streams::{ProposedMessage, WriteOptions, write_options::Expected},
    status::too_large,
    wire::new_event,
    wire_stream::writable_stream,
};

/// Every event counts at least this many bytes towards the limit of memory, which so bounds the number
/// of events without data, too.
const MIN_EVENT_BYTES: usize = 32;

/// The limits of one append, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most data. As in EventStoreDB 23.10, this does not count metadata and types.
    pub(crate) data: usize,
    /// The most memory: data, metadata and names.
    pub(crate) memory: usize,
}

/// The events of one append, within its limits.
pub(super) struct LimitedEvents {
    limits: Limits,
    data: usize,
    memory: usize,
    events: Vec<NewEvent>,
}

impl LimitedEvents {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, data: 0, memory: 0, events: Vec::new() }
    }

    pub(super) fn push(&mut self, message: ProposedMessage) -> Result<(), Status> {
        self.data += message.data.len();
        let event = new_event(message)?;
        self.memory += event.size() + MIN_EVENT_BYTES;
        if self.data > self.limits.data || self.memory > self.limits.memory {
            return Err(too_large(self.limits.data));
        }
        self.events.push(event);
        Ok(())
    }

    pub(super) fn into_events(self) -> Vec<NewEvent> {
        self.events
    }
}

/// The greatest revision. Clients read revisions as signed numbers.
const MAX_REVISION: u64 = i64::MAX as u64;

/// The stream that a client wants to change, and the version that it expects.
pub(crate) fn write_target(options: &WriteOptions) -> Result<(StreamId, ExpectedVersion), Status> {
    let expected = match options.expected {
        // The .NET client sends `StreamRevision.None`, which is -1, as an unsigned number.
        Some(Expected::Revision(u64::MAX)) => ExpectedVersion::NoStream,
        Some(Expected::Revision(revision)) if revision > MAX_REVISION => {
            let message =
                format!("the expected revision {revision} is greater than {MAX_REVISION}");
            return Err(Status::invalid_argument(message));
        }
        Some(Expected::Revision(revision)) => ExpectedVersion::Exact((revision + 1).into()),
        Some(Expected::NoStream(_)) => ExpectedVersion::NoStream,
        Some(Expected::Any(_)) => ExpectedVersion::Any,
        Some(Expected::StreamExists(_)) => ExpectedVersion::StreamExists,
        None => return Err(Status::invalid_argument("the expected revision is missing")),
    };
    Ok((writable_stream(options.stream_identifier.as_ref())?, expected))
}
