//! Keys that are lost: subjects that have sealed events, and no key although they were not forgotten.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use annals_core::{Error, ErrorKind, Position, Result, Store, SubscriberId};
use lru::LruCache;
use uuid::Uuid;

use super::{Key, KeyStore, Subject};

/// How many subjects without a key are remembered.
const MAX_SUBJECTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Subjects whose sealed events could not be opened, since the key store has never held their keys.
#[derive(Clone, Debug)]
pub(super) struct LostKeys(Arc<Mutex<LruCache<Subject, ()>>>);

impl Default for LostKeys {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_SUBJECTS))))
    }
}

impl LostKeys {
    /// The error for a subject whose key is lost.
    pub(super) fn report(&self, subject: &Subject) -> Error {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(subject.clone(), ());
        lost(subject)
    }

    fn has(&self, subject: &Subject) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(subject)
    }

    /// The key of a subject, to seal with. A subject that has sealed events already gets no new key.
    ///
    /// `marks` is the store of the events. It keeps a mark of each subject for which a key was made, as
    /// a checkpoint, which is no event and does not name the subject.
    pub(super) async fn key(
        &self,
        keys: &dyn KeyStore,
        subject: &Subject,
        marks: Option<&dyn Store>,
    ) -> Result<Key> {
        if let Some(key) = keys.find(subject).await? {
            return Ok(key);
        }
        let mark = mark_of(subject)?;
        let is_marked = match marks {
            Some(marks) => marks.load_checkpoint(&mark).await?.is_some(),
            None => false,
        };
        if (is_marked || self.has(subject)) && !keys.is_forgotten(subject).await? {
            return Err(lost(subject));
        }
        let key = keys.key(subject).await?;
        if let Some(marks) = marks {
            marks.swap_checkpoint(&mark, None, Position::new(1)).await?;
        }
        Ok(key)
    }
}

/// The name of the mark of a subject: not longer than a name may be, however long the subject is.
fn mark_of(subject: &Subject) -> Result<SubscriberId> {
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, subject.as_str().as_bytes());
    SubscriberId::new(format!("annals.sealed.{digest}"))
}

fn lost(subject: &Subject) -> Error {
    let message = format!(
        "there are sealed events of the subject {subject:?}, but the key store has never held its key, \
         and the subject was not forgotten: this is another key store, or one that was restored from an \
         older copy; connect the right one"
    );
    Error::new(ErrorKind::Incompatible, message)
}
