//! Subscriptions: the events that are there, then those that are appended.

use annals_core::{
    Error, Message, Source, Start, StreamState, Subscribe, Subscription, adapter::CHECKPOINT_EVERY,
};
use async_stream::try_stream;
use tonic::Status;

use super::request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
use crate::{
    metadata::HiddenEvents,
    names::{is_metadata, to_wire},
    status::{status, stream_deleted},
    tombstones::Watch,
    wire::{ResolvedEvent, WireEvent},
    wire_stream::WireStream,
};

/// What comes next in a subscription to a stream.
#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
enum Next {
    Message(Result<Message, Error>),
    /// The stream was tombstoned, or perhaps so, if there is no event.
    Tombstone(Option<ResolvedEvent>),
}

impl ReadRequest {
    /// Subscribes. The store is read only as fast as the caller takes the items.
    pub(crate) async fn subscribe(self) -> Result<ReadItems, Status> {
        if self.filter.as_ref().is_some_and(|filter| filter.checkpoint_every == 0) {
            let message = "the multiplier of the checkpoint interval is 0; set it to 1 or more";
            return Err(Status::invalid_argument(message));
        }
        match &self.stream {
            WireStream::Stream(stream) => {
                // Watch before the check, so that no tombstone is between the two.
                let watch = self.tombstones.watch(stream).await?;
                if self.info(stream).await?.state == StreamState::Tombstoned {
                    return Err(stream_deleted(to_wire(stream.as_str())));
                }
                let hidden = HiddenEvents::of(&*self.store, stream).await?;
                let start = match self.from {
                    ReadFrom::Start => Start::Beginning,
                    ReadFrom::End => Start::End,
                    ReadFrom::At(revision) => {
                        Start::AfterVersion(revision.saturating_add(1).into())
                    }
                };
                let subscription = self.open(stream.clone().into(), start).await?;
                Ok(self.follow_stream(subscription, hidden, watch))
            }
            WireStream::All | WireStream::Linked(_) => {
                let start = match self.from {
                    ReadFrom::Start => Start::Beginning,
                    ReadFrom::End => Start::End,
                    ReadFrom::At(position) => Start::After(position.into()),
                };
                // The client's filter is applied here, not in the store: a client gets a checkpoint
                // after a number of events that do not match, and the store would not count them.
                let subscription = self.open(self.linked_filter().into(), start).await?;
                Ok(self.follow_all(subscription))
            }
        }
    }

    /// The store refuses a place that it has never given, such as one of another server: the
    /// subscription would get nothing until the store is there.
    async fn open(&self, source: Source, start: Start) -> Result<Subscription, Status> {
        let options = Subscribe::to(source).with_start(start);
        self.store.subscribe(options).await.map_err(|e| status(&e))
    }

    fn follow_stream(
        self,
        mut messages: Subscription,
        hidden: HiddenEvents,
        mut watch: Watch,
    ) -> ReadItems {
        Box::pin(try_stream! {
            let mut last_revision = None;
            // Of a metadata stream, clients see only the last event of those that were there.
            let mut held = None;
            let mut holds = matches!(&self.stream, WireStream::Stream(s) if is_metadata(s));
            loop {
                let next = tokio::select! {
                    biased;
                    message = messages.next() => Next::Message(message),
                    tombstone = watch.tombstoned() => Next::Tombstone(tombstone),
                };
                let message = match next {
                    Next::Message(message) => message.map_err(|e| status(&e))?,
                    Next::Tombstone(None) if !self.is_tombstoned().await? => continue,
                    Next::Tombstone(tombstone) => {
                        if let Some(tombstone) = tombstone {
                            yield ReadItem::Event(tombstone);
                        }
                        let end: Result<(), _> = Err(stream_deleted(&self.stream.name()));
                        end?;
                        continue;
                    }
                };
                match message {
                    Message::Event(event) => {
                        last_revision = Some(event.version.get() - 1);
                        if hidden.hides(&event) {
                            continue;
                        }
                        let event = self.resolve(WireEvent::new(&event)).await?;
                        match holds {
                            true => held = Some(event),
                            false => yield ReadItem::Event(event),
                        }
                    }
                    Message::CaughtUp(_) => {
                        holds = false;
                        if let Some(event) = held.take() {
                            yield ReadItem::Event(event);
                        }
                        yield ReadItem::CaughtUp(last_revision);
                    }
                    _ => {}
                }
            }
        })
    }

    async fn is_tombstoned(&self) -> Result<bool, Status> {
        match &self.stream {
            WireStream::Stream(stream) => {
                Ok(self.info(stream).await?.state == StreamState::Tombstoned)
            }
            _ => Ok(false),
        }
    }

    /// Only clients with a filter get checkpoints: without one, they get every event.
    fn follow_all(self, mut messages: Subscription) -> ReadItems {
        Box::pin(try_stream! {
            let checkpoint_every = self.filter.as_ref().map(|filter| filter.checkpoint_every);
            let mut last_position = None;
            // The position of the last event, or checkpoint, that the client got.
            let mut told = 0;
            // Events that were looked at since the last checkpoint, whether they matched or not.
            let mut looked_at = 0;
            loop {
                match messages.next().await.map_err(|e| status(&e))? {
                    Message::Event(event) => {
                        let position = event.position.get();
                        last_position = Some(position);
                        looked_at += 1;
                        if let Some(event) = self.matching(&event).await? {
                            told = position;
                            yield ReadItem::Event(event);
                        }
                        if checkpoint_every.is_some_and(|every| looked_at >= every) {
                            looked_at = 0;
                            told = position;
                            yield ReadItem::Checkpoint(position);
                            // While nothing matches, this never waits. What was said so far is only
                            // sent when it does, or when it is 32 KiB.
                            tokio::task::yield_now().await;
                        }
                    }
                    Message::Checkpoint(position) => {
                        last_position = Some(position.get());
                        // A client may keep checkpoints in a stream of this store. One for each
                        // event that is left out would lead to the next one, for ever.
                        let due = told.saturating_add(CHECKPOINT_EVERY);
                        if checkpoint_every.is_some() && position.get() >= due {
                            told = position.get();
                            yield ReadItem::Checkpoint(position.get());
                        }
                    }
                    Message::CaughtUp(position) => {
                        if position.get() > 0 {
                            last_position = Some(position.get());
                            // Unless the last checkpoint said the same.
                            if checkpoint_every.is_some() && told < position.get() {
                                told = position.get();
                                yield ReadItem::Checkpoint(position.get());
                            }
                        }
                        yield ReadItem::CaughtUp(last_position);
                    }
                    _ => {}
                }
            }
        })
    }
}
