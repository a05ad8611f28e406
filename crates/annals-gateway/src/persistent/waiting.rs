//! The events of a group that wait for a consumer.

use std::collections::VecDeque;

use annals_core::Version;

use crate::wire::ResolvedEvent;

/// Where an event comes from. The order is that in which events are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The event was parked and is replayed; with the version of its link. It does not move the
    /// group's checkpoint.
    Parked(Version),
    /// The event was read from the source; with its number in reading order.
    Source(u64),
}

/// An event on its way through the group.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) origin: Origin,
    pub(crate) event: ResolvedEvent,
    /// How often the event was given to a consumer before.
    pub(crate) retries: i32,
}

/// In the order of [`Origin`].
#[derive(Debug, Default)]
pub(crate) struct WaitingEvents {
    messages: VecDeque<Message>,
    /// The size of the events.
    bytes: usize,
}

impl WaitingEvents {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The size of the events in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of the events were given to a consumer before.
    pub(crate) fn retries(&self) -> usize {
        self.messages.iter().filter(|message| message.retries > 0).count()
    }

    /// Adds an event that was read just now.
    pub(crate) fn push(&mut self, message: Message) {
        self.bytes += message.event.size();
        self.messages.push_back(message);
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    pub(crate) fn remove(&mut self, index: usize) {
        if let Some(message) = self.messages.remove(index) {
            self.bytes = self.bytes.saturating_sub(message.event.size());
        }
    }

    /// Puts events back to their places in reading order, or adds replayed events.
    pub(crate) fn requeue(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            let is_later = |other: &Message| other.origin > message.origin;
            let index = self.messages.iter().position(is_later).unwrap_or(self.messages.len());
            self.bytes += message.event.size();
            self.messages.insert(index, message);
        }
    }
}
