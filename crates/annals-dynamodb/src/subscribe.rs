//! Subscriptions: the pages of a read, and then waiting for more.

use std::{convert::Infallible, sync::Arc};

use annals_core::{
    Error, ErrorKind, Filter, Position, ReadAll, ReadStream, Result, StreamId, Version,
    adapter::{CHECKPOINT_EVERY, Page, Pages, Patient, Tail},
};
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use tokio::{sync::watch, time::sleep};

use crate::{
    item::last_position_of, notify::PollPace, read::StreamPages, read_all::AllPages, shared::Shared,
};

/// Pages that are read again for as long as DynamoDB is busy or cannot be reached.
type PatientPages<P> = Patient<P, fn(&Error) -> bool>;

fn patient<P: Pages>(pages: P) -> PatientPages<P> {
    Patient::new(pages, Error::is_retryable)
}

/// The error of a wait whose notifier was dropped, which a subscription does not let happen.
fn closed(error: watch::error::RecvError) -> Error {
    Error::new(ErrorKind::Unavailable, "the store was closed").with_source(error)
}

impl Shared {
    /// A position such that everything that was written before this call is at or before it, and
    /// everything written later is after it. Without an order over all streams, the start.
    pub(crate) async fn last_position(&self) -> Result<Position> {
        let Some(log) = &self.log else { return Ok(Position::START) };
        Ok(end_of(log.settle(u64::MAX).await?.last))
    }

    /// The last position of the last slot that was allocated, written or not: no event gets a
    /// position below it any more, except in slots that are allocated already.
    pub(crate) async fn greatest_position(&self) -> Result<Position> {
        match &self.log {
            Some(log) => log.last_allocated().await.map(end_of),
            None => Ok(Position::START),
        }
    }
}

/// The last position of a slot; the start if there is no slot yet.
fn end_of(slot: u64) -> Position {
    if slot == 0 { Position::START } else { last_position_of(slot) }
}

/// A subscription to all streams: it follows the log.
pub(crate) struct AllTail {
    pages: PatientPages<AllPages>,
    /// The last slot that is known to be allocated.
    slots: watch::Receiver<u64>,
    polling: BoxFuture<'static, Infallible>,
    /// The position that the subscriber was told last, and how many events had been looked at by
    /// then. While it catches up, to tell it each slot that the filter leaves out would be too much.
    told: Position,
    looked_at: u64,
    live: bool,
    /// How soon to look again for a slot that is allocated and not written yet.
    pace: PollPace,
    /// Keeps the notifier alive as long as the subscription.
    _shared: Arc<Shared>,
}

impl AllTail {
    pub(crate) fn new(shared: Arc<Shared>, filter: Filter, after: Position) -> Self {
        let options = ReadAll::default().with_filter(filter).after(after);
        let pages = AllPages::new(shared.clone(), options).following();
        let poller = shared.clone();
        Self {
            pages: patient(pages),
            slots: shared.notifier.slots(),
            polling: async move { poller.notifier.keep_polling(&poller.table).await }.boxed(),
            told: after,
            looked_at: 0,
            live: false,
            pace: PollPace::new(shared.options.poll_interval),
            _shared: shared,
        }
    }
}

#[async_trait]
impl Pages for AllTail {
    async fn next_page(&mut self) -> Result<Page> {
        // Mark the slot as seen before reading: a slot that is allocated while the page is read
        // then ends the next wait at once.
        let known = *self.slots.borrow_and_update();
        self.pages.inner().extend(known);
        let mut page = self.pages.next_page().await?;
        if let Some(last) = page.events.last() {
            self.told = self.told.max(last.position);
            self.pace.quicken();
        }
        let caught_up = !page.more && !self.live;
        self.live = !page.more;
        let looked_at = self.pages.inner().looked_at();
        if caught_up || looked_at >= self.looked_at + CHECKPOINT_EVERY {
            self.told = self.told.max(page.considered);
            self.looked_at = looked_at;
        } else if self.live {
            // Up to the last event, not to the end of its slot: a subscriber that has got that event
            // has nothing more to be told.
            self.told = self.told.max(self.pages.inner().last_looked_at());
        }
        page.considered = self.told;
        Ok(page)
    }
}

#[async_trait]
impl Tail for AllTail {
    async fn changed(&mut self) -> Result<()> {
        let Self { slots, polling, pace, pages, .. } = self;
        let has_unwritten = pages.inner().has_unwritten();
        tokio::select! {
            biased;
            changed = slots.changed() => changed.map_err(closed),
            () = sleep(pace.next_pause()), if has_unwritten => Ok(()),
            never = polling => match never {},
        }
    }
}

/// A subscription to one stream: it looks at the end of the stream.
pub(crate) struct StreamTail {
    pages: PatientPages<StreamPages>,
    /// Changes whenever this store appends to the stream.
    appended: watch::Receiver<u64>,
    pace: PollPace,
    /// Keeps the notifier alive as long as the subscription.
    _shared: Arc<Shared>,
}

impl StreamTail {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: StreamId,
        after: Version,
        position: Position,
    ) -> Self {
        let appended = shared.notifier.stream(&stream);
        let pace = PollPace::new(shared.options.poll_interval);
        let options = ReadStream::default().with_from(after.plus(1));
        let pages = StreamPages::new(shared.clone(), stream, options).following(position);
        Self { pages: patient(pages), appended, pace, _shared: shared }
    }
}

#[async_trait]
impl Pages for StreamTail {
    async fn next_page(&mut self) -> Result<Page> {
        self.appended.borrow_and_update();
        let page = self.pages.next_page().await?;
        if !page.events.is_empty() {
            self.pace.quicken();
        }
        Ok(page)
    }
}

#[async_trait]
impl Tail for StreamTail {
    async fn changed(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            changed = self.appended.changed() => changed.map_err(closed),
            () = sleep(self.pace.next_pause()) => Ok(()),
        }
    }
}
