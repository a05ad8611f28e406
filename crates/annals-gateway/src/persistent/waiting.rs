//! The events of a group that wait for a consumer.

use std::collections::VecDeque;

use crate::wire::ResolvedEvent;

/// An event on its way through the group.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The event's number in reading order. `None` for a parked event that is replayed: replayed
    /// events do not move the group's checkpoint.
    pub(crate) number: Option<u64>,
    pub(crate) event: ResolvedEvent,
    /// How often the event was given to a consumer before.
    pub(crate) retries: i32,
}

/// Replayed events come first, then the others in reading order.
#[derive(Debug, Default)]
pub(crate) struct WaitingEvents {
    messages: VecDeque<Message>,
}

impl WaitingEvents {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many of the events were given to a consumer before.
    pub(crate) fn retries(&self) -> usize {
        self.messages.iter().filter(|message| message.retries > 0).count()
    }

    /// Adds an event that was read just now.
    pub(crate) fn push(&mut self, message: Message) {
        self.messages.push_back(message);
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    pub(crate) fn remove(&mut self, index: usize) {
        self.messages.remove(index);
    }

    /// Puts events back to their places in reading order, or adds replayed events.
    pub(crate) fn requeue(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            let is_later = |other: &Message| other.number > message.number;
            let index = self.messages.iter().position(is_later).unwrap_or(self.messages.len());
            self.messages.insert(index, message);
        }
    }
}
