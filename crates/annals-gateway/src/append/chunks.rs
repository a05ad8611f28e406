//! The messages of a batch, of which one or several make an append.

use std::{collections::HashSet, time::Duration};

use annals_core::Append;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use super::request::{LimitedEvents, Limits, write_target};
use crate::{
    proto::{
        shared::Uuid as WireUuid,
        streams::{BatchAppendReq, WriteOptions, write_options::DeadlineOption},
    },
    wire::{IdFormat, now, uuid_from_wire},
};

/// How many appends of one call may be incomplete at the same time.
const MAX_INCOMPLETE: usize = 64;
/// How long an append may take until it is complete, as in EventStoreDB. A client can ask for less.
const MAX_TIME: Duration = Duration::from_secs(2);

/// An append whose last message has not arrived yet.
struct IncompleteAppend {
    correlation_id: Option<WireUuid>,
    options: Option<WriteOptions>,
    events: Result<LimitedEvents, Status>,
    deadline: Instant,
}

/// An append whose messages have all arrived.
pub(super) struct CompleteAppend {
    pub(super) correlation_id: Option<WireUuid>,
    pub(super) options: WriteOptions,
    /// `None` if its deadline has passed.
    pub(super) append: Option<Result<Append, Status>>,
}

pub(super) struct IncompleteAppends {
    appends: Vec<IncompleteAppend>,
    /// The correlation ids, as their bytes, of appends that have timed out. Their further messages are
    /// left out.
    timed_out: HashSet<Uuid>,
    limits: Limits,
}

impl IncompleteAppends {
    pub(super) fn new(limits: Limits) -> Self {
        Self { appends: Vec::new(), timed_out: HashSet::new(), limits }
    }

    /// Adds a message to its append. Returns the append if it is complete now.
    pub(super) fn add(&mut self, message: BatchAppendReq) -> Option<CompleteAppend> {
        let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = message;
        if options.is_none() && self.is_rest_of_timed_out(correlation_id.as_ref(), is_final) {
            return None;
        }
        let index = self.appends.iter().position(|other| other.correlation_id == correlation_id);
        let mut append = match index {
            Some(index) => self.appends.swap_remove(index),
            None => IncompleteAppend {
                correlation_id,
                options: None,
                events: Ok(LimitedEvents::new(self.limits)),
                deadline: Instant::now() + MAX_TIME,
            },
        };
        if append.options.is_none()
            && let Some(options) = options
        {
            if let Some(left) = time_left(&options) {
                append.deadline = append.deadline.min(Instant::now() + left);
            }
            append.options = Some(options);
        }
        append.events = append.events.and_then(|mut events| {
            for event in proposed_messages {
                events.push(event)?;
            }
            Ok(events)
        });
        if !is_final && append.deadline > Instant::now() {
            if self.appends.len() < MAX_INCOMPLETE {
                self.appends.push(append);
                return None;
            }
            let message = "too many appends of this call are incomplete";
            append.events = Err(Status::resource_exhausted(message));
        }
        Some(append.complete())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// Ends the time of all appends, since no further message will come.
    pub(super) fn give_up(&mut self) {
        let now = Instant::now();
        self.appends.iter_mut().for_each(|append| append.deadline = now);
    }

    /// Waits until the deadline of an append passes, and takes the append. Cancel-safe.
    pub(super) async fn timed_out(&mut self) -> CompleteAppend {
        let deadlines = self.appends.iter().enumerate().map(|(index, one)| (one.deadline, index));
        let Some((deadline, index)) = deadlines.min() else { return std::future::pending().await };
        tokio::time::sleep_until(deadline).await;
        let mut append = self.appends.swap_remove(index);
        if let Ok(id) = uuid_from_wire(append.correlation_id.take()) {
            if self.timed_out.len() < MAX_INCOMPLETE {
                self.timed_out.insert(id);
            }
            // EventStoreDB answers this error with the id in this form, whatever the client sent.
            append.correlation_id = Some(IdFormat::Structured.write(id));
        }
        append.complete()
    }

    fn is_rest_of_timed_out(&mut self, id: Option<&WireUuid>, is_final: bool) -> bool {
        let Ok(id) = uuid_from_wire(id.cloned()) else { return false };
        if is_final { self.timed_out.remove(&id) } else { self.timed_out.contains(&id) }
    }
}

impl IncompleteAppend {
    fn complete(self) -> CompleteAppend {
        let Self { correlation_id, options, events, deadline } = self;
        let options = options.unwrap_or_default();
        if deadline <= Instant::now() {
            return CompleteAppend { correlation_id, options, append: None };
        }
        let append = check_correlation_id(correlation_id.as_ref()).and(events).and_then(|events| {
            let (stream, expected) = write_target(&options)?;
            Ok(Append::new(stream, expected, events.into_events()))
        });
        CompleteAppend { correlation_id, options, append: Some(append) }
    }
}

/// Refuses an append whose answer a client could not tell from others.
fn check_correlation_id(id: Option<&WireUuid>) -> Result<(), Status> {
    match uuid_from_wire(id.cloned()) {
        Ok(id) if !id.is_nil() => Ok(()),
        _ => Err(Status::invalid_argument("the correlation id must be a UUID that is not nil")),
    }
}

/// How long the client waits for the answer. `None` if the client does not say.
fn time_left(options: &WriteOptions) -> Option<Duration> {
    let since_1970 = |seconds: i64, nanos: i32| {
        Duration::new(seconds.try_into().unwrap_or(0), nanos.try_into().unwrap_or(0))
    };
    Some(match options.deadline_option.as_ref()? {
        DeadlineOption::Deadline(time) if time.seconds < 0 || time.nanos < 0 => Duration::ZERO,
        // The unit of .NET's times is 100 ns, so a shorter time is none.
        DeadlineOption::Deadline(time) => since_1970(time.seconds, time.nanos / 100 * 100),
        DeadlineOption::Deadline21100(time) => {
            let now = now();
            since_1970(time.seconds, time.nanos).saturating_sub(since_1970(now.seconds, now.nanos))
        }
    })
}
