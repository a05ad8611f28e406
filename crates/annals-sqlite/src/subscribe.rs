//! Subscriptions: pages of a read, and then whatever comes.

use std::sync::Arc;

use annals_core::{
    Error, ErrorKind, Position, ReadAll, ReadStream, Result, Source, Start, Subscribe,
    Subscription, Version,
    adapter::{self, Page, Pages, Tail},
};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    read::{AllPages, StreamPages, last_position, version_at},
    store::Shared,
};

pub(crate) async fn subscribe(shared: Arc<Shared>, options: Subscribe) -> Result<Subscription> {
    let Subscribe { source, start, .. } = options;
    let readers = shared.readers.clone();
    match source {
        Source::All(filter) => {
            let after = match start {
                Start::Beginning | Start::AfterVersion(_) => Position::START,
                Start::After(position) => position,
                Start::End => {
                    readers.run(|db, reader| last_position(&reader.connection, &db.sql)).await?
                }
            };
            let options = ReadAll::default().with_filter(filter).after(after);
            let pages = AllPages::new(shared.readers.clone(), options);
            Ok(adapter::subscribe(Live::new(shared, pages), after))
        }
        Source::Stream(stream) => {
            let at = |position: Option<Position>| {
                let stream = stream.clone();
                readers.run(move |db, reader| {
                    let connection = &reader.connection;
                    let position =
                        position.map_or_else(|| last_position(connection, &db.sql), Ok)?;
                    Ok((position, version_at(connection, &db.sql, &stream, position)?))
                })
            };
            let (after, version) = match start {
                Start::Beginning => (Position::START, Version::NONE),
                Start::AfterVersion(version) => (Position::START, version),
                Start::After(position) => at(Some(position)).await?,
                Start::End => at(None).await?,
            };
            let options = ReadStream::default().with_from(version.plus(1));
            let pages = StreamPages::new(shared.readers.clone(), stream, options);
            Ok(adapter::subscribe(Live::new(shared, pages), after))
        }
    }
}

/// The pages of a subscription.
struct Live<P> {
    pages: P,
    commits: watch::Receiver<u64>,
    /// Keeps the store open for as long as somebody is subscribed to it.
    shared: Arc<Shared>,
}

impl<P: Pages> Live<P> {
    fn new(shared: Arc<Shared>, pages: P) -> Self {
        Self { pages, commits: shared.notifier.subscribe(), shared }
    }
}

#[async_trait]
impl<P: Pages> Pages for Live<P> {
    async fn next_page(&mut self) -> Result<Page> {
        loop {
            // Marked as seen before the page is read: what comes in between wakes the next call.
            self.commits.borrow_and_update();
            match self.pages.next_page().await {
                // Somebody keeps the database locked for longer than a read waits: a subscriber
                // has nothing better to do than to wait on.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    tracing::debug!(%error, "a subscription waits on");
                    tokio::task::yield_now().await;
                }
                page => return page,
            }
        }
    }
}

#[async_trait]
impl<P: Pages> Tail for Live<P> {
    async fn changed(&mut self) -> Result<()> {
        let _watching = self.shared.notifier.watch(&self.shared.database)?;
        self.commits
            .changed()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the store is gone").with_source(e))
    }
}
