//! Imports into a simulated server, and the list of its streams. They are correct but for the bug
//! of the handle.

use std::sync::atomic::Ordering;

use annals_core::{
    Append, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, RecordedEvent, Result,
    StreamId, StreamInfo, StreamState, TransferStore,
};
use async_trait::async_trait;
use chrono::{SubsecRound, Utc};
use tokio::task::yield_now;

use crate::{bug::Bug, store::Handle, subscription};

#[async_trait]
impl TransferStore for Handle {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        let mut all = self.store().list_streams(None, usize::MAX).await?;
        match self.bug {
            Some(Bug::ListsTheLiving) => all.retain(|(_, info)| info.state == StreamState::Live),
            Some(Bug::ListsFoldCase) => all.sort_by_key(|(id, _)| id.as_str().to_lowercase()),
            _ => {}
        }
        let begin = after.map_or(0, |after| {
            let known = match all.iter().position(|(id, _)| id == after) {
                Some(known) => known + 1,
                None => all.iter().filter(|(id, _)| id < after).count(),
            };
            if self.has(Bug::ListsSkip) { known + 1 } else { known }
        });
        Ok(all.into_iter().skip(begin).take(limit).collect())
    }

    async fn import(&self, mut events: Vec<RecordedEvent>) -> Result<()> {
        let now = Utc::now().trunc_subsecs(6);
        match self.bug {
            Some(Bug::ImportsNow) => events.iter_mut().for_each(|event| event.recorded_at = now),
            Some(Bug::ImportsSort) => events.sort_by(|one, other| one.stream.cmp(&other.stream)),
            Some(Bug::ImportsDropTheLarge) => {
                events.retain(|event| event.size() <= self.capabilities.max_event_bytes);
            }
            Some(Bug::ImportsCheckLate) => {
                let first = events.iter().take(1).cloned().collect();
                self.store().import(first).await?;
            }
            Some(Bug::ImportsForgetTheDropped) => {
                let first = events.first().map(|event| event.id).unwrap_or_default();
                if !self.server.seen_ids.lock().unwrap().insert(first) {
                    return Ok(());
                }
                yield_now().await;
            }
            Some(Bug::ImportsForgetDeletions) => {
                self.server.seen_ids.lock().unwrap().extend(events.iter().map(|event| event.id));
            }
            Some(Bug::ImportsAppend) => return self.append_all(events).await,
            Some(Bug::ImportsRenumber) if events.iter().any(|event| event.version.get() == 5) => {
                return self.append_all(events).await;
            }
            _ => {}
        }
        let imported = self.store().import(events.clone()).await;
        let closed = |e: &annals_core::Error| e.kind() == ErrorKind::StreamClosed;
        let conflict = |e: &annals_core::Error| e.kind() == ErrorKind::Conflict;
        match (self.bug, imported) {
            (Some(Bug::ImportsDropTheClosed), Err(error)) if closed(&error) => return Ok(()),
            (Some(Bug::ImportsCompareNothing), Err(error)) if conflict(&error) => return Ok(()),
            (Some(Bug::ImportsCloseGaps), Err(error)) if conflict(&error) => {
                return self.append_all(events).await;
            }
            (_, imported) => imported?,
        }
        if self.has(Bug::ImportsWakeNobody) {
            self.server.in_flight.fetch_add(1, Ordering::SeqCst);
        } else {
            subscription::wake(self);
        }
        Ok(())
    }
}

impl Handle {
    /// Whether a stream that was imported is to look as if it had never been deleted.
    pub(crate) async fn is_imported(&self, stream: &StreamId) -> Result<bool> {
        if !self.has(Bug::ImportsForgetDeletions) {
            return Ok(false);
        }
        let events = self.store().load_stream(stream).await?;
        let seen = self.server.seen_ids.lock().unwrap();
        Ok(events.iter().any(|event| seen.contains(&event.id)))
    }

    async fn append_all(&self, events: Vec<RecordedEvent>) -> Result<()> {
        for event in events {
            let RecordedEvent { stream, id, event_type, data, metadata, .. } = event;
            // A new id keeps the event from being recognised as the one that is already there.
            let id = if self.has(Bug::ImportsAppend) { uuid::Uuid::now_v7() } else { id };
            let event = NewEvent::from_stored(id, event_type, data, metadata);
            self.store().append(Append::new(stream, ExpectedVersion::Any, [event])).await?;
        }
        Ok(())
    }
}
