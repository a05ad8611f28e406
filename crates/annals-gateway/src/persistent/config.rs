//! What a group is told when it is made, and where that is kept: in one stream, whose last event has
//! all groups.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Append, ErrorKind, ExpectedVersion, NewEvent, Store, StreamId, SubscriberId, Version,
};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::{
    filter::EventFilter,
    metadata::last,
    names::{Target, identifier, stream_in, type_in},
    proto::{
        persistent::group_options,
        shared::{
            Empty, FilterOptions, StreamIdentifier,
            filter_options::{Expression, Filter, Window},
        },
    },
    status::{status, trailers},
};

/// The stream, and the type of its events.
const STREAM: &str = "$persistentSubscriptionConfig";
const TYPE: &str = "$PersistentConfig";
/// A change of the groups is tried again where somebody else was faster, so often at most.
const TRIES: usize = 20;

/// The name of a group: what it reads, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GroupName {
    /// The name of a stream on the wire, or `$all`.
    pub(crate) source: String,
    pub(crate) group: String,
}

impl GroupName {
    pub(crate) fn on_stream(
        stream: Option<&StreamIdentifier>,
        group: String,
    ) -> Result<Self, Status> {
        Self::on(&Target::of(stream)?, group)
    }

    pub(crate) fn on_all(group: String) -> Result<Self, Status> {
        Self::on(&Target::All, group)
    }

    fn on(target: &Target, group: String) -> Result<Self, Status> {
        if group.is_empty() {
            return Err(Status::invalid_argument("the name of the group is missing"));
        }
        Ok(Self { source: target.name(), group })
    }

    pub(crate) fn target(&self) -> Result<Target, Status> {
        Target::of(Some(&identifier(&self.source)))
    }

    /// Under what its progress is kept.
    pub(crate) fn subscriber(&self) -> Result<SubscriberId, Status> {
        SubscriberId::new(self.text("")).map_err(|e| Status::invalid_argument(e.to_string()))
    }

    /// The stream with links to the events that could not be handled.
    pub(crate) fn parked(&self) -> Result<StreamId, Status> {
        stream_in(&self.text("-parked"))
    }

    fn text(&self, what: &str) -> String {
        format!("$persistentsubscription-{}::{}{what}", self.source, self.group)
    }

    pub(crate) fn error(&self, code: Code, exception: &str, what: &str) -> Status {
        let Self { source, group } = self;
        let mut trailers = trailers(exception, source);
        crate::status::insert(&mut trailers, "group-name", group);
        let message = format!("Subscription group {group} on stream {source} {what}");
        Status::with_metadata(code, message, trailers)
    }

    pub(crate) fn missing(&self) -> Status {
        let exception = "persistent-subscription-does-not-exist";
        self.error(Code::NotFound, exception, "does not exist.")
    }
}

/// How events are given to consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Strategy {
    /// All to the first, as long as it can take more.
    DispatchToSingle,
    /// To each in turn.
    RoundRobin,
    /// Those of one stream to the same.
    Pinned,
    /// Those with one correlation id to the same.
    PinnedByCorrelation,
}

impl Strategy {
    fn named(name: &str) -> Result<Self, Status> {
        Ok(match name {
            "DispatchToSingle" => Self::DispatchToSingle,
            "RoundRobin" => Self::RoundRobin,
            "Pinned" => Self::Pinned,
            "PinnedByCorrelation" => Self::PinnedByCorrelation,
            other => {
                let message = format!(
                    "there is no strategy `{other}`, only DispatchToSingle, RoundRobin, Pinned and \
                     PinnedByCorrelation"
                );
                return Err(Status::invalid_argument(message));
            }
        })
    }

    fn numbered(number: i32) -> Self {
        match number {
            1 => Self::RoundRobin,
            2 => Self::Pinned,
            _ => Self::DispatchToSingle,
        }
    }

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }
}

/// The filter of a group, as it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupFilter {
    on_stream: bool,
    regex: String,
    prefix: Vec<String>,
}

impl GroupFilter {
    pub(crate) fn new(options: FilterOptions) -> Option<Self> {
        let (on_stream, Expression { regex, prefix }) = match options.filter? {
            Filter::StreamIdentifier(expression) => (true, expression),
            Filter::EventType(expression) => (false, expression),
        };
        Some(Self { on_stream, regex, prefix })
    }

    pub(crate) fn compile(&self) -> Result<Arc<EventFilter>, Status> {
        let Self { on_stream, regex, prefix } = self.clone();
        let expression = Expression { regex, prefix };
        let filter = match on_stream {
            true => Filter::StreamIdentifier(expression),
            false => Filter::EventType(expression),
        };
        let window = Some(Window::Count(Empty {}));
        let options =
            FilterOptions { filter: Some(filter), window, checkpoint_interval_multiplier: 1 };
        EventFilter::new(options).map(Arc::new)
    }
}

/// A group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// The first revision, or position, that it gets. Of its source as it was when it was made.
    pub(crate) first: u64,
    /// What was asked for, as clients are told it.
    pub(crate) start_from: String,
    pub(crate) filter: Option<GroupFilter>,
    pub(crate) settings: Settings,
}

/// What can be changed of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) resolve_links: bool,
    pub(crate) extra_statistics: bool,
    pub(crate) max_retries: i32,
    pub(crate) message_timeout_ms: i64,
    pub(crate) checkpoint_after_ms: i64,
    pub(crate) min_checkpoint_count: i32,
    pub(crate) max_checkpoint_count: i32,
    /// Any number, where it is 0.
    pub(crate) max_subscribers: i32,
    pub(crate) live_buffer_size: i32,
    pub(crate) read_batch_size: i32,
    pub(crate) history_buffer_size: i32,
    pub(crate) strategy: Strategy,
}

impl Settings {
    /// How long a consumer has for an event.
    pub(crate) fn message_timeout(&self) -> Option<Duration> {
        // 0 is for ever.
        u64::try_from(self.message_timeout_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    pub(crate) fn checkpoint_after(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.checkpoint_after_ms).unwrap_or(0).max(1))
    }

    /// How many events are read ahead.
    pub(crate) fn read_ahead(&self) -> usize {
        usize::try_from(self.history_buffer_size.max(self.live_buffer_size)).unwrap_or(1).max(1)
    }
}

impl TryFrom<group_options::Settings> for Settings {
    type Error = Status;

    fn try_from(found: group_options::Settings) -> Result<Self, Status> {
        use group_options::settings::{CheckpointAfter, MessageTimeout};
        const TICKS: i64 = 10_000;
        Ok(Self {
            strategy: match found.consumer_strategy.as_str() {
                "" => Strategy::numbered(found.named_consumer_strategy),
                name => Strategy::named(name)?,
            },
            resolve_links: found.resolve_links,
            extra_statistics: found.extra_statistics,
            max_retries: found.max_retry_count,
            message_timeout_ms: match found.message_timeout {
                Some(MessageTimeout::MessageTimeoutTicks(ticks)) => ticks / TICKS,
                Some(MessageTimeout::MessageTimeoutMs(ms)) => ms.into(),
                None => 30_000,
            },
            checkpoint_after_ms: match found.checkpoint_after {
                Some(CheckpointAfter::CheckpointAfterTicks(ticks)) => ticks / TICKS,
                Some(CheckpointAfter::CheckpointAfterMs(ms)) => ms.into(),
                None => 2_000,
            },
            min_checkpoint_count: found.min_checkpoint_count,
            max_checkpoint_count: found.max_checkpoint_count,
            max_subscribers: found.max_subscriber_count,
            live_buffer_size: found.live_buffer_size,
            read_batch_size: found.read_batch_size,
            history_buffer_size: found.history_buffer_size,
        })
    }
}

/// All groups, and the version of the stream that has them.
async fn load_all(store: &dyn Store) -> Result<(Vec<Group>, Version), Status> {
    let Some(event) = last(store, &stream_in(STREAM)?).await? else {
        return Ok((Vec::new(), Version::NONE));
    };
    let groups = serde_json::from_slice(event.data.bytes());
    let unreadable = |error| Status::data_loss(format!("the groups cannot be read: {error}"));
    Ok((groups.map_err(unreadable)?, event.version))
}

pub(crate) async fn groups(store: &dyn Store) -> Result<Vec<Group>, Status> {
    Ok(load_all(store).await?.0)
}

pub(crate) async fn group(store: &dyn Store, name: &GroupName) -> Result<Group, Status> {
    let found = groups(store).await?.into_iter().find(|group| group.name == *name);
    found.ok_or_else(|| name.missing())
}

/// Changes the groups, whoever else does at the same time.
pub(crate) async fn change(
    store: &dyn Store,
    change: impl Fn(&mut Vec<Group>) -> Result<(), Status>,
) -> Result<(), Status> {
    let stream = stream_in(STREAM)?;
    for _ in 0..TRIES {
        let (mut groups, version) = load_all(store).await?;
        change(&mut groups)?;
        let event = NewEvent::json(type_in(TYPE)?, &groups).map_err(|e| status(&e))?;
        let expected = ExpectedVersion::Exact(version);
        match store.append(Append::new(stream.clone(), expected, [event])).await {
            Ok(appended) => {
                // Only the last one matters.
                if store.capabilities().truncate
                    && let Err(error) = store.truncate(&stream, appended.last_version).await
                {
                    tracing::debug!(%error, "the list of groups could not be shortened");
                }
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(status(&error)),
        }
    }
    Err(Status::unavailable("others kept changing the groups"))
}
