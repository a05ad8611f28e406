//! Whose turn it is to run a group, if several gateways serve one store: that of the gateway that holds
//! the group's lease. The consumers of the others wait.

use std::{sync::Arc, time::Duration};

use annals_core::{Candidate, LeaseName, Store, adapter::Backoff};
use tokio::time::Instant;
use tonic::Status;

use super::name::GroupName;

/// How long a gateway that has died holds up the others.
const TTL: Duration = Duration::from_secs(15);
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// The first and the longest pause before a gateway whose consumers wait tries to get the lease again.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

pub(crate) struct Turn {
    /// `None` if the store keeps no leases. Then there can be one gateway only.
    candidate: Option<Candidate>,
    next_try: Option<Instant>,
    pauses: Backoff,
}

impl Turn {
    pub(crate) fn new(store: &Arc<dyn Store>, name: &GroupName) -> Result<Self, Status> {
        let subscriber = name.subscriber()?;
        let lease = LeaseName::new(subscriber.as_str());
        let lease = lease.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let keeps = store.capabilities().leases;
        let candidate = keeps.then(|| Candidate::new(Arc::new(store.clone()), lease, TTL));
        Ok(Self { candidate, next_try: None, pauses: pauses() })
    }

    /// True if this gateway may give events to consumers.
    pub(crate) fn is_ours(&self) -> bool {
        self.candidate.as_ref().is_none_or(|candidate| candidate.token().is_some())
    }

    /// When to call [`Turn::take`] again. `None` if there is no reason to.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.next_try
    }

    /// Takes the turn, if it can, or keeps it. True if it was not ours before.
    pub(crate) async fn take(&mut self) -> bool {
        let was_ours = self.is_ours();
        let Some(candidate) = &mut self.candidate else { return false };
        match candidate.acquire().await {
            Ok(true) => {
                self.next_try = Some(Instant::now() + RENEW);
                self.pauses = pauses();
                return !was_ours;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "could not get the lease of a group"),
        }
        self.next_try = Some(Instant::now() + self.pauses.next_pause());
        false
    }

    /// Leaves the turn to others.
    pub(crate) async fn give_up(&mut self) {
        self.next_try = None;
        if let Some(candidate) = &mut self.candidate
            && let Err(error) = candidate.release().await
        {
            tracing::debug!(%error, "could not give up the lease of a group");
        }
    }
}

fn pauses() -> Backoff {
    Backoff::new(PAUSES[0], PAUSES[1])
}
