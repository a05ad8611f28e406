//! Subscriptions: pages of a read, and then whatever comes.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Error, ErrorKind, Position, Result, Source, Start, StreamId, Subscribe, Subscription, Version,
    adapter::{self, Page, Pages, Tail},
};
use async_trait::async_trait;
use sqlx::Row;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    error::driver,
    manage::Head,
    read::{AllPages, StreamPages, last_position},
    sql::query,
    store::Shared,
};

/// How long a subscription waits before it tries again what the server did not answer, at first and
/// at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(crate) async fn subscribe(shared: Arc<Shared>, options: Subscribe) -> Result<Subscription> {
    let Subscribe { source, start, .. } = options;
    match source {
        Source::All(filter) => {
            let after = match start {
                Start::Beginning | Start::AfterVersion(_) => Position::START,
                Start::After(position) => position,
                Start::End => last_position(&shared).await?,
            };
            let pages = AllPages::live(shared.clone(), filter, after);
            Ok(adapter::subscribe(Live::new(shared, pages), after))
        }
        Source::Stream(stream) => {
            let (after, version) = match start {
                Start::Beginning => (Position::START, Version::NONE),
                Start::AfterVersion(version) => (Position::START, version),
                Start::After(position) => (position, version_at(&shared, &stream, position).await?),
                // In this order: what comes in between is beyond both.
                Start::End => {
                    let position = last_position(&shared).await?;
                    (position, version_at(&shared, &stream, position).await?)
                }
            };
            let pages = StreamPages::live(shared.clone(), stream, version);
            Ok(adapter::subscribe(Live::new(shared, pages), after))
        }
    }
}

/// The version that a stream had at a position.
async fn version_at(
    shared: &Arc<Shared>,
    stream: &StreamId,
    position: Position,
) -> Result<Version> {
    let text = &shared.sql.version_at;
    let statement = || query(text).bind(stream.as_str()).bind(position.to_i64());
    match shared.connections.rows(statement).await.map_err(driver)?.first() {
        Some(row) => row.try_get(0).map(Version::from_i64).map_err(driver),
        None => Ok(Head::load(shared, stream).await?.removed_to),
    }
}

/// The pages of a subscription. Each is read by a task, which has its connection for as long as the
/// server takes: a subscriber that is not polled any more would keep it for ever.
struct Live<P> {
    /// None while a page is read.
    pages: Option<P>,
    reading: JoinSet<(P, Result<Page>)>,
    commits: watch::Receiver<u64>,
    /// Keeps the store open for as long as somebody is subscribed to it.
    shared: Arc<Shared>,
}

impl<P: Pages> Live<P> {
    fn new(shared: Arc<Shared>, pages: P) -> Self {
        let commits = shared.notifier.subscribe();
        Self { pages: Some(pages), reading: JoinSet::new(), commits, shared }
    }
}

#[async_trait]
impl<P: Pages> Pages for Live<P> {
    async fn next_page(&mut self) -> Result<Page> {
        if let Some(pages) = self.pages.take() {
            // Marked as seen before the page is read: what comes in between wakes the next call.
            self.commits.borrow_and_update();
            self.reading.spawn(read(pages, self.shared.clone()));
        }
        match self.reading.join_next().await {
            Some(Ok((pages, page))) => {
                self.pages = Some(pages);
                page
            }
            Some(Err(error)) if error.is_panic() => {
                let message = "the task that reads for a subscription panicked";
                Err(Error::new(ErrorKind::Internal, message).with_source(error))
            }
            _ => Err(Error::new(ErrorKind::Unavailable, "the runtime shuts down")),
        }
    }
}

/// The next page, whenever the server gives it.
async fn read<P: Pages>(mut pages: P, shared: Arc<Shared>) -> (P, Result<Page>) {
    let mut pause = RETRY.0;
    loop {
        match pages.next_page().await {
            // A subscriber has nothing better to do than to wait for the server. A pool that was
            // closed does not come back.
            Err(error)
                if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable)
                    && !shared.connections.pool.is_closed() =>
            {
                tracing::debug!(%error, "a subscription waits for the server");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
            page => return (pages, page),
        }
    }
}

#[async_trait]
impl<P: Pages> Tail for Live<P> {
    async fn changed(&mut self) -> Result<()> {
        self.commits
            .changed()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the store is gone").with_source(e))
    }
}
