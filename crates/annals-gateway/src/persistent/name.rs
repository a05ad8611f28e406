//! The name of a group, and the names in the store that follow from it.

use annals_core::{MAX_NAME_BYTES, StreamId, SubscriberId};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::{
    names::{GROUP, digest, identifier, stream_from_wire},
    proto::shared::StreamIdentifier,
    status::{insert_trailer, trailers},
    wire_stream::WireStream,
};

/// The stream with the list of all groups, as EventStoreDB names it.
pub(crate) const CATALOG: &str = "$persistentSubscriptionConfig";
/// True if the stream with this name on the wire is one in which groups keep their own state.
pub(crate) fn is_state_of_groups(stream: &str) -> bool {
    stream == CATALOG || stream.starts_with(GROUP)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GroupName {
    /// What the group reads: the name of a stream on the wire, or `$all`.
    pub(crate) source: String,
    pub(crate) group: String,
}

impl GroupName {
    pub(crate) fn on_stream(
        stream: Option<&StreamIdentifier>,
        group: String,
    ) -> Result<Self, Status> {
        Self::new(&WireStream::parse(stream)?, group)
    }

    pub(crate) fn on_all(group: String) -> Result<Self, Status> {
        Self::new(&WireStream::All, group)
    }

    fn new(source: &WireStream, group: String) -> Result<Self, Status> {
        Ok(Self { source: source.name(), group })
    }

    pub(crate) fn stream(&self) -> Result<WireStream, Status> {
        WireStream::parse(Some(&identifier(&self.source)))
    }

    /// The name under which the store keeps the group's checkpoint.
    pub(crate) fn subscriber(&self) -> Result<SubscriberId, Status> {
        let mut name = self.with_suffix("");
        if name.len() > MAX_NAME_BYTES {
            name = format!("{GROUP}#{}", digest(&name));
        }
        SubscriberId::new(name).map_err(|e| Status::invalid_argument(e.to_string()))
    }

    /// The stream with links to the group's parked events.
    pub(crate) fn parked(&self) -> Result<StreamId, Status> {
        stream_from_wire(&self.with_suffix("-parked"))
    }

    fn with_suffix(&self, suffix: &str) -> String {
        format!("{GROUP}{}::{}{suffix}", self.source, self.group)
    }

    /// An error about the group. `what` ends the sentence that begins with the group's name.
    pub(crate) fn error(&self, code: Code, exception: &str, what: &str) -> Status {
        let Self { source, group } = self;
        let mut trailers = trailers(exception, source);
        // EventStoreDB leaves out what is empty.
        if !group.is_empty() {
            insert_trailer(&mut trailers, "group-name", group);
        }
        let message = format!("Subscription group {group} on stream {source} {what}");
        Status::with_metadata(code, message, trailers)
    }

    pub(crate) fn missing(&self) -> Status {
        let exception = "persistent-subscription-does-not-exist";
        self.error(Code::NotFound, exception, "does not exist.")
    }

    /// The error for options that a group cannot have.
    pub(crate) fn failed(&self, reason: &str) -> Status {
        let what = format!("failed: '{reason}'");
        let mut error = self.error(Code::Internal, "persistent-subscription-failed", &what);
        insert_trailer(error.metadata_mut(), "reason", reason);
        error
    }

    /// The error for a consumer beyond the most that the group may have.
    pub(crate) fn full(&self) -> Status {
        let code = Code::FailedPrecondition;
        let error = self.error(code, "maximum-subscribers-reached", "");
        let Self { source, group } = self;
        let message = format!(
            "Maximum subscriptions reached for subscription group {group} on stream {source}."
        );
        Status::with_metadata(code, message, error.metadata().clone())
    }

    /// Why a consumer of a group ends that was changed, or whose stream was tombstoned.
    pub(crate) fn dropped(&self) -> Status {
        self.error(Code::Cancelled, "persistent-subscription-dropped", "was dropped.")
    }
}
