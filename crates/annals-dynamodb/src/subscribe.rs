//! Subscriptions: pages of a read, and then whatever comes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use annals_core::{
    Error, ErrorKind, Position, ReadAll, ReadStream, Result, Source, Start, StreamId, Subscribe,
    Subscription, Version,
    adapter::{self, Page, Pages, Tail},
};
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use tokio::{sync::watch, time::sleep};

use crate::{
    head::Head,
    item::end_of,
    log::Log,
    notify::Pace,
    read::{StreamPages, version_at},
    read_all::AllPages,
    store::Shared,
};

/// How long a subscription waits before it asks again after requests have failed for a while, at
/// first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(crate) async fn subscribe(shared: Arc<Shared>, options: Subscribe) -> Result<Subscription> {
    let Subscribe { source, start, .. } = options;
    match (source, shared.log.clone()) {
        (Source::All(filter), Some(log)) => {
            let after = match start {
                Start::Beginning | Start::AfterVersion(_) => Position::START,
                Start::After(position) => position,
                Start::End => last_position(&log).await?,
            };
            let options = ReadAll::default().with_filter(filter).after(after);
            let pages = AllPages::new(shared.clone(), log.clone(), options);
            Ok(adapter::subscribe(LiveAll::new(shared, log, pages, after), after))
        }
        (Source::All(_), None) => Err(Error::unsupported("order over all streams")),
        (Source::Stream(stream), log) => {
            let (after, version) = match (start, log) {
                (Start::Beginning, _) => (Position::START, Version::NONE),
                (Start::AfterVersion(version), _) => (Position::START, version),
                (Start::After(position), _) => {
                    (position, version_at(&shared, &stream, position).await?)
                }
                (Start::End, Some(log)) => {
                    let position = last_position(&log).await?;
                    (position, version_at(&shared, &stream, position).await?)
                }
                (Start::End, None) => {
                    let head = Head::load(&shared.table, &stream).await?;
                    (Position::START, head.stream.version)
                }
            };
            let options = ReadStream::default().with_from(version.plus(1));
            let pages = StreamPages::new(shared.clone(), stream.clone(), options).at(after);
            Ok(adapter::subscribe(LiveStream::new(shared, &stream, pages), after))
        }
    }
}

/// The position after which nothing is that was written before this call, and everything that is
/// written after it.
async fn last_position(log: &Arc<Log>) -> Result<Position> {
    let last = log.settle(log.allocated().await?).await?;
    Ok(if last == 0 { Position::START } else { end_of(last) })
}

/// Reads a page for as long as it takes: a subscriber has nothing better to do.
async fn patiently(pages: &mut impl Pages) -> Result<Page> {
    let mut pause = RETRY.0;
    loop {
        match pages.next_page().await {
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) => {
                tracing::debug!(%error, "a subscription waits for DynamoDB");
                sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
            page => return page,
        }
    }
}

fn gone<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    Error::new(ErrorKind::Unavailable, "the store is gone").with_source(error)
}

/// A subscription to all streams: follows the log.
struct LiveAll {
    pages: AllPages,
    slots: watch::Receiver<u64>,
    look: BoxFuture<'static, Infallible>,
    /// What was said last, and how many events had been gone past then: to say each slot that the
    /// filter leaves out would be too much.
    said: Position,
    passed: u64,
    live: bool,
    /// How soon to look for a slot that was given out and is not written yet.
    pace: Pace,
    /// Keeps the store open for as long as somebody is subscribed to it.
    _shared: Arc<Shared>,
}

impl LiveAll {
    fn new(shared: Arc<Shared>, log: Arc<Log>, pages: AllPages, after: Position) -> Self {
        Self {
            pages,
            slots: log.notifier.slots(),
            look: async move { log.notifier.keep_looking(&log.table).await }.boxed(),
            said: after,
            passed: 0,
            live: false,
            pace: Pace::new(shared.options.poll_interval),
            _shared: shared,
        }
    }
}

#[async_trait]
impl Pages for LiveAll {
    async fn next_page(&mut self) -> Result<Page> {
        // Marked as seen before the page is read: what comes in between wakes the next call.
        let known = *self.slots.borrow_and_update();
        self.pages.extend(known);
        let mut page = patiently(&mut self.pages).await?;
        if let Some(last) = page.events.last() {
            self.said = self.said.max(last.position);
            self.pace.quicken();
        }
        let caught_up = !page.more && !self.live;
        self.live = !page.more;
        if caught_up || self.pages.passed() >= self.passed + adapter::CHECKPOINT_EVERY {
            self.said = self.said.max(page.considered);
            self.passed = self.pages.passed();
        }
        page.considered = self.said;
        Ok(page)
    }
}

#[async_trait]
impl Tail for LiveAll {
    async fn changed(&mut self) -> Result<()> {
        let Self { slots, look, pace, pages, .. } = self;
        let awaits = pages.awaits();
        tokio::select! {
            biased;
            changed = slots.changed() => changed.map_err(gone),
            () = sleep(pace.step()), if awaits => Ok(()),
            never = look => match never {},
        }
    }
}

/// A subscription to one stream: looks at its end.
struct LiveStream {
    pages: StreamPages,
    appended: watch::Receiver<u64>,
    pace: Pace,
    /// Keeps the store open for as long as somebody is subscribed to it.
    _shared: Arc<Shared>,
}

impl LiveStream {
    fn new(shared: Arc<Shared>, stream: &StreamId, pages: StreamPages) -> Self {
        let appended = shared.notifier.stream(stream);
        let pace = Pace::new(shared.options.poll_interval);
        Self { pages, appended, pace, _shared: shared }
    }
}

#[async_trait]
impl Pages for LiveStream {
    async fn next_page(&mut self) -> Result<Page> {
        self.appended.borrow_and_update();
        self.pages.resume();
        let page = patiently(&mut self.pages).await?;
        if !page.events.is_empty() {
            self.pace.quicken();
        }
        Ok(page)
    }
}

#[async_trait]
impl Tail for LiveStream {
    async fn changed(&mut self) -> Result<()> {
        let Self { appended, pace, .. } = self;
        tokio::select! {
            biased;
            changed = appended.changed() => changed.map_err(gone),
            () = sleep(pace.step()) => Ok(()),
        }
    }
}
