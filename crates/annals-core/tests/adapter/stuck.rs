//! A subscription that cannot read says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use annals_core::{
    Error, ErrorKind, Result,
    adapter::{Page, Pages, Patient},
};
use async_trait::async_trait;
use tokio::time::timeout;
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

struct Away;

#[async_trait]
impl Pages for Away {
    async fn next_page(&mut self) -> Result<Page> {
        Err(Error::new(ErrorKind::Unavailable, "the server is away"))
    }
}

/// Counts warnings.
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_subscription_warns_each_time_that_its_outage_has_doubled() {
    let warnings = Arc::new(AtomicUsize::new(0));
    let _guard = tracing::subscriber::set_default(Warnings(warnings.clone()));
    let mut pages = Patient::new(Away, Error::is_retryable);
    let read = pages.next_page();
    tokio::pin!(read);
    for (seconds, warned) in [(29, 0), (3, 1), (27, 1), (3, 2), (60, 3)] {
        assert!(timeout(Duration::from_secs(seconds), &mut read).await.is_err());
        assert_eq!(warnings.load(Relaxed), warned);
    }
}
