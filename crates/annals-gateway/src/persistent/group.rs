//! A group at work: reads its source, gives the events to its consumers, and keeps its progress.
//!
//! One task owns all of it. An event that was read is outstanding until a consumer has acknowledged
//! it, or it was skipped or parked; what is kept as progress is the event before the first that is
//! outstanding. So an event is given at least once, whoever dies.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use annals_core::{
    Append, ExpectedVersion, NewEvent, Payload, Position, ReadStream, Store, TryStreamExt,
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    config::{Group, Strategy},
    info::Counts,
};
use crate::{
    names::{Target, type_in},
    source::{From, Item, Items, Query, linked},
    status::status,
    wire::{LINK, Recorded, Resolved},
};

/// How long to wait before the source is read again after it failed.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// What a group is told.
pub(crate) enum Command {
    Connect {
        /// How many events it takes before it has answered any.
        slots: usize,
        events: mpsc::Sender<Result<(Resolved, i32), Status>>,
        /// Its number.
        reply: oneshot::Sender<Result<u64, Status>>,
    },
    Disconnect(u64),
    Ack(u64, Vec<Uuid>),
    Nack(u64, Vec<Uuid>, Action, String),
    Replay(u64, oneshot::Sender<Result<(), Status>>),
    Counts(oneshot::Sender<Counts>),
    /// It ends, and its consumers are told why.
    Stop(Status, oneshot::Sender<()>),
}

/// What becomes of an event that a consumer could not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Park,
    Retry,
    Skip,
    /// As a retry, and the consumer goes.
    Stop,
}

/// An event on its way.
#[derive(Clone, Debug)]
struct Message {
    /// In the order of reading; none for one that was parked, which is no part of the progress.
    number: Option<u64>,
    found: Resolved,
    retries: i32,
}

impl Message {
    /// By which consumers answer: the link's, where there is one.
    fn id(&self) -> Uuid {
        self.found.original().map(|event| event.id).unwrap_or_default()
    }
}

struct Given {
    message: Message,
    until: Option<Instant>,
}

struct Consumer {
    number: u64,
    slots: usize,
    given: HashMap<Uuid, Given>,
    events: mpsc::Sender<Result<(Resolved, i32), Status>>,
}

/// The task of a group.
pub(crate) struct Worker {
    store: Arc<dyn Store>,
    group: Group,
    commands: mpsc::Receiver<Command>,
    consumers: Vec<Consumer>,
    next_consumer: u64,
    /// Whose turn it is.
    turn: usize,
    /// Which consumer a stream is pinned to.
    hasher: RandomState,
    items: Option<Items>,
    waiting: VecDeque<Message>,
    next_number: u64,
    /// What was read and is not done, and where the event before each of them is.
    outstanding: BTreeMap<u64, Option<u64>>,
    /// Where the last event is that was read.
    read: Option<u64>,
    /// What is kept, and how many events were done since.
    kept: Option<u64>,
    done: i32,
    total: i64,
}

impl Worker {
    pub(crate) fn start(store: Arc<dyn Store>, group: Group) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(64);
        let worker = Self {
            store,
            group,
            commands,
            consumers: Vec::new(),
            next_consumer: 0,
            turn: 0,
            hasher: RandomState::new(),
            items: None,
            waiting: VecDeque::new(),
            next_number: 0,
            outstanding: BTreeMap::new(),
            read: None,
            kept: None,
            done: 0,
            total: 0,
        };
        tokio::spawn(worker.run());
        sender
    }

    async fn run(mut self) {
        let mut again = Instant::now();
        let mut keep_at = Instant::now() + self.group.settings.checkpoint_after();
        loop {
            self.give().await;
            if self.items.is_none() && again <= Instant::now() {
                match self.open().await {
                    Ok(items) => self.items = Some(items),
                    Err(error) => {
                        tracing::warn!(group = ?self.group.name, %error, "cannot read for a group");
                        again = Instant::now() + AGAIN;
                    }
                }
            }
            let room = self.waiting.len() < self.group.settings.read_ahead();
            let late = self.next_timeout();
            let items = &mut self.items;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Stop(why, reply)) => {
                        self.stop(why).await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.obey(command).await,
                    None => {
                        self.keep(true).await;
                        return;
                    }
                },
                item = next(items), if room && items.is_some() => match item {
                    Some(Ok(item)) => self.take(item),
                    Some(Err(error)) => {
                        tracing::warn!(group = ?self.group.name, %error, "reading for a group ended");
                        self.items = None;
                        again = Instant::now() + AGAIN;
                    }
                    None => self.items = None,
                },
                () = sleep_until(again), if items.is_none() => {}
                () = sleep_until(late.unwrap_or(again)), if late.is_some() => self.time_out().await,
                () = sleep_until(keep_at) => {
                    self.keep(false).await;
                    keep_at = Instant::now() + self.group.settings.checkpoint_after();
                }
            }
        }
    }

    /// Reads on after what is known to be done, or was read already.
    async fn open(&mut self) -> Result<Items, Status> {
        if self.read.is_none() {
            let kept = self.store.load_checkpoint(&self.group.name.subscriber()?).await;
            self.kept = kept.map_err(|e| status(&e))?.and_then(|kept| kept.get().checked_sub(1));
            self.read = self.kept;
        }
        let from = match (self.read, self.group.first) {
            (Some(read), _) => From::At(read),
            (None, 0) => From::Start,
            (None, first) => From::At(first - 1),
        };
        let filter = self.group.filter.as_ref().map(|filter| filter.compile()).transpose()?;
        let query = Query {
            store: self.store.clone(),
            target: self.group.name.target()?,
            from,
            filter,
            resolve_links: self.group.settings.resolve_links,
        };
        query.subscribe().await
    }

    fn take(&mut self, item: Item) {
        let found = match item {
            Item::Event(found) => found,
            // What the filter leaves out is done when all before it is.
            Item::Checkpoint(position) => {
                self.read = self.read.max(Some(position));
                return;
            }
            _ => return,
        };
        let of_stream = matches!(self.group.name.target(), Ok(Target::Stream(_)));
        let here = found.original().map(|event| match of_stream {
            true => event.revision,
            false => event.position,
        });
        let number = self.next_number;
        self.next_number += 1;
        self.total += 1;
        self.outstanding.insert(number, self.read);
        self.read = here;
        self.waiting.push_back(Message { number: Some(number), found, retries: 0 });
    }

    /// Gives what waits to those who can take it, in its order.
    async fn give(&mut self) {
        let mut left = VecDeque::new();
        while let Some(message) = self.waiting.pop_front() {
            let free = |consumer: &Consumer| consumer.given.len() < consumer.slots;
            if !self.consumers.iter().any(free) {
                left.push_back(message);
                break;
            }
            let id = message.id();
            // An id that is under way already cannot be told from this one when it is answered.
            let twice = self.consumers.iter().any(|consumer| consumer.given.contains_key(&id));
            let chosen = if twice { None } else { self.choose(&message) };
            let Some(index) = chosen else {
                left.push_back(message);
                continue;
            };
            let until = self.group.settings.message_timeout().map(|time| Instant::now() + time);
            let Some(consumer) = self.consumers.get_mut(index) else { continue };
            let sent = (message.found.clone(), message.retries);
            // There is room for all that it takes at a time.
            if consumer.events.try_send(Ok(sent)).is_err() {
                left.push_back(message);
                let number = consumer.number;
                self.disconnect(number);
                continue;
            }
            consumer.given.insert(id, Given { message, until });
        }
        left.append(&mut self.waiting);
        self.waiting = left;
    }

    /// Who gets an event; none, where that one has to answer first.
    fn choose(&mut self, message: &Message) -> Option<usize> {
        let free = |consumer: &Consumer| consumer.given.len() < consumer.slots;
        match self.group.settings.strategy {
            Strategy::DispatchToSingle => self.consumers.iter().position(free),
            Strategy::RoundRobin => {
                let count = self.consumers.len();
                let index = (0..count)
                    .map(|step| (self.turn + step) % count)
                    .find(|index| self.consumers.get(*index).is_some_and(free))?;
                self.turn = (index + 1) % count;
                Some(index)
            }
            strategy => {
                let key = pin(strategy, &message.found);
                // Whoever comes or goes moves only its own share.
                let weight = |consumer: &Consumer| self.hasher.hash_one((&key, consumer.number));
                let (index, consumer) = self
                    .consumers
                    .iter()
                    .enumerate()
                    .max_by_key(|(_, consumer)| weight(consumer))?;
                free(consumer).then_some(index)
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { slots, events, reply } => {
                let most = usize::try_from(self.group.settings.max_subscribers).unwrap_or(0);
                if most > 0 && self.consumers.len() >= most {
                    let exception = "maximum-subscribers-reached";
                    let (code, name) = (Code::FailedPrecondition, &self.group.name);
                    let mut error = name.error(code, exception, "is full");
                    // One of the clients reads this text.
                    error = Status::with_metadata(
                        code,
                        format!("Maximum subscriptions reached for group: {}", error.message()),
                        error.metadata().clone(),
                    );
                    let _ = reply.send(Err(error));
                    return;
                }
                let number = self.next_consumer;
                self.next_consumer += 1;
                let given = HashMap::new();
                self.consumers.push(Consumer { number, slots: slots.max(1), given, events });
                // Who has gone already is found out by the first event.
                let _ = reply.send(Ok(number));
            }
            Command::Disconnect(number) => {
                self.disconnect(number);
                // It may be long until somebody does more.
                self.keep(self.consumers.is_empty()).await;
            }
            Command::Ack(number, ids) => {
                for id in ids {
                    if let Some(message) = self.answered(number, id) {
                        self.finish(&message);
                    }
                }
                self.keep(false).await;
            }
            Command::Nack(number, ids, action, reason) => {
                for id in ids {
                    if let Some(message) = self.answered(number, id) {
                        self.refused(message, action, &reason).await;
                    }
                }
                if action == Action::Stop {
                    self.disconnect(number);
                }
                self.keep(false).await;
            }
            Command::Replay(most, reply) => {
                let replayed = self.replay(most).await;
                let _ = reply.send(replayed);
            }
            Command::Counts(reply) => {
                let _ = reply.send(self.counts());
            }
            // The loop has it.
            Command::Stop(..) => {}
        }
    }

    fn answered(&mut self, number: u64, id: Uuid) -> Option<Message> {
        let consumer = self.consumers.iter_mut().find(|consumer| consumer.number == number)?;
        consumer.given.remove(&id).map(|given| given.message)
    }

    fn finish(&mut self, message: &Message) {
        if let Some(number) = message.number {
            self.outstanding.remove(&number);
            self.done = self.done.saturating_add(1);
        }
    }

    async fn refused(&mut self, mut message: Message, action: Action, reason: &str) {
        match action {
            Action::Skip => self.finish(&message),
            Action::Retry | Action::Stop if message.retries < self.group.settings.max_retries => {
                message.retries += 1;
                self.put_back(message);
            }
            Action::Park | Action::Retry | Action::Stop => {
                match self.park(&message, reason).await {
                    Ok(()) => self.finish(&message),
                    Err(error) => {
                        tracing::warn!(group = ?self.group.name, %error, "an event cannot be parked");
                        self.put_back(message);
                    }
                }
            }
        }
    }

    /// In its place in the order of reading, before what was not given yet.
    fn put_back(&mut self, message: Message) {
        let after = |other: &Message| other.number > message.number;
        let place = self.waiting.iter().position(after).unwrap_or(self.waiting.len());
        self.waiting.insert(place, message);
    }

    /// What it had goes to others.
    fn disconnect(&mut self, number: u64) {
        let Some(index) = self.consumers.iter().position(|consumer| consumer.number == number)
        else {
            return;
        };
        let consumer = self.consumers.remove(index);
        let mut given: Vec<_> = consumer.given.into_values().map(|given| given.message).collect();
        given.sort_by_key(|message| message.number);
        for message in given {
            self.put_back(message);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let given = self.consumers.iter().flat_map(|consumer| consumer.given.values());
        given.filter_map(|given| given.until).min()
    }

    /// Whoever has not answered in time has not handled it.
    async fn time_out(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for consumer in &mut self.consumers {
            let out = consumer.given.extract_if(|_, given| given.until.is_some_and(|t| t <= now));
            late.extend(out.map(|(_, given)| given.message));
        }
        late.sort_by_key(|message| message.number);
        for message in late {
            self.refused(message, Action::Retry, "it was not answered in time").await;
        }
    }

    /// A link to the event, where an operator finds it.
    async fn park(&mut self, message: &Message, reason: &str) -> Result<(), Status> {
        let Some(event) = message.found.original() else { return Ok(()) };
        let link = NewEvent::new(type_in(LINK)?, Payload::binary(event.link()));
        let link = link.with_json_metadata(&json!({ "reason": reason }));
        let link = link.map_err(|e| status(&e))?;
        let append = Append::new(self.group.name.parked()?, ExpectedVersion::Any, [link]);
        self.store.append(append).await.map(drop).map_err(|e| status(&e))
    }

    /// Gives parked events again, the oldest so many, and forgets that they were parked.
    async fn replay(&mut self, most: u64) -> Result<(), Status> {
        let parked = self.group.name.parked()?;
        let mut links = self.store.read_stream(&parked, ReadStream::default().with_limit(most));
        let (mut last, mut replayed) = (None, Vec::new());
        while let Some(link) = links.try_next().await.map_err(|e| status(&e))? {
            last = Some(link.version);
            if let Some((_, event)) = linked(&*self.store, link.data.bytes()).await? {
                let found = Resolved::event(Recorded::new(&event));
                replayed.push(Message { number: None, found, retries: 0 });
            }
        }
        if let Some(last) = last {
            self.store.truncate(&parked, last.plus(1)).await.map_err(|e| status(&e))?;
        }
        for message in replayed {
            self.put_back(message);
        }
        Ok(())
    }

    /// The event before which everything is done, itself included.
    fn progress(&self) -> Option<u64> {
        self.outstanding.first_key_value().map_or(self.read, |(_, before)| *before)
    }

    /// Keeps how far it is, where enough was done since or it is time.
    async fn keep(&mut self, all: bool) {
        let progress = self.progress();
        let settings = &self.group.settings;
        let enough = self.done >= settings.max_checkpoint_count.max(1);
        if progress <= self.kept || !(all || enough || self.done >= settings.min_checkpoint_count) {
            return;
        }
        let (Some(here), Ok(subscriber)) = (progress, self.group.name.subscriber()) else { return };
        // One more, since 0 is nothing where a checkpoint is kept, and a revision here.
        match self.store.save_checkpoint(&subscriber, Position::new(here + 1)).await {
            Ok(_) => (self.kept, self.done) = (progress, 0),
            Err(error) => {
                tracing::warn!(group = ?self.group.name, %error, "progress is not kept");
            }
        }
    }

    fn counts(&self) -> Counts {
        let consumers = self.consumers.iter();
        Counts {
            consumers: consumers
                .map(|c| (c.slots - c.given.len().min(c.slots), c.given.len()))
                .collect(),
            waiting: self.waiting.iter().filter(|message| message.retries == 0).count(),
            retries: self.waiting.iter().filter(|message| message.retries > 0).count(),
            outstanding: self.outstanding.len(),
            total: self.total,
            kept: self.kept,
            known: self.read,
        }
    }

    async fn stop(&mut self, why: Status) {
        self.keep(true).await;
        for consumer in &self.consumers {
            // Whoever takes nothing finds that nothing comes.
            let _ = consumer.events.try_send(Err(why.clone()));
        }
    }
}

async fn next(items: &mut Option<Items>) -> Option<Result<Item, Status>> {
    match items {
        Some(items) => items.next().await,
        None => None,
    }
}

/// What decides to whom an event goes that is pinned.
fn pin(strategy: Strategy, found: &Resolved) -> String {
    let Some(event) = found.event.as_ref().or(found.link.as_ref()) else { return String::new() };
    if strategy == Strategy::PinnedByCorrelation {
        let metadata: Option<Value> = serde_json::from_slice(&event.metadata).ok();
        let correlation = metadata.as_ref().and_then(|m| m.get("$correlationId")?.as_str());
        if let Some(correlation) = correlation {
            return correlation.to_owned();
        }
    }
    event.stream.clone()
}
