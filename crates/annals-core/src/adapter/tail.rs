//! Subscriptions: the pages that are there, then those that come.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream;
use tokio::{sync::watch, time::Instant};

use super::{Backoff, Page, Pages};
use crate::{Error, ErrorKind, Message, Position, RecordedEvent, Result, Subscription};

/// Pages that never end: after the last one, more can be waited for.
#[async_trait]
pub trait Tail: Pages {
    /// Waits until there may be events that the last page could not see. Returns at once if they
    /// came between that page and this call.
    async fn changed(&mut self) -> Result<()>;
}

/// A signal that there may be new events.
#[async_trait]
pub trait Wake: Send + 'static {
    /// Forgets all signals so far. Called before a page is read, so that a signal that comes while
    /// the page is read ends the next [`wait`](Wake::wait) at once.
    fn arm(&mut self);

    /// Waits for a signal since [`arm`](Wake::arm) was called.
    ///
    /// # Errors
    /// If no signal can come any more.
    async fn wait(&mut self) -> Result<()>;
}

/// A signal is any value that is sent.
#[async_trait]
impl<T: Send + Sync + 'static> Wake for watch::Receiver<T> {
    fn arm(&mut self) {
        self.borrow_and_update();
    }

    async fn wait(&mut self) -> Result<()> {
        self.changed()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the store was closed").with_source(e))
    }
}

/// A [`Tail`] of pages, each of which shows what is there when it is read, and a [`Wake`].
#[derive(Debug)]
pub struct Live<P, W> {
    pages: P,
    wake: W,
}

impl<P: Pages, W: Wake> Live<P, W> {
    /// The pages, and what wakes a subscriber that has read them all.
    pub fn new(pages: P, wake: W) -> Self {
        Self { pages, wake }
    }
}

#[async_trait]
impl<P: Pages, W: Wake> Pages for Live<P, W> {
    async fn next_page(&mut self) -> Result<Page> {
        self.wake.arm();
        self.pages.next_page().await
    }
}

#[async_trait]
impl<P: Pages, W: Wake> Tail for Live<P, W> {
    async fn changed(&mut self) -> Result<()> {
        self.wake.wait().await
    }
}

/// Pages of a subscription: a page that failed is read again while its error may pass. A
/// subscriber has nothing better to do than to wait for its database.
#[derive(Debug)]
pub struct Patient<P, F> {
    pages: P,
    may_pass: F,
}

/// How long a subscription waits before it reads a page again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// After how long a subscription warns that it cannot read; it warns again each time that this has doubled.
const WARN_AFTER: Duration = Duration::from_secs(30);

impl<P: Pages, F: FnMut(&Error) -> bool + Send + 'static> Patient<P, F> {
    /// The pages, and which errors may pass: most often those that are
    /// [retryable](Error::is_retryable).
    pub fn new(pages: P, may_pass: F) -> Self {
        Self { pages, may_pass }
    }

    /// The pages.
    pub fn inner(&mut self) -> &mut P {
        &mut self.pages
    }
}

#[async_trait]
impl<P: Pages, F: FnMut(&Error) -> bool + Send + 'static> Pages for Patient<P, F> {
    async fn next_page(&mut self) -> Result<Page> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let (mut failing_since, mut warn_after) = (None, WARN_AFTER);
        loop {
            match self.pages.next_page().await {
                Err(error) if (self.may_pass)(&error) => {
                    let pause = backoff.next_pause();
                    let failing = failing_since.get_or_insert_with(Instant::now).elapsed();
                    if failing >= warn_after {
                        warn_after *= 2;
                        tracing::warn!(
                            %error, seconds = failing.as_secs(),
                            "a subscription has not been able to read for so long, and tries again"
                        );
                    } else {
                        tracing::debug!(%error, ?pause, "a subscription will read a page again");
                    }
                    tokio::time::sleep(pause).await;
                }
                page => return page,
            }
        }
    }
}

/// While a subscriber catches up and its filter leaves events out, it is told at least every this many
/// positions how far the subscription has looked. A live subscriber is told after each page.
pub const CHECKPOINT_EVERY: u64 = 1_000;

/// Makes a subscription of a tail that begins after the position `from`: it catches up, says so, and
/// goes on live. Nothing is read while the subscriber does not poll. So a slow subscriber costs at
/// most one page of memory, and finds the rest in the store.
pub fn subscribe(tail: impl Tail, from: Position) -> Subscription {
    let tailing = Tailing { tail, told: from, live: false, waiting: false };
    let pages = stream::unfold(Some(tailing), |tailing| async {
        let mut tailing = tailing?;
        Some(match tailing.step().await {
            Ok((events, last)) => ((events, last.map(Ok)), Some(tailing)),
            Err(error) => ((Vec::new(), Some(Err(error))), None),
        })
    });
    Subscription::in_pages(pages)
}

struct Tailing<T> {
    tail: T,
    /// The position of the last message.
    told: Position,
    /// Whether the subscriber was told that it had caught up, and has not fallen behind since.
    live: bool,
    /// Whether the last page said that no more pages follow for now.
    waiting: bool,
}

impl<T: Tail> Tailing<T> {
    /// The events of a page, and the message that follows them, if one is due.
    async fn step(&mut self) -> Result<(Vec<RecordedEvent>, Option<Message>)> {
        if self.waiting {
            self.tail.changed().await?;
        }
        let Page { events, considered, more } = self.tail.next_page().await?;
        self.waiting = !more;
        if let Some(last) = events.last() {
            self.told = last.position;
        }
        // The last events may have been removed, with the start of this subscription among them. No
        // message says less than the one before it.
        let considered = considered.max(self.told);
        let caught_up = !more && !self.live;
        self.live = !more;
        let last = if caught_up {
            Message::CaughtUp(considered)
        } else if considered >= self.told.plus(if more { CHECKPOINT_EVERY } else { 1 }) {
            Message::Checkpoint(considered)
        } else {
            return Ok((events, None));
        };
        self.told = considered;
        Ok((events, Some(last)))
    }
}
