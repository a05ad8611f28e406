//! What a client asks for when it reads or subscribes, and what it gets.

use std::sync::Arc;

use annals_core::{Store, StreamId, StreamInfo};
use futures::stream::BoxStream;
use tonic::Status;

use crate::{
    filter::EventFilter,
    proto::shared::{all_options::AllOption, stream_options::RevisionOption},
    status::status,
    tombstones::Tombstones,
    wire::ResolvedEvent,
    wire_stream::WireStream,
};

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    Start,
    End,
    /// A revision of a stream, or a position in a category or `$all`.
    At(u64),
}

impl ReadFrom {
    /// `None` if the client does not say.
    pub(crate) fn in_stream(option: Option<RevisionOption>) -> Option<Self> {
        Some(match option? {
            // As a signed number, this is -1, which clients send for the end.
            RevisionOption::Revision(u64::MAX) | RevisionOption::End(_) => Self::End,
            RevisionOption::Revision(revision) => Self::At(revision),
            RevisionOption::Start(_) => Self::Start,
        })
    }

    /// `None` if the client does not say.
    pub(crate) fn in_all(option: Option<AllOption>) -> Option<Self> {
        Some(match option? {
            AllOption::Position(position) => match position.commit_position {
                u64::MAX => Self::End,
                position => Self::At(position),
            },
            AllOption::End(_) => Self::End,
            AllOption::Start(_) => Self::Start,
        })
    }
}

/// A read or a subscription.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tombstones: Tombstones,
    pub(crate) stream: WireStream,
    /// A read includes the event at this place, except backwards over `$all`. A subscription begins
    /// after it.
    pub(crate) from: ReadFrom,
    pub(crate) filter: Option<Arc<EventFilter>>,
    pub(crate) resolve_links: bool,
    /// True if the client accepts `FirstRevision` and `LastRevision` in a read.
    pub(crate) with_bounds: bool,
}

/// One result of a read or a subscription.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all items are events")]
pub(crate) enum ReadItem {
    Event(ResolvedEvent),
    /// The stream does not exist.
    NotFound,
    /// No event before this revision can be read.
    FirstRevision(u64),
    /// The last revision of the stream, also if the read ends before it.
    LastRevision(u64),
    /// A subscription has looked at every event up to this position.
    Checkpoint(u64),
    /// A subscription has delivered every event that was there. With the last revision or position
    /// that the subscription saw.
    CaughtUp(Option<u64>),
}

pub(crate) type ReadItems = BoxStream<'static, Result<ReadItem, Status>>;

impl ReadRequest {
    pub(super) async fn info(&self, stream: &StreamId) -> Result<StreamInfo, Status> {
        self.store.stream_info(stream).await.map_err(|e| status(&e))
    }
}
