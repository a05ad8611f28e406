//! What was found to be wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many of a sort are shown; all are counted.
const SHOWN: usize = 10;

/// What is wrong, and what is only worth knowing. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    found: Arc<Mutex<Found>>,
    /// Where it is found, where that has to be said.
    place: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// What breaks the contract, or is different: the first ones, and how many there are.
    pub(crate) broken: Vec<String>,
    pub(crate) broken_count: u64,
    pub(crate) notes: Vec<String>,
    pub(crate) notes_count: u64,
}

impl Findings {
    /// The same, of one of several stores.
    pub(crate) fn at(&self, place: String) -> Self {
        Self { found: self.found.clone(), place: Some(place) }
    }

    fn said(&self, text: String) -> String {
        match &self.place {
            Some(place) => format!("{place}: {text}"),
            None => text,
        }
    }

    /// Takes down what must not be.
    pub(crate) fn broken(&self, text: impl FnOnce() -> String) {
        let mut found = self.lock();
        found.broken_count += 1;
        if found.broken.len() < SHOWN {
            found.broken.push(self.said(text()));
        }
    }

    /// Takes down what may be.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let mut found = self.lock();
        found.notes_count += 1;
        if found.notes.len() < SHOWN {
            found.notes.push(self.said(text()));
        }
    }

    pub(crate) fn found(&self) -> Found {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        // Each change is one step, so a poisoned lock is sound.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
