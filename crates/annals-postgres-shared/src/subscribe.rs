//! Subscriptions: the pages of a read, and then those of the events that come.

use std::sync::Arc;

use annals_core::{
    Error, ErrorKind, Result,
    adapter::{Live, Page, Pages, Patient, Tail},
};
use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::{
    connections::Connections,
    error::{internal, runtime_ended},
    notify::Notifier,
};

/// Makes a subscription's tail of pages. It reads a page again for as long as the server cannot be
/// reached; only a pool that was closed does not come back.
pub fn tail<P: Pages>(
    connections: &Connections,
    notifier: &Arc<Notifier>,
    pages: P,
) -> impl Tail + use<P> {
    let pool = connections.pool.clone();
    let may_pass = move |error: &Error| {
        matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) && !pool.is_closed()
    };
    let pages = ReadByTask::new(Patient::new(pages, may_pass));
    Live::new(pages, notifier.subscribe())
}

/// Reads each page in a task. The task gives its connection back as soon as the server has
/// answered; a subscriber that is no longer polled would keep the connection for ever.
struct ReadByTask<P> {
    /// `None` while a task reads a page.
    pages: Option<P>,
    reading: JoinSet<(P, Result<Page>)>,
}

impl<P> ReadByTask<P> {
    fn new(pages: P) -> Self {
        Self { pages: Some(pages), reading: JoinSet::new() }
    }
}

#[async_trait]
impl<P: Pages> Pages for ReadByTask<P> {
    async fn next_page(&mut self) -> Result<Page> {
        if let Some(mut pages) = self.pages.take() {
            self.reading.spawn(async move {
                let page = pages.next_page().await;
                (pages, page)
            });
        }
        match self.reading.join_next().await {
            Some(Ok((pages, page))) => {
                self.pages = Some(pages);
                page
            }
            Some(Err(error)) if error.is_panic() => {
                Err(internal("the task that reads for a subscription panicked").with_source(error))
            }
            _ => Err(runtime_ended()),
        }
    }
}
