//! The subscription to a group's source. After an error, it is opened again after the last event
//! read.

use std::{sync::Arc, time::Duration};

use annals_core::{Store, adapter::Backoff};
use futures::StreamExt;
use tokio::time::Instant;
use tonic::Status;

use super::{
    catalog::Group,
    progress::{Progress, load_checkpoint},
};
use crate::{
    read::{ReadFrom, ReadItem, ReadItems, ReadRequest},
    status::is_stream_deleted,
    tombstones::Tombstones,
};

/// The first and the longest pause before the subscription is opened again after an error.
const REOPEN_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

pub(crate) struct SourceSubscription {
    state: State,
    backoff: Backoff,
}

enum State {
    Open(ReadItems),
    ClosedUntil(Instant),
    /// The source was tombstoned, so nothing comes any more.
    Ended,
}

impl SourceSubscription {
    /// A subscription that has to be opened.
    pub(crate) fn new() -> Self {
        Self { state: State::ClosedUntil(Instant::now()), backoff: backoff() }
    }

    /// When to open the subscription. `None` if it is open, or has ended for good.
    pub(crate) fn closed_until(&self) -> Option<Instant> {
        match &self.state {
            State::Open(_) | State::Ended => None,
            State::ClosedUntil(time) => Some(*time),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Opens the subscription after the last event read, or else after the stored checkpoint. False if
    /// the source was tombstoned.
    pub(crate) async fn open(
        &mut self,
        store: &Arc<dyn Store>,
        tombstones: &Tombstones,
        group: &Group,
        progress: &mut Progress,
    ) -> bool {
        match subscribe(store, tombstones, group, progress).await {
            Ok(items) => self.state = State::Open(items),
            Err(error) if is_stream_deleted(&error) => {
                self.state = State::Ended;
                return false;
            }
            Err(error) => {
                tracing::warn!(group = ?group.name, %error, "could not open a group's source");
                self.close();
            }
        }
        true
    }

    /// The next item. `None` if the subscription has ended, or is not open. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<ReadItem> {
        let State::Open(items) = &mut self.state else { return None };
        match items.next().await {
            Some(Ok(item)) => {
                self.backoff = backoff();
                return Some(item);
            }
            Some(Err(error)) if is_stream_deleted(&error) => {
                self.state = State::Ended;
                return None;
            }
            Some(Err(error)) => tracing::warn!(%error, "the subscription of a group ended"),
            None => {}
        }
        self.close();
        None
    }

    fn close(&mut self) {
        self.state = State::ClosedUntil(Instant::now() + self.backoff.next_pause());
    }
}

fn backoff() -> Backoff {
    let [first, longest] = REOPEN_PAUSES;
    Backoff::new(first, longest)
}

async fn subscribe(
    store: &Arc<dyn Store>,
    tombstones: &Tombstones,
    group: &Group,
    progress: &mut Progress,
) -> Result<ReadItems, Status> {
    if progress.last_read().is_none() {
        progress.resume(load_checkpoint(&**store, &group.name).await?);
    }
    let from = match (progress.last_read(), group.first.checked_sub(1)) {
        (Some(place), _) | (None, Some(place)) => ReadFrom::At(place),
        (None, None) => ReadFrom::Start,
    };
    let request = ReadRequest {
        store: store.clone(),
        tombstones: tombstones.clone(),
        stream: group.name.stream()?,
        from,
        filter: group.filter.as_ref().map(|filter| filter.compile()).transpose()?,
        resolve_links: group.settings.resolve_links,
        with_bounds: false,
    };
    request.subscribe().await
}
