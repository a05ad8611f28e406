//! Questions that several readers of a process have at the same time: one request answers all.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use annals_core::{Error, Result};
use futures::future::{BoxFuture, FutureExt, WeakShared};

type Asking<T> = BoxFuture<'static, Result<T, Arc<Error>>>;

/// The questions that are being asked. Any of the readers that wait for an answer drives its request, so
/// that one which is not polled holds up no other.
#[derive(Debug)]
pub(super) struct Questions<K, T>(Mutex<HashMap<K, WeakShared<Asking<T>>>>);

impl<K, T> Default for Questions<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, T> Questions<K, T> {
    /// Lets no later reader share the answers that are still to come.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<K: Hash + Eq, T: Clone> Questions<K, T> {
    /// The answer to a question that other readers have asked, or that this call begins to ask.
    pub(super) async fn ask<F>(&self, key: K, begin: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let answer = {
            let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A question whose readers are all gone cannot be joined.
            asked
                .retain(|_, answer| answer.upgrade().is_some_and(|answer| answer.peek().is_none()));
            match asked.get(&key).and_then(WeakShared::upgrade) {
                Some(answer) => answer,
                None => {
                    let begun = begin();
                    let answer = async move { begun.await.map_err(Arc::new) }.boxed().shared();
                    asked.extend(answer.downgrade().map(|weak| (key, weak)));
                    answer
                }
            }
        };
        answer.await.map_err(|error| {
            let message = "a request to the log failed that several readers share";
            Error::new(error.kind(), message).with_source(error)
        })
    }
}
