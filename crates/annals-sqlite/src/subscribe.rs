//! Subscriptions: the pages of a read, and what wakes the subscription after the last page.

use std::sync::Arc;

use annals_core::{
    ErrorKind, Result,
    adapter::{Live, Pages, Patient, Tail, Wake},
};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::engine::Engine;

/// A subscription that reads these pages, and then waits for commits.
pub(crate) fn follow(engine: &Arc<Engine>, pages: impl Pages) -> impl Tail {
    let commits = engine.notifier.subscribe();
    // While another connection keeps the database locked, a subscription goes on waiting.
    let patient = Patient::new(pages, |error| error.kind() == ErrorKind::Busy);
    Live::new(patient, Commits { commits, engine: engine.clone() })
}

/// Is woken by the commits of this process and, while it waits, by those of other processes.
struct Commits {
    commits: watch::Receiver<u64>,
    /// Keeps the store open as long as the subscription lives.
    engine: Arc<Engine>,
}

#[async_trait]
impl Wake for Commits {
    fn arm(&mut self) {
        self.commits.arm();
    }

    async fn wait(&mut self) -> Result<()> {
        let _polling = self.engine.notifier.poll(&self.engine.database)?;
        self.commits.wait().await
    }
}
