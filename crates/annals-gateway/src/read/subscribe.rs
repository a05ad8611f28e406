//! Subscriptions: the events that are there, then those that are appended.

use annals_core::{
    Message, Source, Start, StreamState, Subscribe, Subscription, adapter::CHECKPOINT_EVERY,
};
use async_stream::try_stream;
use tonic::Status;

use super::request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
use crate::{
    metadata::HiddenEvents,
    names::{WireStream, to_wire},
    status::{status, stream_deleted},
    wire::WireEvent,
};

impl ReadRequest {
    /// Subscribes. The store is read only as fast as the caller takes the items.
    pub(crate) async fn subscribe(self) -> Result<ReadItems, Status> {
        match &self.stream {
            WireStream::Stream(stream) => {
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
                Ok(self.follow_stream(subscription, hidden))
            }
            WireStream::All | WireStream::Category(_) => {
                let start = match self.from {
                    ReadFrom::Start => Start::Beginning,
                    ReadFrom::End => Start::End,
                    ReadFrom::At(position) => Start::After(position.into()),
                };
                // The client's filter is applied here, not in the store: a client gets a checkpoint
                // after a number of events that do not match, and the store would not count them.
                let subscription = self.open(self.category_filter().into(), start).await?;
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

    fn follow_stream(self, mut messages: Subscription, hidden: HiddenEvents) -> ReadItems {
        Box::pin(try_stream! {
            let mut last_revision = None;
            loop {
                match messages.next().await.map_err(|e| status(&e))? {
                    Message::Event(event) => {
                        last_revision = Some(event.version.get() - 1);
                        if !hidden.hides(&event) {
                            yield ReadItem::Event(self.resolve(WireEvent::new(&event)).await?);
                        }
                    }
                    Message::CaughtUp(_) => yield ReadItem::CaughtUp(last_revision),
                    _ => {}
                }
            }
        })
    }

    /// Only clients with a filter get checkpoints: without one, they get every event.
    fn follow_all(self, mut messages: Subscription) -> ReadItems {
        Box::pin(try_stream! {
            let checkpoint_every = self.filter.as_ref().map(|filter| filter.checkpoint_every);
            let mut last_position = None;
            // The position of the last event, or checkpoint, that the client got.
            let mut told = 0;
            // Events that did not match since the client got an event or a checkpoint.
            let mut unmatched = 0;
            loop {
                match messages.next().await.map_err(|e| status(&e))? {
                    Message::Event(event) => {
                        let position = event.position.get();
                        last_position = Some(position);
                        if let Some(event) = self.matching(&event).await? {
                            unmatched = 0;
                            told = position;
                            yield ReadItem::Event(event);
                        } else {
                            unmatched += 1;
                            if checkpoint_every.is_some_and(|every| unmatched >= every) {
                                unmatched = 0;
                                told = position;
                                yield ReadItem::Checkpoint(position);
                                // While nothing matches, this never waits. What was said so far is
                                // only sent when it does, or when it is 32 KiB.
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                    Message::Checkpoint(position) => {
                        last_position = Some(position.get());
                        // A client may keep checkpoints in a stream of this store. One for each
                        // event that is left out would lead to the next one, for ever.
                        let due = told.saturating_add(CHECKPOINT_EVERY);
                        if checkpoint_every.is_some() && position.get() >= due {
                            unmatched = 0;
                            told = position.get();
                            yield ReadItem::Checkpoint(position.get());
                        }
                    }
                    Message::CaughtUp(position) => {
                        if position.get() > 0 {
                            last_position = Some(position.get());
                            if checkpoint_every.is_some() {
                                unmatched = 0;
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
