//! What is recorded of a history: each call with its answer, and the times of both.

use annals_core::{Appended, ExpectedVersion, StreamInfo};

use super::ids::Batch;

/// The calls of one run of a program, and what the subscribers were told. Streams and events are
/// numbers; the last stream is that of the marks, in which the history begins and ends.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) streams: usize,
    /// In the order in which they began.
    pub(super) ops: Vec<Op>,
    pub(super) followed: Vec<Followed>,
    /// What the store declares.
    pub(super) rules: Rules,
}

/// What a store declares, as far as histories are judged by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A retry under `Any` or `StreamExists` is always recognised.
    pub(super) guaranteed: bool,
    /// An answer says whether the append was a retry.
    pub(super) tells_retries: bool,
    /// Removed events are gone from reads of all at once.
    pub(super) at_once: bool,
    /// The store has an order over all streams.
    pub(super) ordered: bool,
}

/// One call. Its times are ticks of a clock that all tasks of the history share.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) task: usize,
    pub(super) call: Call,
    pub(super) began: u64,
    /// [`NEVER`] if the outcome is unknown: the call can take effect at any later time.
    pub(super) ended: u64,
    pub(super) answer: Answer,
}

pub(super) const NEVER: u64 = u64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Append {
        writes: Vec<Write>,
        /// Whether the same append was sent before.
        again: bool,
    },
    Truncate {
        stream: usize,
        before: u64,
    },
    Delete {
        stream: usize,
        expected: ExpectedVersion,
    },
    Tombstone {
        stream: usize,
        expected: ExpectedVersion,
    },
    Read(Read),
    Info(usize),
    ReadAll(ReadAll),
}

/// The part of an append that goes to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) stream: usize,
    pub(super) expected: ExpectedVersion,
    pub(super) events: Batch,
}

/// A read of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) stream: usize,
    pub(super) from: Option<u64>,
    pub(super) backwards: bool,
    pub(super) limit: Option<u64>,
}

/// A read of all streams of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadAll {
    /// Only events after this position are wanted, in both directions.
    pub(super) after: u64,
    /// Where a backward read begins; `None`: at the end.
    pub(super) before: Option<u64>,
    pub(super) backwards: bool,
    pub(super) limit: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Appended(Vec<Appended>),
    /// The removal took place.
    Done,
    Conflict {
        stream: usize,
        actual: u64,
    },
    /// The stream is tombstoned.
    Closed,
    Events(Vec<Seen>),
    Info(StreamInfo),
    /// The call may have taken effect.
    Unknown(String),
    /// An answer that no call of a history may get.
    Wrong(String),
}

/// An event that a reader got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) stream: usize,
    pub(super) version: u64,
    pub(super) event: u32,
    pub(super) position: u64,
}

/// A subscription, from its begin to the mark at which it was dropped.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    /// `None`: all streams of the history.
    pub(super) stream: Option<usize>,
    pub(super) start: Start,
    /// When `subscribe` was called, and when it returned.
    pub(super) began: u64,
    pub(super) ended: u64,
    /// What it told, each with the time.
    pub(super) told: Vec<(u64, Told)>,
    /// Why it ended before its mark.
    pub(super) wrong: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Beginning,
    After(u64),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Event(Seen),
    /// Everything up to this position was delivered.
    UpTo(u64),
}

impl Call {
    /// The streams that the call changes, or reads as one.
    pub(super) fn streams(&self) -> Vec<usize> {
        match self {
            Self::Append { writes, .. } => writes.iter().map(|write| write.stream).collect(),
            Self::Truncate { stream, .. }
            | Self::Delete { stream, .. }
            | Self::Tombstone { stream, .. }
            | Self::Read(Read { stream, .. })
            | Self::Info(stream) => vec![*stream],
            Self::ReadAll(_) => Vec::new(),
        }
    }

    pub(super) fn removes(&self) -> bool {
        matches!(self, Self::Truncate { .. } | Self::Delete { .. } | Self::Tombstone { .. })
    }
}

impl Op {
    /// Whether the call may have taken effect, although no answer says so.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.answer, Answer::Unknown(_))
    }

    /// The appends of this call, with their answers if it was answered.
    pub(super) fn writes(&self) -> impl Iterator<Item = (&Write, Option<&Appended>)> {
        let writes = match &self.call {
            Call::Append { writes, .. } => &writes[..],
            _ => &[],
        };
        let answers = match &self.answer {
            Answer::Appended(answers) => &answers[..],
            _ => &[],
        };
        writes.iter().enumerate().map(|(n, write)| (write, answers.get(n)))
    }

    pub(super) fn seen(&self) -> &[Seen] {
        match &self.answer {
            Answer::Events(events) => events,
            _ => &[],
        }
    }
}

impl Followed {
    pub(super) fn events(&self) -> impl Iterator<Item = (u64, &Seen)> {
        self.told.iter().filter_map(|(time, told)| match told {
            Told::Event(seen) => Some((*time, seen)),
            Told::UpTo(_) => None,
        })
    }
}
