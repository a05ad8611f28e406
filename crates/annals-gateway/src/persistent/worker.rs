//! The task that runs a group: reads the group's source, gives the events to its consumers, and
//! stores its checkpoint. The task alone has the group's state, so nothing here is locked.

use std::sync::Arc;

use annals_core::Store;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};
use tonic::Status;
use uuid::Uuid;

use super::{
    catalog::Group,
    consumers::{Consumers, Offer},
    handle::{Action, Command, Counts, Delivery, GroupHandle},
    name::is_state_of_groups,
    parked::{self, Replay},
    progress::{Progress, save_checkpoint},
    subscription::SourceSubscription,
    waiting::{Message, Origin, WaitingEvents},
};
use crate::{names::WireStream, read::ReadItem, wire::ResolvedEvent};

pub(crate) struct Worker {
    store: Arc<dyn Store>,
    group: Group,
    consumers: Consumers,
    waiting: WaitingEvents,
    progress: Progress,
    replay: Replay,
    subscription: SourceSubscription,
}

impl Worker {
    /// Starts the task. It runs until it is stopped, or all handles are dropped.
    pub(crate) fn start(store: Arc<dyn Store>, group: Group) -> GroupHandle {
        let (handle, commands) = GroupHandle::new();
        let worker = Self {
            store,
            group,
            consumers: Consumers::default(),
            waiting: WaitingEvents::default(),
            progress: Progress::default(),
            replay: Replay::default(),
            subscription: SourceSubscription::new(),
        };
        tokio::spawn(worker.run(commands));
        handle
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let period = self.group.settings.checkpoint_after();
        let mut checkpoint_time = interval_at(Instant::now() + period, period);
        checkpoint_time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dispatch().await;
            let has_room = self.waiting.len() < self.group.settings.read_ahead();
            let open_at = self.subscription.closed_until();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop { why, reply }) => {
                        self.store_progress(true).await;
                        self.consumers.end(&why);
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.execute(command).await,
                    None => {
                        self.store_progress(true).await;
                        return;
                    }
                },
                item = self.subscription.next(), if open_at.is_none() && has_room => {
                    if let Some(item) = item {
                        self.take(item);
                    }
                }
                () = sleep_until(open_at.unwrap_or_else(Instant::now)), if open_at.is_some() => {
                    self.subscription.open(&self.store, &self.group, &mut self.progress).await;
                }
                messages = self.consumers.timed_out() => {
                    for message in messages {
                        let reason = "no consumer answered the event in time";
                        self.not_handled(message, Action::Retry, reason).await;
                    }
                }
                _ = checkpoint_time.tick() => self.store_progress(false).await,
            }
        }
    }

    fn take(&mut self, item: ReadItem) {
        match item {
            ReadItem::Event(event) if self.is_own_state(&event) => {
                if let Some(event) = event.original() {
                    self.progress.pass(event.position);
                }
            }
            ReadItem::Event(event) => {
                let is_stream = matches!(self.group.name.stream(), Ok(WireStream::Stream(_)));
                let place = event.original().map(|event| match is_stream {
                    true => event.revision,
                    false => event.position,
                });
                let origin = Origin::Source(self.progress.begin(place));
                self.waiting.push(Message { origin, event, retries: 0 });
            }
            ReadItem::Checkpoint(position) => self.progress.pass(position),
            _ => {}
        }
    }

    /// True if a group on `$all` has read an event that groups have written for themselves. Without
    /// this check, each event that the group parks would be given to its consumers.
    fn is_own_state(&self, event: &ResolvedEvent) -> bool {
        matches!(self.group.name.stream(), Ok(WireStream::All))
            && event.original().is_some_and(|event| is_state_of_groups(&event.stream))
    }

    /// Gives waiting events to consumers, until no consumer can take one.
    async fn dispatch(&mut self) {
        let mut index = 0;
        while self.consumers.have_free_slot()
            && let Some(message) = self.waiting.get(index)
        {
            match self.consumers.offer(message, &self.group.settings) {
                Offer::Accepted => self.waiting.remove(index),
                Offer::Refused => index += 1,
                Offer::Disconnected(messages) => {
                    self.lost(messages).await;
                    index = 0;
                }
            }
        }
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Connect { slots, events, reply } => {
                // If the caller has gone, the first event that is sent to it finds that out.
                let _ = reply.send(self.connect(slots, events));
            }
            Command::Disconnect { consumer } => {
                let messages = self.consumers.disconnect(consumer);
                self.lost(messages).await;
                // After the last consumer has gone, it may be long until more events are done.
                self.store_progress(self.consumers.len() == 0).await;
            }
            Command::Ack { consumer, ids } => {
                for message in self.answered(consumer, ids) {
                    self.finish(&message);
                }
                self.store_progress(false).await;
            }
            Command::Nack { consumer, ids, action, reason } => {
                for message in self.answered(consumer, ids) {
                    self.not_handled(message, action, &reason).await;
                }
                if action == Action::Stop {
                    let messages = self.consumers.disconnect(consumer);
                    self.lost(messages).await;
                }
                self.store_progress(false).await;
            }
            Command::Replay { most, reply } => {
                let _ = reply.send(self.replay(most).await);
            }
            Command::Counts { reply } => {
                let _ = reply.send(self.counts());
            }
            // `run` handles this one.
            Command::Stop { .. } => {}
        }
    }

    fn connect(&mut self, slots: usize, events: mpsc::Sender<Delivery>) -> Result<u64, Status> {
        let most = usize::try_from(self.group.settings.max_subscribers).unwrap_or(0);
        if most > 0 && self.consumers.len() >= most {
            return Err(self.group.name.full());
        }
        Ok(self.consumers.connect(slots, events))
    }

    fn answered(&mut self, consumer: u64, ids: Vec<Uuid>) -> Vec<Message> {
        ids.into_iter().filter_map(|id| self.consumers.answered(consumer, id)).collect()
    }

    fn finish(&mut self, message: &Message) {
        match message.origin {
            Origin::Source(number) => self.progress.finish(number),
            Origin::Parked(version) => self.replay.finish(version),
        }
    }

    /// Retries the events of a consumer that has gone. Each counts as tried, as in EventStoreDB, so that
    /// an event that crashes its consumers is parked in the end.
    async fn lost(&mut self, messages: Vec<Message>) {
        for message in messages {
            let reason = "the consumer disconnected before it answered the event";
            self.not_handled(message, Action::Retry, reason).await;
        }
    }

    /// Deals with an event that a consumer could not handle.
    async fn not_handled(&mut self, mut message: Message, action: Action, reason: &str) {
        match action {
            Action::Skip => self.finish(&message),
            Action::Retry | Action::Stop if message.retries < self.group.settings.max_retries => {
                message.retries += 1;
                self.waiting.requeue([message]);
            }
            Action::Park | Action::Retry | Action::Stop => {
                let name = &self.group.name;
                match parked::park(&*self.store, name, &message.event, reason).await {
                    Ok(()) => self.finish(&message),
                    Err(error) => {
                        tracing::warn!(group = ?name, %error, "could not park an event");
                        self.waiting.requeue([message]);
                    }
                }
            }
        }
    }

    async fn replay(&mut self, most: u64) -> Result<(), Status> {
        let events = self.replay.read(&*self.store, &self.group.name, most).await?;
        self.waiting.requeue(events.into_iter().map(|(version, event)| {
            let origin = Origin::Parked(version);
            Message { origin, event, retries: 0 }
        }));
        Ok(())
    }

    /// Stores the checkpoint if enough events are done, or, if `all`, if any is. Removes the links to
    /// parked events that are done.
    async fn store_progress(&mut self, all: bool) {
        let (store, name) = (&*self.store, &self.group.name);
        if let Some(place) = self.progress.due(&self.group.settings, all) {
            match save_checkpoint(store, name, place).await {
                Ok(()) => self.progress.stored(place),
                Err(error) => {
                    tracing::warn!(group = ?name, %error, "could not store a group's checkpoint");
                }
            }
        }
        if let Err(error) = self.replay.remove_done(store, name).await {
            tracing::warn!(group = ?name, %error, "could not remove links to replayed events");
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            consumers: self.consumers.counts(),
            waiting: self.waiting.len() - self.waiting.retries(),
            retries: self.waiting.retries(),
            outstanding: self.progress.outstanding(),
            total: self.progress.total(),
            checkpoint: self.progress.checkpoint(),
            last_read: self.progress.last_read(),
            replayed: self.replay.last(),
        }
    }
}
