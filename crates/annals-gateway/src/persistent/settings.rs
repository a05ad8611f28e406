//! The settings of a group: what a client can change by an update, and the group's filter.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tonic::Status;

use super::name::GroupName;
use crate::{
    filter::EventFilter,
    proto::{
        persistent::group_options::{
            self,
            settings::{CheckpointAfter, MessageTimeout},
        },
        shared::{
            Empty, FilterOptions,
            filter_options::{Expression, Filter, Window},
        },
    },
};

/// A tick, the unit of older clients, is 100 ns.
const TICKS_PER_MS: i64 = 10_000;
/// A longer time for an event than this counts as no limit: the timer's range is about two years.
const MAX_MESSAGE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The most events that wait for a consumer, whatever a client asks for.
const MAX_READ_AHEAD: usize = 10_000;

/// How a group chooses the consumer for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Strategy {
    /// The first consumer that has a free slot.
    DispatchToSingle,
    /// Each consumer in turn.
    RoundRobin,
    /// The same consumer for all events of a stream.
    Pinned,
    /// The same consumer for all events with the same correlation id.
    PinnedByCorrelation,
}

impl Strategy {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "DispatchToSingle" => Self::DispatchToSingle,
            "RoundRobin" => Self::RoundRobin,
            "Pinned" => Self::Pinned,
            "PinnedByCorrelation" => Self::PinnedByCorrelation,
            _ => return None,
        })
    }

    fn numbered(number: i32) -> Option<Self> {
        [Self::DispatchToSingle, Self::RoundRobin, Self::Pinned]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }
}

/// The filter of a group on `$all`, as the client sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupFilter {
    on_stream: bool,
    regex: String,
    prefix: Vec<String>,
}

impl GroupFilter {
    pub(crate) fn new(options: FilterOptions) -> Result<Self, Status> {
        let (on_stream, Expression { regex, prefix }) = match options.filter {
            Some(Filter::StreamIdentifier(expression)) => (true, expression),
            Some(Filter::EventType(expression)) => (false, expression),
            None => {
                return Err(Status::invalid_argument(
                    "the filter has neither a stream name nor an event type",
                ));
            }
        };
        Ok(Self { on_stream, regex, prefix })
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

/// The names of the fields are those of EventStoreDB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) resolve_links: bool,
    pub(crate) extra_statistics: bool,
    pub(crate) max_retries: i32,
    pub(crate) message_timeout_ms: i64,
    pub(crate) checkpoint_after_ms: i64,
    pub(crate) min_checkpoint_count: i32,
    pub(crate) max_checkpoint_count: i32,
    /// 0 means no limit.
    pub(crate) max_subscribers: i32,
    pub(crate) live_buffer_size: i32,
    pub(crate) read_batch_size: i32,
    pub(crate) history_buffer_size: i32,
    pub(crate) strategy: Strategy,
}

impl Settings {
    /// How long a consumer has to answer an event. `None` means for ever.
    pub(crate) fn message_timeout(&self) -> Option<Duration> {
        let ms = u64::try_from(self.message_timeout_ms).ok().filter(|ms| *ms > 0)?;
        Some(Duration::from_millis(ms)).filter(|timeout| *timeout <= MAX_MESSAGE_TIMEOUT)
    }

    /// How often the checkpoint is stored.
    pub(crate) fn checkpoint_after(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.checkpoint_after_ms).unwrap_or(0).max(1))
    }

    /// How many events may wait for a consumer before the group stops reading.
    pub(crate) fn read_ahead(&self) -> usize {
        let asked = usize::try_from(self.history_buffer_size.max(self.live_buffer_size));
        asked.unwrap_or(1).clamp(1, MAX_READ_AHEAD)
    }
}

impl Settings {
    /// The settings that a client asks for, if a group can have them.
    pub(crate) fn new(wire: group_options::Settings, name: &GroupName) -> Result<Self, Status> {
        if wire.read_batch_size >= wire.history_buffer_size {
            return Err(name.failed(
                "Specified argument was out of the range of valid values. (Parameter \
                 'ReadBatchSize may not be greater than or equal to BufferSize')",
            ));
        }
        let (strategy, asked) = match wire.consumer_strategy.as_str() {
            "" => {
                let number = wire.named_consumer_strategy;
                (Strategy::numbered(number), number.to_string())
            }
            name => (Strategy::named(name), name.to_owned()),
        };
        let missing = || name.failed(&format!("Consumer strategy {asked} does not exist."));
        Ok(Self {
            strategy: strategy.ok_or_else(missing)?,
            resolve_links: wire.resolve_links,
            extra_statistics: wire.extra_statistics,
            max_retries: wire.max_retry_count,
            message_timeout_ms: match wire.message_timeout {
                Some(MessageTimeout::MessageTimeoutTicks(ticks)) => ticks / TICKS_PER_MS,
                Some(MessageTimeout::MessageTimeoutMs(ms)) => ms.into(),
                // No limit.
                None => 0,
            },
            checkpoint_after_ms: match wire.checkpoint_after {
                Some(CheckpointAfter::CheckpointAfterTicks(ticks)) => ticks / TICKS_PER_MS,
                Some(CheckpointAfter::CheckpointAfterMs(ms)) => ms.into(),
                None => i32::MAX.into(),
            },
            min_checkpoint_count: wire.min_checkpoint_count,
            max_checkpoint_count: wire.max_checkpoint_count,
            max_subscribers: wire.max_subscriber_count,
            live_buffer_size: wire.live_buffer_size,
            read_batch_size: wire.read_batch_size,
            history_buffer_size: wire.history_buffer_size,
        })
    }
}
