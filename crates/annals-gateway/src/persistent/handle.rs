//! How the rest of the gateway talks to the task that runs a group.

use annals_core::Version;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use uuid::Uuid;

use crate::wire::ResolvedEvent;

/// How many commands may wait for the task.
const QUEUE: usize = 64;

/// An event for a consumer, with the number of earlier attempts; or why the subscription ends.
pub(crate) type Delivery = Result<(ResolvedEvent, i32), Status>;

/// What the task of a group is told.
pub(crate) enum Command {
    Connect {
        who: ConsumerName,
        /// How many events the consumer takes before it has answered any.
        slots: usize,
        events: mpsc::Sender<Delivery>,
        /// Answers the consumer's number.
        reply: oneshot::Sender<Result<u64, Status>>,
    },
    Disconnect {
        consumer: u64,
    },
    Ack {
        consumer: u64,
        ids: Vec<Uuid>,
    },
    Nack {
        consumer: u64,
        ids: Vec<Uuid>,
        action: Action,
        reason: String,
    },
    /// Gives parked events again, up to the revision `end` of their stream.
    Replay {
        end: Option<u64>,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    Counts {
        reply: oneshot::Sender<Counts>,
    },
    /// Ends the task. `why` is sent to the consumers.
    Stop {
        why: Status,
        reply: oneshot::Sender<()>,
    },
}

/// What to do with an event that a consumer could not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Park,
    Retry,
    Skip,
}

/// The state of a group, for `GetInfo` and `List`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) consumers: Vec<ConsumerCounts>,
    /// Events that wait for a consumer for the first time.
    pub(crate) waiting: usize,
    /// Events that wait for a consumer again.
    pub(crate) retries: usize,
    /// How many events came while the group had caught up.
    pub(crate) live: usize,
    pub(crate) outstanding: usize,
    /// How many events consumers were given.
    pub(crate) total: i64,
    /// The revision or position of the stored checkpoint, and of the last event read.
    pub(crate) checkpoint: Option<u64>,
    pub(crate) last_event: Option<u64>,
    /// The links to parked events up to this version do not count as parked: their events are
    /// replayed.
    pub(crate) replayed: Version,
}

#[derive(Clone, Debug)]
pub(crate) struct ConsumerCounts {
    pub(crate) who: ConsumerName,
    /// How many events the consumer was given.
    pub(crate) given: i64,
    pub(crate) free_slots: usize,
    pub(crate) in_flight: usize,
}

/// Who a consumer says that it is.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerName {
    pub(crate) user: String,
    pub(crate) connection: String,
}

/// A handle to the task of a group. The task ends when all handles are dropped.
#[derive(Clone, Debug)]
pub(crate) struct GroupHandle(mpsc::Sender<Command>);

impl GroupHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(QUEUE);
        (Self(sender), commands)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a command that has no reply. False if the task has ended.
    pub(crate) async fn send(&self, command: Command) -> bool {
        self.0.send(command).await.is_ok()
    }

    /// Adds a consumer. Returns its number.
    pub(crate) async fn connect(
        &self,
        who: ConsumerName,
        slots: usize,
        events: mpsc::Sender<Delivery>,
    ) -> Result<u64, Status> {
        self.ask(|reply| Command::Connect { who, slots, events, reply }).await.ok_or_else(ended)?
    }

    pub(crate) async fn replay(&self, end: Option<u64>) -> Result<(), Status> {
        self.ask(|reply| Command::Replay { end, reply }).await.ok_or_else(ended)?
    }

    /// `None` if the task has ended.
    pub(crate) async fn counts(&self) -> Option<Counts> {
        self.ask(|reply| Command::Counts { reply }).await
    }

    /// Ends the task, and waits until it has ended.
    pub(crate) async fn stop(&self, why: Status) {
        let _ = self.ask(|reply| Command::Stop { why, reply }).await;
    }

    /// Sends a command and waits for the reply. `None` if the task has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn ended() -> Status {
    Status::unavailable("the group has just ended; try again")
}
