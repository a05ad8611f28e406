//! The task that runs a group: reads the group's source, gives the events to its consumers, and
//! stores its checkpoint. The task alone has the group's state, so nothing here is locked.

use std::sync::Arc;

use annals_core::Store;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};
use tonic::Status;
use uuid::Uuid;

use super::{
    catalog::Group,
    consumers::{Consumers, Offer},
    handle::{Action, Command, ConsumerName, Counts, Delivery, GroupHandle},
    name::is_state_of_groups,
    parked::{self, Reason, Replay},
    progress::{Progress, When, load_checkpoint, save_checkpoint},
    subscription::SourceSubscription,
    turn::Turn,
    waiting::{Message, Origin, WaitingEvents},
};
use crate::{read::ReadItem, tombstones::Tombstones, wire::ResolvedEvent, wire_stream::WireStream};

/// How many bytes of events may wait for a consumer before the group stops reading.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

pub(crate) struct Worker {
    store: Arc<dyn Store>,
    tombstones: Tombstones,
    group: Group,
    consumers: Consumers,
    waiting: WaitingEvents,
    progress: Progress,
    replay: Replay,
    subscription: SourceSubscription,
    turn: Turn,
    /// True while the group has read what there is.
    caught_up: bool,
    /// How many events came while the group had caught up.
    live: usize,
    /// Callers that want to know the group's state. They are told when the group has begun to read.
    asking: Vec<oneshot::Sender<Counts>>,
}

impl Worker {
    /// Starts the task. It runs until it is stopped, or all handles are dropped.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        tombstones: Tombstones,
        group: Group,
    ) -> Result<GroupHandle, Status> {
        let (handle, commands) = GroupHandle::new();
        let turn = Turn::new(&store, &group.name)?;
        let worker = Self {
            store,
            tombstones,
            group,
            consumers: Consumers::default(),
            waiting: WaitingEvents::default(),
            progress: Progress::default(),
            replay: Replay::default(),
            subscription: SourceSubscription::new(),
            turn,
            caught_up: false,
            live: 0,
            asking: Vec::new(),
        };
        tokio::spawn(worker.run(commands));
        Ok(handle)
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let period = self.group.settings.checkpoint_after();
        let mut checkpoint_time = interval_at(Instant::now() + period, period);
        checkpoint_time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dispatch().await;
            let (has_room, open_at) = (self.has_room(), self.subscription.closed_until());
            let turn_at = self.turn.next_try();
            if self.caught_up || !has_room {
                self.tell_counts();
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop { why, reply }) => {
                        self.store_progress(When::Ending).await;
                        self.turn.give_up().await;
                        self.consumers.end(&why);
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.execute(command).await,
                    None => {
                        self.store_progress(When::Ending).await;
                        self.turn.give_up().await;
                        return;
                    }
                },
                item = self.subscription.next(), if self.subscription.is_open() && has_room => {
                    if let Some(item) = item {
                        self.take(item);
                    }
                }
                () = sleep_until(open_at.unwrap_or_else(Instant::now)), if open_at.is_some() => {
                    self.open_subscription().await;
                }
                () = sleep_until(turn_at.unwrap_or_else(Instant::now)), if turn_at.is_some() => {
                    self.take_turn().await;
                }
                messages = self.consumers.timed_out() => {
                    self.retry(messages).await;
                }
                _ = checkpoint_time.tick() => self.store_progress(When::TimePassed).await,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < self.group.settings.read_ahead()
            && self.waiting.bytes() < MAX_WAITING_BYTES
    }

    /// Gets the turn of this gateway, or keeps it. If another gateway has gone on with the group
    /// meanwhile, this one begins after what that one has done.
    async fn take_turn(&mut self) {
        if !self.turn.take().await {
            return;
        }
        match load_checkpoint(&*self.store, &self.group.name).await {
            Ok(stored) if stored == self.progress.checkpoint() || self.progress.is_new() => {}
            Ok(_) => self.begin_again(),
            Err(error) => {
                tracing::warn!(group = ?self.group.name, %error, "could not load a checkpoint");
                self.begin_again();
            }
        }
    }

    /// Forgets what was read, and reads again after the stored checkpoint.
    fn begin_again(&mut self) {
        self.consumers.forget();
        self.waiting = WaitingEvents::default();
        (self.progress, self.replay) = (Progress::default(), Replay::default());
        self.subscription = SourceSubscription::new();
        (self.caught_up, self.live) = (false, 0);
    }

    async fn open_subscription(&mut self) {
        self.caught_up = false;
        let Self { store, tombstones, group, progress, .. } = self;
        let exists = self.subscription.open(store, tombstones, group, progress).await;
        if !exists {
            self.drop_consumers().await;
        }
        if !self.subscription.is_open() {
            self.tell_counts();
        }
    }

    /// Ends all consumers, since the source was tombstoned.
    async fn drop_consumers(&mut self) {
        let messages = self.consumers.end(&self.group.name.dropped());
        self.retry(messages).await;
    }

    fn tell_counts(&mut self) {
        for caller in std::mem::take(&mut self.asking) {
            // If the caller has gone, nobody has to be told.
            let _ = caller.send(self.counts());
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
                self.live += usize::from(self.caught_up);
                self.waiting.push(Message { origin, event, retries: 0 });
            }
            ReadItem::Checkpoint(position) => {
                self.progress.pass(position);
                self.tell_counts();
            }
            ReadItem::CaughtUp(_) => self.caught_up = true,
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
        while self.turn.is_ours()
            && self.consumers.have_free_slot()
            && let Some(message) = self.waiting.get(index)
        {
            match self.consumers.offer(message, &self.group) {
                Offer::Accepted => self.waiting.remove(index),
                Offer::Refused => index += 1,
                Offer::Disconnected(messages) => {
                    self.retry(messages).await;
                    index = 0;
                }
            }
        }
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Connect { who, slots, events, reply } => {
                // If the caller has gone, the first event that is sent to it finds that out.
                let _ = reply.send(self.connect(who, slots, events));
                if self.turn.next_try().is_none() {
                    self.take_turn().await;
                }
                if self.subscription.has_ended() {
                    self.drop_consumers().await;
                }
            }
            Command::Disconnect { consumer } => {
                let messages = self.consumers.disconnect(consumer);
                self.retry(messages).await;
                // After the last consumer has gone, it may be long until more events are done.
                let last = self.consumers.len() == 0;
                self.store_progress(if last { When::Ending } else { When::Answered }).await;
                if last {
                    self.turn.give_up().await;
                }
            }
            Command::Ack { consumer, ids } => {
                for message in self.answered(consumer, ids) {
                    self.finish(&message);
                }
                self.store_progress(When::Answered).await;
            }
            Command::Nack { consumer, ids, action, reason } => {
                let messages = self.answered(consumer, ids);
                match action {
                    Action::Skip => messages.iter().for_each(|message| self.finish(message)),
                    Action::Retry => self.retry(messages).await,
                    Action::Park => {
                        for message in messages {
                            self.park(message, &Reason::Nack(reason.clone())).await;
                        }
                    }
                }
                self.store_progress(When::Answered).await;
            }
            Command::Replay { end, reply } => {
                let _ = reply.send(self.replay(end).await);
            }
            Command::Counts { reply } => {
                self.asking.push(reply);
                if self.subscription.has_ended() {
                    self.tell_counts();
                }
            }
            // `run` handles this one.
            Command::Stop { .. } => {}
        }
    }

    fn connect(
        &mut self,
        who: ConsumerName,
        slots: usize,
        events: mpsc::Sender<Delivery>,
    ) -> Result<u64, Status> {
        let most = usize::try_from(self.group.settings.max_subscribers).unwrap_or(0);
        if most > 0 && self.consumers.len() >= most {
            return Err(self.group.name.full());
        }
        Ok(self.consumers.connect(who, slots, events))
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

    /// Gives events again that no consumer has handled, also if their consumer has gone: an event that
    /// crashes its consumers is parked in the end.
    async fn retry(&mut self, messages: Vec<Message>) {
        let most = self.group.settings.max_retries;
        for mut message in messages {
            if message.retries < most {
                message.retries += 1;
                self.waiting.requeue([message]);
            } else {
                self.park(message, &Reason::Retries(most)).await;
            }
        }
    }

    async fn park(&mut self, message: Message, reason: &Reason) {
        let name = &self.group.name;
        match parked::park(&*self.store, name, &message.event, reason).await {
            Ok(()) => self.finish(&message),
            Err(error) => {
                tracing::warn!(group = ?name, %error, "could not park an event");
                self.waiting.requeue([message]);
            }
        }
    }

    async fn replay(&mut self, end: Option<u64>) -> Result<(), Status> {
        if !self.turn.is_ours() {
            self.take_turn().await;
            if !self.turn.is_ours() {
                let message = "the consumers of the group are connected to another server";
                return Err(Status::unavailable(message));
            }
        }
        let events = self.replay.read(&*self.store, &self.group.name, end).await?;
        self.waiting.requeue(events.into_iter().map(|(version, event)| {
            let origin = Origin::Parked(version);
            Message { origin, event, retries: 0 }
        }));
        if self.consumers.len() == 0 {
            self.turn.give_up().await;
        }
        Ok(())
    }

    /// Stores the checkpoint if it is due. Removes the links to parked events that are done.
    async fn store_progress(&mut self, when: When) {
        let (store, name) = (&*self.store, &self.group.name);
        if let Some(place) = self.progress.due(&self.group.settings, when) {
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
            live: self.live,
            outstanding: self.consumers.in_flight(),
            total: self.consumers.given(),
            checkpoint: self.progress.checkpoint(),
            last_event: self.progress.last_event(),
            replayed: self.replay.last(),
        }
    }
}
