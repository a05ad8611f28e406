//! The leases of a simulated server. They are correct but for the bug of the handle.

use std::{
    collections::HashMap,
    sync::{MutexGuard, atomic::Ordering},
    time::Duration,
};

use annals_core::{Error, ErrorKind, LeaseName, LeaseRecord, LeaseStore, Result};
use async_trait::async_trait;
use tokio::task::yield_now;

use crate::{bug::Bug, store::Handle};

#[async_trait]
impl LeaseStore for Handle {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        Ok(self.leases().get(&self.lease(name)).cloned())
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let name = self.lease(name);
        let swapped = self.swap(&name, record).await;
        if self.server.lose_next_answer.swap(false, Ordering::SeqCst) {
            let lost = Error::new(ErrorKind::Unavailable, "the connection was lost");
            let lost = self.context("swap_lease")(lost);
            let denies = self.has(Bug::SwapsDenyTheUnknown);
            return Err(if denies { lost } else { lost.with_outcome_unknown() });
        }
        Ok(swapped)
    }
}

impl Handle {
    fn leases(&self) -> MutexGuard<'_, HashMap<LeaseName, LeaseRecord>> {
        self.server.leases.lock().unwrap()
    }

    /// The name under which the server keeps a lease.
    fn lease(&self, name: &LeaseName) -> LeaseName {
        if let Some(cut) = self.lease_name(name) {
            return cut;
        }
        let text = match self.bug {
            Some(Bug::LeasesAreOne) => "lease".to_owned(),
            Some(Bug::LeasesAreOfAHandle) => format!("{}-{name}", self.number),
            _ => return name.clone(),
        };
        LeaseName::new(text).unwrap()
    }

    async fn swap(&self, name: &LeaseName, record: &LeaseRecord) -> bool {
        if self.has(Bug::SwapsCheckTooEarly) {
            let is_next = is_next(&self.leases(), name, record);
            yield_now().await;
            if is_next {
                self.leases().insert(name.clone(), record.clone());
            }
            return is_next;
        }
        let mut leases = self.leases();
        if !is_next(&leases, name, record) {
            match self.bug {
                Some(Bug::SwapsCheckNothing) => {}
                Some(Bug::SwapsLoseSilently) => return true,
                Some(Bug::SwapsRepeat) => return leases.get(name) == Some(record),
                _ => return false,
            }
        }
        let mut record = record.clone();
        match self.bug {
            Some(Bug::LeasesAreForgotten) if record.ttl.is_zero() => {
                leases.remove(name);
                return true;
            }
            Some(Bug::LeasesAreNeverGivenUp) if record.ttl.is_zero() => {
                record.ttl = Duration::from_secs(3_600);
            }
            Some(Bug::LeasesKeepSeconds) => record.ttl = Duration::from_secs(record.ttl.as_secs()),
            _ => {}
        }
        leases.insert(name.clone(), record);
        true
    }
}

fn is_next(
    leases: &HashMap<LeaseName, LeaseRecord>,
    name: &LeaseName,
    record: &LeaseRecord,
) -> bool {
    leases.get(name).map_or(0, |kept| kept.revision).checked_add(1) == Some(record.revision)
}
