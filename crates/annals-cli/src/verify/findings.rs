//! The differences and breaches that `verify` has found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most findings of each list that are shown. All are counted.
const SHOWN: usize = 10;

/// Collects findings. All clones add to the same lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    lists: Arc<Mutex<FindingLists>>,
    /// The store in which the findings are, if there are two.
    place: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FindingLists {
    /// Breaches of the contract, or differences: the first few, and the number of all.
    pub(crate) broken: Vec<String>,
    pub(crate) broken_count: u64,
    /// What is allowed, and still worth knowing.
    pub(crate) notes: Vec<String>,
    pub(crate) notes_count: u64,
}

impl Findings {
    /// The same lists, for findings in one of two stores.
    pub(crate) fn at(&self, place: String) -> Self {
        Self { lists: self.lists.clone(), place: Some(place) }
    }

    /// Whether two stores are compared.
    pub(crate) fn is_of_two(&self) -> bool {
        self.place.is_some()
    }

    fn with_place(&self, text: String) -> String {
        match &self.place {
            Some(place) => format!("{place}: {text}"),
            None => text,
        }
    }

    /// Adds a breach or a difference.
    pub(crate) fn broken(&self, text: impl FnOnce() -> String) {
        let mut found = self.lock();
        found.broken_count += 1;
        if found.broken.len() < SHOWN {
            found.broken.push(self.with_place(text()));
        }
    }

    /// Adds a note.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let mut found = self.lock();
        found.notes_count += 1;
        if found.notes.len() < SHOWN {
            found.notes.push(self.with_place(text()));
        }
    }

    pub(crate) fn lists(&self) -> FindingLists {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, FindingLists> {
        // A panic cannot leave the lists half changed, so a poisoned lock is usable.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
