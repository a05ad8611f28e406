//! The consumers that are connected to a group, and the events that each of them has not answered.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::time::{DelayQueue, delay_queue};
use tonic::Status;
use uuid::Uuid;

use super::{
    catalog::Group,
    handle::{ConsumerCounts, ConsumerName, Delivery},
    settings::Strategy,
    waiting::Message,
};
use crate::wire::ResolvedEvent;

/// How many bytes of events may be in flight before no consumer gets another one.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What became of a message that was offered to the consumers.
pub(crate) enum Offer {
    Accepted,
    /// The message has to wait until a consumer has answered.
    Refused,
    /// The consumer that was chosen has gone. These are the messages that it had not answered.
    Disconnected(Vec<Message>),
}

#[derive(Debug)]
struct Consumer {
    number: u64,
    who: ConsumerName,
    given: i64,
    slots: usize,
    in_flight: HashMap<Uuid, InFlight>,
    events: mpsc::Sender<Delivery>,
}

/// A message that a consumer has not answered yet.
#[derive(Debug)]
struct InFlight {
    message: Message,
    timeout: Option<delay_queue::Key>,
}

impl Consumer {
    fn has_free_slot(&self) -> bool {
        self.in_flight.len() < self.slots
    }
}

#[derive(Debug, Default)]
pub(crate) struct Consumers {
    connected: Vec<Consumer>,
    next_number: u64,
    /// The index of the consumer whose turn it is, for `Strategy::RoundRobin`.
    turn: usize,
    /// Chooses the consumer that a stream is pinned to.
    hasher: RandomState,
    /// The size of the events in flight.
    bytes: usize,
    /// How many events consumers were given.
    given: i64,
    /// When the events in flight time out: the consumer's number, and the event's id.
    timeouts: DelayQueue<(u64, Uuid)>,
}

impl Consumers {
    pub(crate) fn len(&self) -> usize {
        self.connected.len()
    }

    /// Returns the number of the new consumer.
    pub(crate) fn connect(
        &mut self,
        who: ConsumerName,
        slots: usize,
        events: mpsc::Sender<Delivery>,
    ) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let in_flight = HashMap::new();
        let slots = slots.max(1);
        self.connected.push(Consumer { number, who, given: 0, slots, in_flight, events });
        number
    }

    /// Returns the messages that the consumer had not answered.
    pub(crate) fn disconnect(&mut self, number: u64) -> Vec<Message> {
        let index = self.connected.iter().position(|consumer| consumer.number == number);
        index.map(|index| self.disconnect_at(index)).unwrap_or_default()
    }

    fn disconnect_at(&mut self, index: usize) -> Vec<Message> {
        let consumer = self.connected.remove(index);
        let mut messages = Vec::with_capacity(consumer.in_flight.len());
        for InFlight { message, timeout } in consumer.in_flight.into_values() {
            self.cancel(timeout);
            self.bytes = self.bytes.saturating_sub(message.event.size());
            messages.push(message);
        }
        messages.sort_by_key(|message| message.origin);
        messages
    }

    pub(crate) fn have_free_slot(&self) -> bool {
        self.bytes < MAX_BYTES && self.connected.iter().any(Consumer::has_free_slot)
    }

    /// Gives a message to the consumer that the group's strategy chooses.
    pub(crate) fn offer(&mut self, message: &Message, group: &Group) -> Offer {
        let settings = &group.settings;
        let id = event_id(message);
        // If an event with this id is in flight already, an answer could mean either of the two.
        if self.connected.iter().any(|consumer| consumer.in_flight.contains_key(&id)) {
            return Offer::Refused;
        }
        let index = self.choose(settings.strategy, &message.event);
        let Some(consumer) = index.and_then(|index| self.connected.get_mut(index)) else {
            return Offer::Refused;
        };
        // The channel has room for as many events as the consumer has slots, and a few more. So an
        // error means that the consumer has gone. If only the last place is left, the consumer takes
        // nothing, and is told so in that place.
        let lags = consumer.events.capacity() <= 1;
        let told = match lags {
            true => Err(group.name.dropped()),
            false => Ok((message.event.clone(), message.retries)),
        };
        if consumer.events.try_send(told).is_err() || lags {
            let number = consumer.number;
            return Offer::Disconnected(self.disconnect(number));
        }
        let timeout = settings.message_timeout();
        let timeout = timeout.map(|after| self.timeouts.insert((consumer.number, id), after));
        self.bytes += message.event.size();
        self.given += 1;
        consumer.given += 1;
        consumer.in_flight.insert(id, InFlight { message: message.clone(), timeout });
        Offer::Accepted
    }

    /// The index of the consumer for an event. `None` if that consumer has no free slot.
    fn choose(&mut self, strategy: Strategy, event: &ResolvedEvent) -> Option<usize> {
        match strategy {
            Strategy::DispatchToSingle => self.connected.iter().position(Consumer::has_free_slot),
            Strategy::RoundRobin => {
                let count = self.connected.len();
                let index = (0..count).map(|step| (self.turn + step) % count).find(|index| {
                    self.connected.get(*index).is_some_and(Consumer::has_free_slot)
                })?;
                self.turn = (index + 1) % count;
                Some(index)
            }
            Strategy::Pinned | Strategy::PinnedByCorrelation => {
                let key = pin_key(strategy, event);
                // Rendezvous hashing: when a consumer comes or goes, only the streams that are
                // pinned to it change their consumer.
                let weight = |consumer: &Consumer| self.hasher.hash_one((&key, consumer.number));
                let (index, consumer) = self
                    .connected
                    .iter()
                    .enumerate()
                    .max_by_key(|(_, consumer)| weight(consumer))?;
                consumer.has_free_slot().then_some(index)
            }
        }
    }

    /// Takes the message that a consumer has answered. `None` if the consumer does not have it, for
    /// example since it timed out.
    pub(crate) fn answered(&mut self, number: u64, id: Uuid) -> Option<Message> {
        let InFlight { message, timeout } = self.take(number, id)?;
        self.cancel(timeout);
        Some(message)
    }

    fn take(&mut self, number: u64, id: Uuid) -> Option<InFlight> {
        let consumer = self.connected.iter_mut().find(|consumer| consumer.number == number)?;
        let taken = consumer.in_flight.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(taken.message.event.size());
        Some(taken)
    }

    fn cancel(&mut self, timeout: Option<delay_queue::Key>) {
        if let Some(key) = timeout {
            self.timeouts.try_remove(&key);
        }
    }

    /// Waits until events time out, and takes all whose time is up. Cancel-safe.
    pub(crate) async fn timed_out(&mut self) -> Vec<Message> {
        let Some(first) = self.timeouts.next().await else {
            // The queue is empty, and nothing can be added while this borrows it.
            return std::future::pending().await;
        };
        let mut expired = vec![first.into_inner()];
        while let Some(Some(next)) = self.timeouts.next().now_or_never() {
            expired.push(next.into_inner());
        }
        let take = |(number, id)| Some(self.take(number, id)?.message);
        let mut messages: Vec<_> = expired.into_iter().filter_map(take).collect();
        messages.sort_by_key(|message| message.origin);
        messages
    }

    pub(crate) fn counts(&self) -> Vec<ConsumerCounts> {
        let counts = |consumer: &Consumer| ConsumerCounts {
            who: consumer.who.clone(),
            given: consumer.given,
            free_slots: consumer.slots.saturating_sub(consumer.in_flight.len()),
            in_flight: consumer.in_flight.len(),
        };
        self.connected.iter().map(counts).collect()
    }

    /// How many events consumers were given.
    pub(crate) fn given(&self) -> i64 {
        self.given
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.connected.iter().map(|consumer| consumer.in_flight.len()).sum()
    }

    /// Forgets what is in flight: answers of consumers to it mean nothing any more.
    pub(crate) fn forget(&mut self) {
        for consumer in &mut self.connected {
            consumer.in_flight.clear();
        }
        self.timeouts.clear();
        self.bytes = 0;
    }

    /// Disconnects every consumer, and tells it why. Returns the messages that were not answered.
    pub(crate) fn end(&mut self, why: &Status) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(consumer) = self.connected.last() {
            // If the consumer has gone, nobody has to be told.
            let _ = consumer.events.try_send(Err(why.clone()));
            messages.extend(self.disconnect_at(self.connected.len() - 1));
        }
        messages
    }
}

/// The id by which consumers answer: that of the link, if the event is linked.
fn event_id(message: &Message) -> Uuid {
    message.event.original().map(|event| event.id).unwrap_or_default()
}

/// Events with the same key go to the same consumer.
fn pin_key(strategy: Strategy, event: &ResolvedEvent) -> String {
    let Some(event) = event.event.as_ref().or(event.link.as_ref()) else { return String::new() };
    if strategy == Strategy::PinnedByCorrelation {
        let metadata: Option<Value> = serde_json::from_slice(&event.metadata).ok();
        let correlation = metadata.as_ref().and_then(|m| m.get("$correlationId")?.as_str());
        if let Some(correlation) = correlation {
            return correlation.to_owned();
        }
    }
    event.stream.clone()
}
