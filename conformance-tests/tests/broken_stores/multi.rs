//! Multi-stream appends to a simulated server. They are correct but for the bug of the handle.

use std::sync::atomic::Ordering;

use annals_core::{
    Append, Appended, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Result,
};
use tokio::task::yield_now;

use crate::{bug::Bug, store::Handle, store::renamed, subscription};

impl Handle {
    pub(crate) async fn append_several(&self, mut appends: Vec<Append>) -> Result<Vec<Appended>> {
        let store = self.store();
        match self.bug {
            Some(Bug::MultiIsALoop | Bug::DroppedMultiAppendsAreHalf) => {
                let mut answers = Vec::new();
                // A loop that checks everything first is only wrong if it is dropped.
                if self.has(Bug::DroppedMultiAppendsAreHalf) && !self.all_hold(&appends).await {
                    return store.append_multi(appends).await;
                }
                for append in appends {
                    answers.extend(store.append_multi(vec![append]).await?);
                    if self.has(Bug::DroppedMultiAppendsAreHalf) {
                        yield_now().await;
                    }
                }
                return Ok(answers);
            }
            Some(Bug::MultiSortsItsStreams) => {
                let places: Vec<_> = appends.iter().map(|append| append.stream.clone()).collect();
                appends.sort_by(|one, other| one.stream.cmp(&other.stream));
                let sorted: Vec<_> = appends.iter().map(|append| append.stream.clone()).collect();
                let answers = store.append_multi(appends).await?;
                let of = |stream| sorted.iter().position(|sorted| sorted == stream).unwrap();
                return Ok(places.iter().map(|stream| answers[of(stream)]).collect());
            }
            Some(Bug::ReportsTheLastConflict) => {
                let answer = store.append_multi(appends.clone()).await;
                let is_conflict = |e: &Error| e.kind() == ErrorKind::Conflict;
                for append in
                    appends.into_iter().rev().filter(|_| answer.as_ref().is_err_and(is_conflict))
                {
                    if !self.holds(&append).await {
                        return Err(self.conflict(&append).await);
                    }
                }
                return answer;
            }
            Some(Bug::RetriesHideConflicts) => {
                let answer = store.append_multi(appends.clone()).await;
                for append in appends.into_iter().filter(|_| answer.is_err()) {
                    if self.was_written(&append).await {
                        return Err(self.conflict(&append).await);
                    }
                }
                return answer;
            }
            Some(Bug::HalfRetriesWriteTheRest) => {
                let mut rest = Vec::new();
                for append in &appends {
                    if !self.was_written(append).await {
                        rest.push(append.clone());
                    }
                }
                if !rest.is_empty() && rest.len() < appends.len() && self.all_hold(&rest).await {
                    store.append_multi(rest).await?;
                }
            }
            Some(Bug::AnyMultiRetriesWriteAgain) => {
                let answers = store.append_multi(appends.clone()).await?;
                if answers[0].replayed && appends[0].expected == ExpectedVersion::Any {
                    return store.append_multi(appends.into_iter().map(renamed).collect()).await;
                }
                return Ok(answers);
            }
            Some(Bug::IdsAreKeysOfMultiAppends) => {
                let (mut seen, mut answers) = (std::collections::HashSet::new(), Vec::new());
                for append in appends {
                    let new = append.events.iter().all(|event| seen.insert(event.id()));
                    match new {
                        true => answers.extend(store.append_multi(vec![append]).await?),
                        false => answers.push(self.made_up(&append, 0.into(), false).await?),
                    }
                }
                return Ok(answers);
            }
            Some(Bug::MultiAppendsWakeNobody) => {
                self.server.in_flight.fetch_add(1, Ordering::SeqCst);
                return store.append_multi(appends).await;
            }
            _ => {}
        }
        let answers = store.append_multi(appends).await;
        subscription::wake(self);
        answers
    }

    async fn all_hold(&self, appends: &[Append]) -> bool {
        for append in appends {
            if !self.holds(append).await || self.was_written(append).await {
                return false;
            }
        }
        true
    }

    /// Whether these events stand together in their stream.
    async fn was_written(&self, append: &Append) -> bool {
        let sent: Vec<_> = append.events.iter().map(annals_core::NewEvent::id).collect();
        let stored = self.store().load_stream(&append.stream).await.unwrap_or_default();
        let stored: Vec<_> = stored.iter().map(|event| event.id).collect();
        stored.windows(sent.len()).any(|ids| ids == sent)
    }

    async fn conflict(&self, append: &Append) -> Error {
        let actual = self.version(&append.stream).await;
        let error = Error::lost_race(&append.stream, append.expected, actual);
        self.context("append_multi")(error)
    }
}
