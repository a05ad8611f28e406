//! A store with faults, put on for a test.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use annals::{Append, Appended, Error, ErrorKind, Result, Snapshot, Store, StreamId};
use annals_test_stores::{Hook, Hooked};

#[derive(Debug)]
pub(crate) enum Fault {
    /// No write succeeds after this many: as if the program had been stopped there.
    StopsAfter(u32),
    /// Each append fails once before it is written.
    Busy,
    /// Each append is written, but the answer to the first try is lost.
    LosesAnswers,
    /// Every snapshot is refused.
    KeepsNoSnapshots,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    fault: Mutex<Fault>,
    /// The first event ids of the appends that were tried.
    tried: Mutex<HashSet<String>>,
}

impl Faulty {
    pub(crate) fn new(store: &Arc<dyn Store>, fault: Fault) -> Arc<Hooked<Self>> {
        Hooked::new(store, Self { fault: fault.into(), tried: Mutex::default() })
    }

    /// How many appends were tried, each counted once.
    pub(crate) fn tried(&self) -> usize {
        self.tried.lock().unwrap().len()
    }

    /// Counts a write, and fails it where the program has been stopped.
    fn count(&self) -> Result<()> {
        match &mut *self.fault.lock().unwrap() {
            Fault::StopsAfter(0) => Err(Error::new(ErrorKind::Internal, "stopped")),
            Fault::StopsAfter(left) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Hook for Faulty {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.count()?;
        call.await
    }

    async fn append(&self, store: &Arc<dyn Store>, append: Append) -> Result<Appended> {
        self.count()?;
        let first_try = self.tried.lock().unwrap().insert(append.events[0].id().to_string());
        let (busy, loses) = {
            let fault = self.fault.lock().unwrap();
            (matches!(*fault, Fault::Busy), matches!(*fault, Fault::LosesAnswers))
        };
        if busy && first_try {
            return Err(Error::new(ErrorKind::Busy, "try again"));
        }
        let appended = store.append(append).await?;
        if loses && first_try {
            return Err(Error::new(ErrorKind::Internal, "no answer").with_outcome_unknown());
        }
        let tells = store.capabilities().tells_retries;
        assert_eq!(appended.replayed, loses && tells, "a retry has the ids of the first try");
        Ok(appended)
    }

    async fn save_snapshot(
        &self,
        store: &Arc<dyn Store>,
        stream: &StreamId,
        snapshot: Snapshot,
    ) -> Result<()> {
        self.count()?;
        if matches!(*self.fault.lock().unwrap(), Fault::KeepsNoSnapshots) {
            return Err(Error::new(ErrorKind::Internal, "no snapshots"));
        }
        store.save_snapshot(stream, snapshot).await
    }
}
