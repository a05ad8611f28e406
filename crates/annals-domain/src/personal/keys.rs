//! Keys and key stores.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;

use super::{Subject, random::random};

/// A key of AES-256. Its `Debug` output does not show the key.
#[derive(Clone)]
pub struct Key([u8; Self::LEN]);

impl Key {
    /// The length of a key in bytes.
    pub const LEN: usize = 32;

    /// A new key, made of random numbers from the operating system.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the operating system returns no random numbers.
    pub fn random() -> Result<Self> {
        random().map(Self)
    }

    /// For key stores: makes a key of its stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// For key stores: the bytes to store. Never log them.
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

/// Keeps one key for each subject until the subject is forgotten. [`StoreKeys`](super::StoreKeys)
/// keeps keys in an event store; implement this trait to keep them elsewhere.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// The key of a subject. A subject without a key gets one; if several callers ask at the same
    /// time, all of them get the same key.
    ///
    /// # Errors
    /// [`ErrorKind::Forgotten`] if the subject was forgotten: it never gets a key again.
    async fn key(&self, subject: &Subject) -> Result<Key>;

    /// The key of a subject, or `None` if the subject was forgotten or never had one, which
    /// [`is_forgotten`](KeyStore::is_forgotten) tells apart.
    async fn find(&self, subject: &Subject) -> Result<Option<Key>>;

    /// Whether a subject was forgotten. By this a subject that was forgotten is told from one that never
    /// had a key, whose events cannot be read with this key store: it is that of another installation, or
    /// was restored from an older copy. A key store that does not implement this cannot tell the two
    /// apart, and takes every subject without a key for a forgotten one.
    async fn is_forgotten(&self, subject: &Subject) -> Result<bool> {
        Ok(self.find(subject).await?.is_none())
    }

    /// Forgets a subject: deletes its key for ever, and refuses to make another. The subject may be
    /// one without a key. Forgetting a subject twice changes nothing.
    async fn forget(&self, subject: &Subject) -> Result<()>;
}

/// The error for a subject that was forgotten.
pub(super) fn forgotten(subject: &Subject) -> Error {
    let message = format!("the subject {subject:?} was forgotten and gets no new key");
    Error::new(ErrorKind::Forgotten, message)
}

/// A key store in memory, for tests: when it is dropped, all subjects are forgotten.
///
/// ```
/// # use annals_core::Result;
/// use annals_domain::personal::{KeyStore, MemoryKeys, Subject};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let keys = MemoryKeys::new();
/// let ada = Subject::new("customer-7")?;
/// keys.key(&ada).await?;
/// keys.forget(&ada).await?;
/// assert!(keys.find(&ada).await?.is_none());
/// assert!(keys.key(&ada).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct MemoryKeys {
    /// `None` for a subject that was forgotten.
    keys: Mutex<HashMap<Subject, Option<Key>>>,
}

impl MemoryKeys {
    /// A key store without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // Each change is one call of the map, so the map is consistent even if a thread panicked while it
    // held the lock.
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

    async fn is_forgotten(&self, subject: &Subject) -> Result<bool> {
        Ok(matches!(self.lock().get(subject), Some(None)))
    }

    async fn forget(&self, subject: &Subject) -> Result<()> {
        self.lock().insert(subject.clone(), None);
        Ok(())
    }
}
