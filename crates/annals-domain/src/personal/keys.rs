//! Where the keys are kept.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;

use super::{Subject, random};

/// A key of AES-256. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key([u8; Self::LEN]);

impl Key {
    /// The bytes of a key.
    pub const LEN: usize = 32;

    /// A new key, from the random numbers of the operating system.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the system has none to give.
    pub fn random() -> Result<Self> {
        random().map(Self)
    }

    /// For key stores: a key that was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// For key stores: what to keep. Never log it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Keeps a key for each subject until the subject is forgotten.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// The key of a subject, made where there is none. However many ask at the same time, there is
    /// one key.
    ///
    /// # Errors
    /// [`ErrorKind::Forgotten`] where the subject was forgotten: it never gets a key again.
    async fn key(&self, subject: &Subject) -> Result<Key>;

    /// The key of a subject; none where the subject was forgotten, or never had one.
    async fn find(&self, subject: &Subject) -> Result<Option<Key>>;

    /// Forgets the key of a subject for ever. The subject need not have one; to forget it again
    /// changes nothing.
    async fn forget(&self, subject: &Subject) -> Result<()>;
}

/// The error for a subject that was forgotten.
pub(super) fn forgotten(subject: &Subject) -> Error {
    let message = format!("subject {subject:?} was forgotten and gets no new key");
    Error::new(ErrorKind::Forgotten, message)
}

/// Keys in memory, for tests: all is forgotten when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    /// None for a subject that was forgotten.
    keys: Mutex<HashMap<Subject, Option<Key>>>,
}

impl MemoryKeys {
    /// No keys yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // Every change is one call of the map, so a poisoned lock is sound.
    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Option<Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeys {
    async fn key(&self, subject: &Subject) -> Result<Key> {
        let mut keys = self.lock();
        match keys.get(subject) {
            Some(Some(key)) => Ok(key.clone()),
            Some(None) => Err(forgotten(subject)),
            None => {
                let key = Key::random()?;
                keys.insert(subject.clone(), Some(key.clone()));
                Ok(key)
            }
        }
    }

    async fn find(&self, subject: &Subject) -> Result<Option<Key>> {
        Ok(self.lock().get(subject).cloned().flatten())
    }

    async fn forget(&self, subject: &Subject) -> Result<()> {
        self.lock().insert(subject.clone(), None);
        Ok(())
    }
}
